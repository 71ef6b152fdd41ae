// The tokenizer that came with a model or with token files, which nobody asked for: one that this program cannot read
// must not keep anybody from using token files. And the one that somebody asked for in its place.
#pragma once

#include "llmc/io/tokenizer.h"

#include <memory>
#include <string>

namespace llmc {

/// make_tokenizer(), but one that cannot be read is no Error. What comes back then has the reference's name, knows ids
/// and no text (vocab_size() is 0), and gives the reason to who asks it to encode. Choices that make no sense are still
/// an Error.
std::unique_ptr<Tokenizer> make_models_tokenizer(const std::string& reference, const TokenizerChoices& choices = {});

/// Of one that could not be read, a warning with the reason: for who goes on without it, once nothing is to be encoded.
void warn_if_unread(const Tokenizer& tokenizer);

/// make_tokenizer() for what --tokenizer names; its errors name the option. `models` is the reference of the tokenizer
/// that the model came with, "" or "none" if there is none: where an id is another token there, that is a warning.
std::unique_ptr<Tokenizer> make_given_tokenizer(const std::string& reference, const std::string& models,
                                                const TokenizerChoices& choices = {});

}  // namespace llmc
