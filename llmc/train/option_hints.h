// What somebody may have meant by an option that there is not: another spelling, a slip of the fingers, or the name
// that nanoGPT, llm.c, Hugging Face's trainer and others have for it.
#pragma once

#include "llmc/train/options.h"

#include <cstdint>
#include <string>
#include <string_view>

namespace llmc {

/// The option that `given` (with or without dashes in front, as "learning_rate", "--lr", "batchsize") may stand for
/// among those of the commands in `commands` (CommandMask), without dashes: "learning-rate". Empty if none is near.
std::string similar_option(std::string_view given, CommandSet commands);

/// The same as the end of a message, "; did you mean --learning-rate?"; empty if none is near. Where the other name
/// counts something else, it says what ours counts. `dashes` stand in front of the name.
std::string did_you_mean(std::string_view given, CommandSet commands, std::string_view dashes = "--");

/// The word among `words` that differs from `given` by the fewest slips (a letter too many, too few, another, or two
/// swapped), if they are few for its length; else empty.
template <typename Words>
std::string nearest_word(std::string_view given, const Words& words);

/// Slips between two words: Damerau-Levenshtein distance with adjacent swaps.
int slips_between(std::string_view a, std::string_view b);

/// How many slips a word may have and still be recognised.
int tolerated_slips(std::string_view word);

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

}  // namespace llmc
