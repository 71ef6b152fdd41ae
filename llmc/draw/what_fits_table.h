// The table of `plan --what-fits`: the largest batch and the longest sequence of every level in so much memory.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace llmc {

/// One shape: whether it stays within the limit, and what it takes.
struct Fit {
    bool fits = false;
    int64_t total_bytes = 0;  ///< For auto that of the fastest plan within the limit, or of the smallest if none is.
    double tokens_per_second = 0;
};

/// The largest size that fits, with its plan; or, where nothing fits (0), the plan of the smallest size.
struct Largest {
    int64_t size = 0;
    int64_t smallest_size = 0;
    Fit plan;
    bool capped = false;  ///< Nothing larger was tried.
};

struct WhatFitsRow {
    std::string policy;
    Largest batch, sequence;
};

/// What the rows were found within.
struct WhatFitsLimits {
    std::string budget;  ///< As it was asked for.
    int64_t bytes = 0;
    std::string_view dtype;
    int64_t seq_len = 0;           ///< Of the batches.
    int64_t published_length = 0;  ///< The model as it stands takes sequences so long ...
    int64_t longest_sequence = 0;  ///< ... and none is longer than this.
};

/// The table with its notes below, the model called so.
std::string what_fits_table(const WhatFitsLimits& limits, const std::string& model,
                            const std::vector<WhatFitsRow>& rows);

}  // namespace llmc
