#include "llmc/io/pipeline/added_tokens.h"

#include "llmc/io/pipeline/unicode.h"

#include <algorithm>
#include <utility>

namespace llmc {

AddedTokenFinder::AddedTokenFinder(std::vector<AddedToken> tokens) : tokens_(std::move(tokens)) {
    std::vector<std::pair<std::string, int32_t>> names;
    for (const AddedToken& token : tokens_) {
        if (token.text.empty()) continue;
        names.emplace_back(token.text, static_cast<int32_t>(names.size()));
        longest_ = std::max(longest_, token.text.size());
        any_lstrip_ = any_lstrip_ || token.lstrip;
    }
    std::erase_if(tokens_, [](const AddedToken& token) { return token.text.empty(); });
    names_ = ByteTrie(std::move(names));
}

bool AddedTokenFinder::find(std::string_view text, size_t from, bool special_as_text, Match* match) const {
    for (size_t i = from; i < text.size();) {
        size_t bytes = 0;
        const int32_t index = names_.begins(text[i]) ? names_.longest(text, i, &bytes) : -1;
        if (index < 0) {
            ++i;
            continue;
        }
        const AddedToken& token = tokens_[static_cast<size_t>(index)];
        const size_t begin = i, end = i += bytes;
        if (special_as_text && token.special) continue;
        if (token.single_word) {
            const bool joins_left = begin > 0 && is_word_character(character_at(text, character_before(text, begin)));
            const bool joins_right = end < text.size() && is_word_character(character_at(text, end));
            if (joins_left || joins_right) continue;
        }
        *match = {&token, begin, end};
        return true;
    }
    return false;
}

size_t AddedTokenFinder::white_space_before(std::string_view text, size_t end, size_t least) {
    while (end > 0) {
        const size_t before = character_before(text, end);
        if (!is_white_space(character_at(text, before))) break;
        end = before;
    }
    return std::max(end, least);
}

size_t AddedTokenFinder::white_space_behind(std::string_view text, size_t begin) {
    while (begin < text.size() && is_white_space(character_at(text, begin))) begin += utf8_bytes(text[begin]);
    return begin;
}

bool AddedTokenFinder::minds_cut(std::string_view text, size_t p) const {
    size_t last = p;  // White space behind p may be taken by a token behind it.
    while (last < text.size() && (text[last] == ' ' || (text[last] >= '\t' && text[last] <= '\r'))) ++last;
    if (any_lstrip_ && last < text.size() && static_cast<signed char>(text[last]) < 0) return true;  // White, perhaps.
    for (size_t i = p - std::min(p, longest_); i <= last && i < text.size(); ++i) {
        size_t bytes = 0;
        for (uint32_t node = ByteTrie::kNone; i + bytes < text.size();) {
            node = names_.child(node, text[i + bytes++]);
            if (node == ByteTrie::kNone) break;
            if (names_.value(node) >= 0 && i + bytes >= p) return true;
        }
    }
    return false;
}

}  // namespace llmc
