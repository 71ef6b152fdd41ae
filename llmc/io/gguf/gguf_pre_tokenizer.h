// Pre-tokenisers in GGUF files are names, tokenizer.ggml.pre, each of which stands for expressions that llama.cpp's
// programs have: https://github.com/ggml-org/llama.cpp, src/llama-vocab.cpp. Here they are found from the stages.
#pragma once

#include "llmc/io/pipeline/pipeline_tokenizer.h"

#include <nlohmann/json_fwd.hpp>

#include <string>

namespace llmc {

/// A byte-level BPE's pre-tokeniser as GGUF files name it.
struct GgufPreTokenizer {
    std::string name;    ///< "gpt-2", "llama-bpe", ...
    std::string caveat;  ///< Where its pieces differ from the stages', which a user should know; "" if nowhere.
};

/// For a pipeline whose model is a BPE over bytes; `stages`: Pipeline::stages, parsed. `wants_whole_tokens`: a piece
/// that is a token is that token, whatever the merges say, which is part of a name's meaning. An Error names the stage
/// that no name stands for.
GgufPreTokenizer gguf_pre_tokenizer(const Pipeline& pipeline, const nlohmann::json& stages, bool wants_whole_tokens);

/// An Error if a normaliser changes what llama.cpp's programs, which have none for a BPE over bytes, leave as it is.
/// For NFC, which most texts are in, a warning.
void require_no_normalizer(const Pipeline& pipeline, const nlohmann::json& stages);

/// Refuses an export: "--format=gguf: SOURCE has WHAT, ...; use --format=hf".
[[noreturn]] void refuse_gguf_tokenizer(const std::string& source, const std::string& what);

}  // namespace llmc
