#include "llmc/draw/what_fits_table.h"

#include "llmc/base/counted.h"
#include "llmc/base/units.h"
#include "llmc/draw/labels.h"
#include "llmc/draw/report_units.h"
#include "llmc/draw/text_table.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <utility>

namespace llmc {
namespace {

std::string size_text(const Largest& largest, const char* mark = "") {
    return largest.size > 0 ? format_count(largest.size) + mark : "none";
}
std::string speed_text(const Largest& largest) {
    return largest.size > 0 ? rate_text(largest.plan.tokens_per_second) : "-";
}

/// Behind the longest sequence: that it could be no longer, or that it is longer than the model was made for.
const char* mark_of(const WhatFitsRow& row, const WhatFitsLimits& limits) {
    if (row.sequence.size > limits.published_length) return "+";
    return row.sequence.capped ? "*" : "";
}

/// Cells of rows that are printed one after the other stand below each other: columns are at least so wide.
std::string two_lines(const std::string& first, const std::string& second, size_t width) {
    return first + "\n" + std::string(width > second.size() ? width - second.size() : 0, ' ') + second;
}

}  // namespace

std::string what_fits_table(const WhatFitsLimits& limits, const std::vector<WhatFitsRow>& rows, bool has_head) {
    const ReportUnits units(limits.in_full, limits.bytes);
    const size_t of_bytes = limits.in_full ? 15 : 6;
    TextTable table({{.header = "recompute", .left = true},
                     {.header = "fits", .left = true},
                     {.header = two_lines("fastest", "batch", 7)},
                     {.header = two_lines("", "tokens/s", 9)},
                     {.header = two_lines("total", units.of_bytes(""), of_bytes), .rank = 1},
                     {.header = two_lines("largest", "batch", 7)},
                     {.header = two_lines("", "tokens/s", 9), .rank = 2},
                     {.header = two_lines("longest", "context", 9)},
                     {.header = two_lines("", "tokens/s", 9), .rank = 3}});
    for (const WhatFitsRow& row : rows) {
        table.add_row({level_label(row.policy), row.batch.size > 0 ? "yes" : "no", size_text(row.fastest),
                       speed_text(row.fastest), units.bytes(row.fastest.plan.total_bytes), size_text(row.batch),
                       speed_text(row.batch), size_text(row.sequence, mark_of(row, limits)), speed_text(row.sequence)});
    }
    const std::string text = table.text(limits.width);
    if (has_head) return text;
    return text.substr(text.find('\n', text.find('\n') + 1) + 1);
}

std::string what_fits_notes(const WhatFitsLimits& limits, const std::string& model,
                            const std::vector<WhatFitsRow>& rows) {
    const auto any = [&](auto is) { return std::any_of(rows.begin(), rows.end(), is); };
    const auto is_marked = [&](char mark) {
        return any([&](const WhatFitsRow& row) { return *mark_of(row, limits) == mark; });
    };
    std::string text;
    if (is_marked('*')) {
        text += fmt::format("* as long as {} gets: it has learned positions for {}\n", model,
                            counted(limits.longest_sequence, "token"));
    }
    if (is_marked('+')) {
        text +=
            fmt::format("+ longer than the {} tokens of {}: give --max-seq-len, too\n", limits.published_length, model);
    }
    const int64_t shortest = rows.front().sequence.smallest_size;
    if (any([](const WhatFitsRow& row) { return row.batch.size == 0; })) {
        text += fmt::format("no: one sequence of {} takes the total\n", counted(limits.seq_len, "token"));
    }
    if (!any([](const WhatFitsRow& row) { return row.batch.size > 0 || row.sequence.size > 0; })) {
        const WhatFitsRow& least =
            *std::min_element(rows.begin(), rows.end(), [](const WhatFitsRow& a, const WhatFitsRow& b) {
                return a.sequence.plan.total_bytes < b.sequence.plan.total_bytes;
            });
        text += fmt::format("nothing fits; the smallest is --recompute={} with one sequence of {}: {}\n", least.policy,
                            counted(shortest, "token"), format_bytes(least.sequence.plan.total_bytes));
    }
    return wrapped(text, limits.width);
}

std::string contexts_line(const PresetRow& row, int width) {
    std::string text;
    bool differs = false;
    for (const auto& [cell, way] : {std::pair(&row.full, "in full"), std::pair(&row.part, "in part"),
                                    std::pair(&row.lora, "with adapters"), std::pair(&row.qlora, "on 4 bits")}) {
        if (!cell->fits) continue;
        differs = differs || cell->seq_len != row.seq_len;
        text += fmt::format("{}{} at {} {}", text.empty() ? "" : ", ", rate_text(cell->tokens_per_second),
                            format_count(cell->seq_len), way);
    }
    constexpr int kIndent = 2;
    return differs ? "  " + wrapped(text, width - kIndent, 2 * kIndent) : "";
}

std::string presets_table(const std::vector<PresetRow>& rows, int width, bool has_head) {
    const auto speed = [](const PresetCell& cell) { return cell.fits ? rate_text(cell.tokens_per_second) : "no"; };
    TextTable table({{.header = "\npreset          ", .left = true},
                     {.header = "para-\n meters", .rank = 1},
                     {.header = "con-\n   text", .rank = 2},
                     {.header = "in full\n tokens/s"},
                     {.header = "in part\n tokens/s"},
                     {.header = "adapters\n tokens/s"},
                     {.header = "on 4 bits\n tokens/s"},
                     {.header = "\nsetting of the first that fits", .left = true, .rank = 3, .prose = true}});
    for (const PresetRow& row : rows) {
        const PresetCell* first = &row.full;  // Says what it needs, where none fits.
        for (const PresetCell* cell : {&row.qlora, &row.lora, &row.part, &row.full}) {
            if (cell->fits) first = cell;
        }
        const auto millions = static_cast<double>(row.parameters) / 1e6;
        table.add_row({row.model,
                       millions < 1000 ? fmt::format("{:.0f}M", millions) : fmt::format("{:.1f}B", millions / 1e3),
                       format_count(row.seq_len), speed(row.full), speed(row.part), speed(row.lora), speed(row.qlora),
                       first->setting});
    }
    const std::string text = table.text(width);
    if (has_head) return text;
    return text.substr(text.find('\n', text.find('\n') + 1) + 1);
}

}  // namespace llmc
