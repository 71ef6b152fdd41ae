// Where a tokenizer's files are and of what kind. A reference is "bytes", "none", or a path: a folder as Hugging Face,
// OpenAI or Meta give them out, or one of its files.
#pragma once

#include "llmc/io/tokenizer.h"

#include <cstdint>
#include <string>

namespace llmc {

enum class TokenizerKind : uint8_t {
    Bytes,           ///< No file: tokens are bytes.
    None,            ///< No file: only ids are known.
    TokenizerJson,   ///< tokenizer.json
    VocabAndMerges,  ///< vocab.json and merges.txt, or encoder.json and vocab.bpe
    Ranks,           ///< tokenizer.model or any other name: lines of base64 and rank
    SentencePiece,   ///< tokenizer.model, a protocol buffer
    Llmc,            ///< llm.c's decode-only file
};

struct TokenizerFiles {
    TokenizerKind kind;
    std::string path;
    std::string merges_path;  ///< VocabAndMerges only.
    std::string folder;       ///< Where files that belong to them are; "" if nothing else belongs to a file.
};

/// Finds them. What is neither there nor known is an Error that says what was looked for. In a folder tokenizer.json
/// goes before tokenizer.model unless it has stages that this program lacks.
TokenizerFiles find_tokenizer_files(const std::string& reference);

/// Copies the tokenizer's files into `folder`, under their usual names, so that what stands there needs nothing else.
/// From a folder, what belongs to them comes along (carried_files.h), and so do the user's `choices`. Returns the
/// reference to use from now on: `folder`, or the old one where there are no files.
std::string copy_tokenizer(const std::string& reference, const std::string& folder,
                           const TokenizerChoices& choices = {});

}  // namespace llmc
