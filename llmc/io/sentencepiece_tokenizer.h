// SentencePiece models (Llama 2's tokenizer.model), through libsentencepiece. Where the text is valid UTF-8 the ids are
// the library's; a piece that covers other bytes becomes the tokens of its single bytes, so that they come back.
// https://github.com/google/sentencepiece
#pragma once

#include "llmc/io/tokenizer.h"

#include <memory>
#include <string>

namespace llmc {

/// An Error where the program was built without the library, or the file is no such model.
std::unique_ptr<Tokenizer> make_sentencepiece_tokenizer(const std::string& name, const std::string& path,
                                                        const std::string& document_token = "");

}  // namespace llmc
