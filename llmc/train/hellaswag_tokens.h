// Whether the tokens of a HellaSwag file are those of a model: a score over another tokenizer's means nothing.
#pragma once

#include "llmc/io/hellaswag.h"
#include "llmc/io/tokenizer.h"

#include <cstdint>
#include <span>
#include <string>

namespace llmc {

/// An Error that names `path` if an id is not below V, or if the examples read with the model's tokenizer are no text,
/// or not how it would write them. A tokenizer that is not known is taken at its word, with a warning unless the
/// vocabulary is GPT-2's, whose tokens the file has by its format.
void require_tokens_of(const Tokenizer& tokenizer, int64_t V, std::span<const HellaswagExample> examples,
                       const std::string& path);

}  // namespace llmc
