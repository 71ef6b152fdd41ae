// Files that are read as pipelines: tokenizer.json (Hugging Face), vocab.json with merges.txt (GPT-2), and tiktoken's
// rank files. Whatever is wrong with one is an Error that names the file, and the line where lines count.
#pragma once

#include "llmc/io/pipeline/pipeline_tokenizer.h"
#include "llmc/io/tokenizer.h"

#include <string>

namespace llmc {

inline constexpr const char* kEndOfTextName = "<|endoftext|>";

/// `folder` holds the files that belong to it (document_token.h); "" if there is none. A stage that this program lacks
/// is an Error that names it.
Pipeline read_tokenizer_json(const std::string& path, const std::string& folder, const TokenizerChoices& choices);

/// What keeps tokenizer.json from being read, as "the model WordPiece"; "" if nothing does. An Error if it is no JSON.
std::string tokenizer_json_obstacle(const std::string& path);

/// GPT-2's pair of files: token -> id, and the merges in their order. <|endoftext|>, if there, is special.
Pipeline read_vocab_and_merges(const std::string& vocab_path, const std::string& merges_path, const std::string& folder,
                               const TokenizerChoices& choices);

/// Lines of base64 and rank. Their number tells the family, which has a pattern and special tokens: 50256 is GPT-2's,
/// 100256 cl100k's, 128000 Llama 3's, 199998 o200k's. Another needs a pattern in `choices`, and gets <|endoftext|>
/// behind its ranks.
Pipeline read_ranks(const std::string& path, const TokenizerChoices& choices);

}  // namespace llmc
