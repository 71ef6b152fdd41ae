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

}  // namespace llmc
