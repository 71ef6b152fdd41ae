// The tokens of a vocabulary, their types, scores and merges, from each kind of tokenizer.
#pragma once

#include "llmc/io/gguf/gguf_vocabulary.h"
#include "llmc/io/pipeline/document_token.h"
#include "llmc/io/tokenizer.h"
#include "llmc/io/tokenizer_files.h"

namespace llmc {

/// Of a token that no text becomes.
inline constexpr float kUnusedScore = -10000;

/// An Error that names a stage of tokenizer.json that this program does not read.
void refuse_unread_stages(const TokenizerFiles& files);

/// Of a tokenizer that can encode. Tokens that only `companions` name are there if they have ids below V.
GgufVocabulary vocabulary_of(const TokenizerFiles& files, const Tokenizer& tokenizer, const CompanionFiles& companions,
                             int64_t V);

}  // namespace llmc
