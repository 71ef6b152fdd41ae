// Files of byte-level BPE tokenizers: vocab.json + merges.txt (GPT-2), tokenizer.json (Hugging Face), tiktoken's rank
// files (Llama 3). Whatever is wrong with one is an Error that names the file, and the line where lines count.
#pragma once

#include "llmc/io/bpe_tokenizer.h"

#include <string>

namespace llmc {

inline constexpr const char* kEndOfTextName = "<|endoftext|>";

/// GPT-2's pair of files: token -> id, and the merges in their order. <|endoftext|>, if there, is special.
BpeVocabulary read_vocab_and_merges(const std::string& vocab_path, const std::string& merges_path);

/// Whether a parsed tokenizer.json is what read_tokenizer_json() reads; else `why` names what it has instead.
bool is_byte_level_bpe(const std::string& path, std::string* why);

/// A BPE model with a byte-level pre-tokeniser, alone or after one split by a regular expression, and no normaliser.
BpeVocabulary read_tokenizer_json(const std::string& path);

/// Lines of base64 and rank. 50256 of them are GPT-2's; any other number is taken for a relative of Llama 3, whose
/// 256 special tokens follow the ranks.
BpeVocabulary read_ranks(const std::string& path);

}  // namespace llmc
