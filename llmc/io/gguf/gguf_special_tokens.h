// Special tokens by their roles, and chat templates, from the small files beside a tokenizer.
#pragma once

#include "llmc/io/gguf/gguf_vocabulary.h"
#include "llmc/io/tokenizer.h"

#include <string>

namespace llmc {

/// Sets bos, eos, unk, pad and whether texts begin with bos. They do where the files say so (add_bos_token, or a
/// template that puts a token in front); where they say nothing and there is no chat template, they begin with the
/// token in front of documents, as they did in training and do in `generate`. `folder` is "" if there are no files.
void choose_special_tokens(const Tokenizer& tokenizer, const std::string& folder, GgufVocabulary* vocabulary);

/// From chat_template.jinja, else from tokenizer_config.json.
void add_chat_templates(const std::string& folder, GgufVocabulary* vocabulary);

}  // namespace llmc
