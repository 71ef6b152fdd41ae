// The tables of `plan --what-fits`: for every level the fastest setting in so much memory, and the largest batch and
// the longest sequence beside it; and a line for every preset.
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
    int64_t host_bytes = 0;
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
    Largest fastest;  ///< The batch with the most tokens per second.
    Largest batch, sequence;
};

/// What the rows were found within.
struct WhatFitsLimits {
    int64_t bytes = 0;
    int64_t seq_len = 0;           ///< Of the batches.
    int64_t published_length = 0;  ///< The model as it stands takes sequences so long ...
    int64_t longest_sequence = 0;  ///< ... and none is longer than this.
    bool in_full = false;          ///< --bytes.
    int width = 80;
};

/// The table; without its head, rows that go below one that was printed.
std::string what_fits_table(const WhatFitsLimits& limits, const std::vector<WhatFitsRow>& rows, bool has_head = true);

/// What the cells cannot say; the model is called so.
std::string what_fits_notes(const WhatFitsLimits& limits, const std::string& model,
                            const std::vector<WhatFitsRow>& rows);

/// How one preset trains in the memory: a setting in words and its speed, or why not.
struct PresetCell {
    bool fits = false;
    std::string setting;  ///< "layer -b 4"; else "needs 28.1 GiB".
    double tokens_per_second = 0;
    int64_t seq_len = 0;  ///< If it fits.
};
struct PresetRow {
    std::string model;
    int64_t parameters = 0;
    int64_t seq_len = 0;
    PresetCell full, part, lora, qlora;
};
/// With the setting of the first way that fits: in full, in part, with adapters, with adapters on
/// 4 bits.
std::string presets_table(const std::vector<PresetRow>& rows, int width, bool has_head = true);

/// "102 at 16,384 in full, ...", where the ways of a row that fit have different contexts; else "".
std::string contexts_line(const PresetRow& row, int width);

}  // namespace llmc
