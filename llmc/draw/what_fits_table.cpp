#include "llmc/draw/what_fits_table.h"

#include "llmc/base/units.h"
#include "llmc/draw/labels.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cmath>

namespace llmc {
namespace {

std::string speed_text(double tokens_per_second) {
    return tokens_per_second < 100 ? fmt::format("{:.3g}", tokens_per_second)
                                   : format_count(std::llround(tokens_per_second));
}

/// Three cells: the size, its bytes and its speed; or "none" and the bytes that the smallest would take.
std::string cells(const Largest& largest, const char* mark) {
    const std::string size = largest.size > 0 ? format_count(largest.size) + mark : "none ";
    const std::string speed = largest.size > 0 ? speed_text(largest.plan.tokens_per_second) : "-";
    return fmt::format(" {:>13} {:>20} {:>9}", size, format_count(largest.plan.total_bytes), speed);
}

/// Behind the longest sequence: that it could be no longer, or that it is longer than the model was made for.
const char* mark_of(const WhatFitsRow& row, const WhatFitsLimits& limits) {
    if (row.sequence.size > limits.published_length) return "+";
    return row.sequence.capped ? "*" : " ";
}

/// What the table cannot say in its cells.
std::string footnotes(const std::string& model, const WhatFitsLimits& limits, const std::vector<WhatFitsRow>& rows) {
    const auto any = [&](auto is) { return std::any_of(rows.begin(), rows.end(), is); };
    const auto is_marked = [&](char mark) {
        return any([&](const WhatFitsRow& row) { return *mark_of(row, limits) == mark; });
    };
    std::string text;
    if (is_marked('*')) {
        text += fmt::format("* as long as {} gets: it has learned positions for {} tokens\n", model,
                            limits.longest_sequence);
    }
    if (is_marked('+')) {
        text +=
            fmt::format("+ longer than the {} tokens of {}: give --max-seq-len, too\n", limits.published_length, model);
    }
    const int64_t shortest = rows.front().sequence.smallest_size;
    if (any([](const WhatFitsRow& row) { return row.batch.size == 0 || row.sequence.size == 0; })) {
        text += fmt::format("none: total B is what one sequence would take, of --seq-len or of {} tokens\n", shortest);
    }
    if (!any([](const WhatFitsRow& row) { return row.batch.size > 0 || row.sequence.size > 0; })) {
        const WhatFitsRow& least =
            *std::min_element(rows.begin(), rows.end(), [](const WhatFitsRow& a, const WhatFitsRow& b) {
                return a.sequence.plan.total_bytes < b.sequence.plan.total_bytes;
            });
        text += fmt::format("nothing fits; the smallest is --recompute={} with one sequence of {} tokens: {}\n",
                            least.policy, shortest, format_bytes(least.sequence.plan.total_bytes));
    }
    return text;
}

}  // namespace

std::string what_fits_table(const WhatFitsLimits& limits, const std::string& model,
                            const std::vector<WhatFitsRow>& rows) {
    std::string text =
        fmt::format("what fits in {} ({} B), {}\n\n", limits.budget, format_count(limits.bytes), limits.dtype);
    text += fmt::format("{:<10} {:>13} {:>20} {:>9} {:>13}\n", "", "sequences of ", "", "", "tokens in ");
    text += fmt::format("{:<10} {:>13} {:>20} {:>9} {:>13} {:>20} {:>9}\n", "recompute",
                        fmt::format("{} tokens ", limits.seq_len), "total B", "tokens/s", "one sequence ", "total B",
                        "tokens/s");
    for (const WhatFitsRow& row : rows) {
        text += fmt::format("{:<10}", level_label(row.policy)) + cells(row.batch, " ") +
                cells(row.sequence, mark_of(row, limits)) + "\n";
    }
    return text + footnotes(model, limits, rows);
}

}  // namespace llmc
