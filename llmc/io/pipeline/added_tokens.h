// Tokens that are looked for in the text itself, before it is cut into pieces: special ones such as <|endoftext|>, and
// words that somebody added to a vocabulary later.
#pragma once

#include "llmc/io/pipeline/byte_trie.h"

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace llmc {

struct AddedToken {
    int32_t id = -1;
    std::string text;
    bool special = false;      ///< An id only where SpecialTokens::AsIds is asked for.
    bool single_word = false;  ///< Not within a word.
    bool lstrip = false;       ///< Takes the white space before it, too.
    bool rstrip = false;       ///< Takes the white space behind it, too.
    bool normalized = false;   ///< Looked for after normalisation, itself normalised.
};

/// Finds added tokens: the leftmost, and of several that begin there the longest. Immutable.
class AddedTokenFinder {
  public:
    AddedTokenFinder() = default;
    explicit AddedTokenFinder(std::vector<AddedToken> tokens);
    bool empty() const { return tokens_.empty(); }
    /// Bytes of the longest name.
    size_t longest() const { return longest_; }

    /// Calls other(begin, end) for stretches without a token, token(id) for tokens, in their order. With
    /// `special_as_text` a special token's name is text, though nothing else is found within it.
    template <typename Other, typename Token>
    void split(std::string_view text, bool special_as_text, Other other, Token token) const {
        size_t done = 0;
        Match match;
        for (size_t from = 0; find(text, from, special_as_text, &match); from = match.resume) {
            const size_t begin = match.token->lstrip ? white_space_before(text, match.begin, done) : match.begin;
            if (done < begin) other(done, begin);
            token(match.token->id);
            done = match.token->rstrip ? white_space_behind(text, match.resume) : match.resume;
        }
        if (done < text.size()) other(done, text.size());
    }
    /// Whether cutting text[0, p) from the rest could change what is found: a token's name touches p, or the white
    /// space behind p.
    bool minds_cut(std::string_view text, size_t p) const;

  private:
    struct Match {
        const AddedToken* token;
        size_t begin;
        size_t resume;  ///< Its end.
    };
    bool find(std::string_view text, size_t from, bool special_as_text, Match* match) const;
    static size_t white_space_before(std::string_view text, size_t end, size_t least);
    static size_t white_space_behind(std::string_view text, size_t begin);

    std::vector<AddedToken> tokens_;
    ByteTrie names_;  ///< Indices of tokens_.
    size_t longest_ = 0;
    bool any_lstrip_ = false;
};

}  // namespace llmc
