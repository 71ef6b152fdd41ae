// Byte-level BPE tokenizers: GPT-2's, Llama 3's and their relatives. Any bytes can be encoded and come back: a byte
// that is not part of valid UTF-8 stands alone. The files they come from: bpe_files.h.
#pragma once

#include "llmc/io/bpe.h"
#include "llmc/io/pretokenize.h"
#include "llmc/io/special_tokens.h"
#include "llmc/io/tokenizer.h"

#include <array>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace llmc {

/// What a vocabulary is made of.
struct BpeVocabulary {
    std::string source;                ///< File it came from, for messages.
    std::vector<std::string> tokens;   ///< Bytes of every id; "" where an id is not used.
    std::array<int32_t, 256> bytes{};  ///< Token of every single byte.
    BpeMerges merges;
    std::string pattern;            ///< Pre-tokenisation.
    bool whole_words = false;       ///< A word that is a token is that token, whatever the merges say.
    std::vector<AddedToken> added;  ///< Tokens found in the text before anything else.
    int32_t end_of_text = -1;
};

class BpeTokenizer final : public Tokenizer {
  public:
    BpeTokenizer(std::string name, BpeVocabulary vocabulary);
    std::string name() const override { return name_; }
    int32_t vocab_size() const override { return static_cast<int32_t>(vocabulary_.tokens.size()); }
    int32_t end_of_text() const override { return vocabulary_.end_of_text; }
    std::unique_ptr<Encoder> make_encoder(SpecialTokens special) const override;
    std::string token_bytes(int32_t token) const override;
    std::string decode(std::span<const int32_t> tokens) const override;

    const BpeVocabulary& vocabulary() const { return vocabulary_; }

  private:
    friend class BpeEncoder;
    std::string name_;
    BpeVocabulary vocabulary_;
    SplitPattern pattern_;
    std::unordered_map<std::string_view, int32_t> words_;  ///< Ids by bytes, for whole_words.
    AddedTokenFinder always_;                              ///< Tokens that are ids in any text.
    AddedTokenFinder asked_;                               ///< Those and the special ones.
};

}  // namespace llmc
