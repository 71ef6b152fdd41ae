// What GGUF files say of a tokenizer: the tokens by id, how text becomes them, special tokens, chat templates. The ids
// are those of this program; a tokenizer whose ids llama.cpp's programs would not give is refused, by the stage.
// Keys: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md#tokenizer
#pragma once

#include "llmc/io/gguf/gguf_file.h"

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace llmc {

/// The values are those of tokenizer.ggml.token_type.
enum class GgufTokenType : int32_t { Normal = 1, Unknown = 2, Control = 3, UserDefined = 4, Unused = 5, Byte = 6 };

struct GgufVocabulary {
    std::string model = "none";  ///< "gpt2": BPE over bytes; "llama", "t5": SentencePiece's BPE and Unigram; "none".
    std::string pre_tokenizer;
    std::vector<std::string> tokens;
    std::vector<GgufTokenType> types;
    std::vector<float> scores;        ///< Of SentencePiece's models only.
    std::vector<std::string> merges;  ///< Of "gpt2" only: "left right", the first to merge first.
    int32_t bos = -1, eos = -1, unk = -1, pad = -1;
    bool adds_bos = false;  ///< A text begins with bos, as documents did in training.
    std::optional<bool> adds_space, removes_blanks;
    std::string character_map;                                        ///< SentencePiece's normaliser, compiled.
    std::vector<std::pair<std::string, std::string>> chat_templates;  ///< Name ("" for the usual one) and template.

    /// Sets what is at an id; the list grows with unused tokens up to it. Scores only where the model has them.
    void set(int32_t id, std::string token, GgufTokenType type, float score = 0);
    /// Fills up to `size` with tokens that stand for nothing and have no other's name.
    void pad_to(int64_t size);
    /// The id of a token by its text; -1 if there is none.
    int32_t id_of(const std::string& token) const;
    void add_to(GgufMetadata* metadata) const;
};

/// Of the tokenizer that make_tokenizer() makes of `reference`, for an embedding of V rows. `folder` has the files that
/// belong to it; "" if there are none. An unknown tokenizer, or one that only decodes, is a warning, and "none". What
/// GGUF files cannot say is an Error that names the stage.
GgufVocabulary gguf_vocabulary(const std::string& reference, const std::string& folder, int64_t V);

}  // namespace llmc
