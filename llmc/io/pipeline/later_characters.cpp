#include "llmc/io/pipeline/later_characters.h"

#include "llmc/base/error.h"
#include "llmc/io/pipeline/later_character_table.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>

namespace llmc {
namespace {

/// Items of a class for the later characters of a property; "" for properties that are none of a general category.
std::string items_of(std::string_view property) {
    std::string items;
    const std::string_view category = property == "Alphabetic"  ? "L"
                                      : property == "Lowercase" ? "Ll"
                                      : property == "Uppercase" ? "Lu"
                                                                : property;
    for (const LaterRange& range : kLaterRanges) {
        if (!range.category.starts_with(category)) continue;
        items += fmt::format("\\x{{{:x}}}", static_cast<uint32_t>(range.first));
        if (range.last > range.first) items += fmt::format("-\\x{{{:x}}}", static_cast<uint32_t>(range.last));
    }
    return items;
}

}  // namespace

std::string_view later_category(char32_t c) {
    const auto* range = std::upper_bound(std::begin(kLaterRanges), std::end(kLaterRanges), c,
                                         [](char32_t value, const LaterRange& row) { return value < row.first; });
    if (range == std::begin(kLaterRanges) || c > (--range)->last) return "";
    return range->category;
}

std::string with_later_characters(std::string_view pattern) {
    std::string out;
    bool in_class = false;
    for (size_t i = 0; i < pattern.size(); ++i) {
        const std::string_view rest = pattern.substr(i);
        if (pattern[i] != '\\') {
            in_class = in_class ? pattern[i] != ']' : pattern[i] == '[';
            out += pattern[i];
            continue;
        }
        const bool negated = rest.starts_with("\\P{");
        if (!negated && !rest.starts_with("\\p{")) {
            out += rest.substr(0, 2);
            ++i;
            continue;
        }
        const size_t end = std::min(rest.find('}'), rest.size() - 1);
        const std::string_view whole = rest.substr(0, end + 1);
        const std::string items = items_of(rest.substr(3, end - 3));
        i += end;
        if (items.empty() || (in_class && negated)) {
            out += whole;
        } else if (in_class) {
            out.append(whole).append(items);
        } else {
            out.append(negated ? "[^\\p" : "[\\p").append(whole.substr(2)).append(items) += ']';
        }
    }
    return out;
}

bool may_have_later_characters(std::string_view text) {
    size_t i = 0;
    for (uint64_t eight = 0; i + sizeof eight <= text.size(); i += sizeof eight) {
        std::memcpy(&eight, text.data() + i, sizeof eight);
        // A byte of 0xE0 and more has its three highest bits.
        if ((eight & eight << 1 & eight << 2 & 0x8080808080808080u) != 0) return true;
    }
    return std::any_of(text.begin() + static_cast<std::ptrdiff_t>(i), text.end(),
                       [](char c) { return static_cast<unsigned char>(c) >= 0xE0; });
}

}  // namespace llmc
