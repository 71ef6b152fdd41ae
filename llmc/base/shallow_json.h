// JSON of files that others wrote. nlohmann's values are copied, compared and printed by recursion, so that a file of
// brackets alone would end the program without a word.
#pragma once

#include <string_view>

namespace llmc {

constexpr int kMostJsonLevels = 200;

/// The text as it is, for a parser, unless arrays and objects in it stand within more than kMostJsonLevels others: then
/// what comes before, which no parser takes for whole. What is no JSON may be cut anywhere.
std::string_view shallow_json(std::string_view text);

}  // namespace llmc
