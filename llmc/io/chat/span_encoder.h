// Tokens of a text, and which of them lie in given stretches of it, for any tokenizer: its stages need not say where
// their tokens come from.
#pragma once

#include "llmc/io/special_names.h"
#include "llmc/io/tokenizer.h"

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace llmc {

/// What SpanEncoders of one tokenizer share; it must outlive this. Immutable.
class TokenLengths {
  public:
    explicit TokenLengths(const Tokenizer& tokenizer);
    const Tokenizer& tokenizer() const { return tokenizer_; }
    /// Bytes that a token adds to a decoded text.
    size_t bytes(int32_t token) const { return bytes_[static_cast<size_t>(token)]; }
    size_t bytes(std::span<const int32_t> tokens) const;
    /// The special tokens, the longest names first.
    const std::vector<SpecialToken>& specials() const { return specials_; }
    bool is_special(int32_t token) const { return is_special_[static_cast<size_t>(token)]; }
    /// Id of a name; -1 if it is none of a special token.
    int32_t special_id(std::string_view name) const;
    /// Special tokens that begin at text[i]: the one with the longest name; null if none does.
    const SpecialToken* special_at(std::string_view text, size_t i) const;

  private:
    const Tokenizer& tokenizer_;
    std::vector<size_t> bytes_;
    std::vector<SpecialToken> specials_;
    std::vector<bool> is_special_;
    std::string first_bytes_;
};

/// One thread's.
class SpanEncoder {
  public:
    explicit SpanEncoder(const TokenLengths& lengths);

    /// Bytes [first, second) of a text, at borders of characters.
    using Stretch = std::pair<size_t, size_t>;
    /// Appends the tokens of `text`, which is valid UTF-8, with special tokens as their ids, and for each whether it
    /// has a byte in one of the `stretches`. These are ordered and do not overlap.
    void encode(std::string_view text, std::span<const Stretch> stretches, std::vector<int32_t>* tokens,
                std::vector<bool>* inside);

  private:
    struct Anchor {
        size_t place;  ///< Where a special token's name begins in the text,
        size_t token;  ///< and which token it is.
        size_t end;    ///< Where its name ends.
    };
    std::vector<Anchor> anchors_in(std::string_view text, std::span<const int32_t> tokens) const;
    size_t decoded_bytes(std::string_view text, bool continues);

    const TokenLengths& lengths_;
    std::unique_ptr<Encoder> encoder_;
    size_t probe_bytes_ = 0;
    std::vector<int32_t> scratch_;
};

}  // namespace llmc
