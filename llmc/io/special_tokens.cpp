#include "llmc/io/special_tokens.h"

#include "llmc/base/check.h"

#include <algorithm>
#include <utility>

namespace llmc {
namespace {

unsigned char first_byte(const AddedToken& token) { return static_cast<unsigned char>(token.text[0]); }

}  // namespace

AddedTokenFinder::AddedTokenFinder(std::vector<AddedToken> tokens) : tokens_(std::move(tokens)) {
    std::stable_sort(tokens_.begin(), tokens_.end(), [](const AddedToken& a, const AddedToken& b) {
        if (first_byte(a) != first_byte(b)) return first_byte(a) < first_byte(b);
        return a.text.size() > b.text.size();
    });
    for (const AddedToken& token : tokens_) {
        CHECK(!token.text.empty(), token.id);
        ++first_[first_byte(token) + 1u];
        longest_ = std::max(longest_, token.text.size());
    }
    for (size_t b = 0; b < 256; ++b) first_[b + 1] += first_[b];
}

const AddedToken* AddedTokenFinder::at(std::string_view text, size_t position) const {
    const auto byte = static_cast<unsigned char>(text[position]);
    for (uint32_t i = first_[byte]; i < first_[byte + 1u]; ++i) {
        if (text.substr(position).starts_with(tokens_[i].text)) return &tokens_[i];
    }
    return nullptr;
}

const AddedToken* AddedTokenFinder::find(std::string_view text, size_t* position) const {
    for (; *position < text.size(); ++*position) {
        const AddedToken* token = at(text, *position);
        if (token != nullptr) return token;
    }
    return nullptr;
}

bool AddedTokenFinder::cuts_through(std::string_view text, size_t p) const {
    for (size_t i = p - std::min(p, longest_); i < p; ++i) {
        const AddedToken* token = at(text, i);
        if (token != nullptr && i + token->text.size() > p) return true;
    }
    return false;
}

}  // namespace llmc
