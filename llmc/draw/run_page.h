// The page of one or several runs: one HTML file that needs nothing else, for a browser on a desk or a phone, light or
// dark. Curves over each other, what differs between the runs, memory and plan of each, samples over time.
#pragma once

#include "llmc/draw/series.h"

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace llmc {

/// A row of a plan's table of layers.
struct PageLayers {
    int first = 0, last = 0;
    std::string keeps;
    int64_t kept_bytes = 0, host_bytes = 0;
    double repeated_ms = 0;
};

struct PageOption {
    std::string name, value;
    bool is_given = false;  ///< Rather than left to the program, as far as that is known.
};

struct PageSample {
    int64_t step = 0;
    std::string text;
};

/// All that the page shows of a run. What is not known is empty.
struct PageRun {
    std::string name;
    std::string status;                                      ///< "finished", "running", "interrupted".
    std::vector<std::pair<std::string, std::string>> facts;  ///< "best validation loss", "1.234 at step 500".
    std::vector<std::string> notes;                          ///< What a reader should know first.
    std::string loss_unit = "nats";                          ///< "nats per byte" where that is known.
    Series loss, validation, learning_rate, grad_norm, tokens_per_second, step_ms;
    int64_t first_step = 0;   ///< Steps done before the process that trained last, whose plan is the one shown.
    double predicted_ms = 0;  ///< Of a step of that process.
    std::string plan_words;   ///< "sqrt: k = 4 ...".
    std::vector<std::pair<std::string, int64_t>> memory, host_memory;
    std::vector<PageLayers> layers;
    std::string timeline;  ///< SVG.
    std::vector<PageOption> options;
    std::vector<PageSample> samples;
};

std::string run_page(const std::vector<PageRun>& runs);

}  // namespace llmc
