// What somebody may have meant by a word that there is not: the nearest of those that there are.
#pragma once

#include <string>
#include <string_view>

namespace llmc {

/// Slips between two words (a letter too many, too few, another, or two swapped): Damerau-Levenshtein distance with
/// adjacent swaps.
int slips_between(std::string_view a, std::string_view b);

/// How many slips a word may have and still be recognised.
int tolerated_slips(std::string_view word);

/// The word among `words` that differs from `given` by the fewest slips, if they are few for its length; else empty.
template <typename Words>
std::string nearest_word(std::string_view given, const Words& words) {
    std::string nearest;
    int least = tolerated_slips(given) + 1;
    for (const auto& word : words) {
        const int slips = slips_between(given, word);
        if (slips >= least) continue;
        least = slips;
        nearest = word;
    }
    return nearest;
}

/// The nearest word, or the only one that begins with `given`, which has at least three letters; else empty.
template <typename Words>
std::string likely_word(std::string_view given, const Words& words) {
    constexpr size_t kBeginning = 3;
    std::string found = nearest_word(given, words);
    if (!found.empty() || given.size() < kBeginning) return found;
    int count = 0;
    for (const auto& word : words) {
        if (!std::string_view(word).starts_with(given)) continue;
        found = word;
        ++count;
    }
    return count == 1 ? found : "";
}

/// The likely word as the end of a message, "; did you mean sqrt?"; empty if there is none.
template <typename Words>
std::string likely_as_question(std::string_view given, const Words& words) {
    const std::string meant = likely_word(given, words);
    return meant.empty() ? "" : "; did you mean " + meant + "?";
}

}  // namespace llmc
