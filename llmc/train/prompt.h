// The tokens that a text is to begin with.
#pragma once

#include "llmc/io/tokenizer.h"

#include <cstdint>
#include <string>
#include <vector>

namespace llmc {

/// How prompts are read; the same for samples in training and for `generate`.
struct PromptReading {
    std::string option;           ///< That the prompt comes from, for messages: "--prompt".
    bool special_tokens = false;  ///< Names of special tokens are their ids; else letters, of which a warning tells.
};

/// The tokens of `prompt`, with `document` in front, unless that is -1 or they begin with it. At least one, of id 0
/// where there is nothing else. One beyond the model's vocabulary `V` is an Error.
std::vector<int32_t> encode_prompt(const std::string& prompt, const Tokenizer& tokenizer, int32_t document, int64_t V,
                                   const PromptReading& reading);

}  // namespace llmc
