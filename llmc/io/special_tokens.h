// Tokens that are looked for in the text itself, before it is cut into words: special ones such as <|endoftext|>, and
// words that somebody added to a vocabulary later.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace llmc {

struct AddedToken {
    int32_t id;
    std::string text;
    bool special;  ///< Looked for only where SpecialTokens::AsIds is asked for.
};

/// Finds added tokens: the leftmost, and of several that begin there the longest. Immutable.
class AddedTokenFinder {
  public:
    explicit AddedTokenFinder(std::vector<AddedToken> tokens);
    bool empty() const { return tokens_.empty(); }
    /// The token that begins at text[position]; null if there is none.
    const AddedToken* at(std::string_view text, size_t position) const;
    /// The first token that begins at or after `*position`, which becomes its place; null if there is none.
    const AddedToken* find(std::string_view text, size_t* position) const;
    /// Whether cutting text[0, p) from the rest could cut through a token.
    bool cuts_through(std::string_view text, size_t p) const;

  private:
    std::vector<AddedToken> tokens_;          ///< By first byte, the longest first.
    std::array<std::uint32_t, 257> first_{};  ///< Tokens that begin with byte b: first_[b] to first_[b + 1].
    size_t longest_ = 0;
};

}  // namespace llmc
