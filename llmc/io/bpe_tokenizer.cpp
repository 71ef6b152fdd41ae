#include "llmc/io/bpe_tokenizer.h"

#include "llmc/base/error.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <cstring>
#include <utility>

namespace llmc {

class BpeEncoder final : public Encoder {
  public:
    BpeEncoder(const BpeTokenizer& tokenizer, SpecialTokens special)
        : tokenizer_(tokenizer),
          added_(special == SpecialTokens::AsIds ? tokenizer.asked_ : tokenizer.always_),
          splitter_(tokenizer.pattern_),
          cache_(kCacheEntries) {}

    void encode(std::string_view text, bool /*continues*/, std::vector<int32_t>* tokens) override {
        if (added_.empty()) return encode_bytes(text, tokens);
        while (!text.empty()) {
            size_t position = 0;
            const AddedToken* token = added_.find(text, &position);
            encode_bytes(text.substr(0, position), tokens);
            if (token == nullptr) return;
            tokens->push_back(token->id);
            text.remove_prefix(position + token->text.size());
        }
    }

    size_t safe_cut(std::string_view text, size_t from) override {
        size_t p = splitter_.safe_cut(text, from);
        while (p < text.size() && added_.cuts_through(text, p)) p = splitter_.safe_cut(text, p + 1);
        return p;
    }

  private:
    static constexpr size_t kCachedBytes = 22;
    static constexpr size_t kCachedTokens = 10;
    static constexpr size_t kCacheEntries = size_t{1} << 15;  ///< 2 MiB: about what a core's own cache holds.
    /// A word and its tokens. A newer word takes the place of an older one.
    struct CachedWord {
        uint8_t bytes = 0;
        uint8_t tokens = 0;
        char text[kCachedBytes];
        int32_t ids[kCachedTokens];
    };
    static_assert(sizeof(CachedWord) == 64);

    void encode_bytes(std::string_view text, std::vector<int32_t>* tokens) {
        while (!text.empty()) {
            const std::string_view valid = text.substr(0, valid_utf8_prefix(text));
            for (size_t begin = 0; begin < valid.size();) {
                const size_t end = splitter_.word_end(valid, begin);
                encode_word(valid.substr(begin, end - begin), tokens);
                begin = end;
            }
            text.remove_prefix(valid.size());
            if (text.empty()) return;
            tokens->push_back(byte_token(text[0]));
            text.remove_prefix(1);
        }
    }

    void encode_word(std::string_view word, std::vector<int32_t>* tokens) {
        if (word.size() > kCachedBytes) {
            merge(word);
            tokens->insert(tokens->end(), word_.begin(), word_.end());
            return;
        }
        CachedWord& cached = cache_[XXH3_64bits(word.data(), word.size()) % kCacheEntries];
        if (cached.bytes != word.size() || std::memcmp(cached.text, word.data(), word.size()) != 0) {
            merge(word);
            if (word_.size() > kCachedTokens) {
                tokens->insert(tokens->end(), word_.begin(), word_.end());
                return;
            }
            cached.bytes = static_cast<uint8_t>(word.size());
            cached.tokens = static_cast<uint8_t>(word_.size());
            std::memcpy(cached.text, word.data(), word.size());
            std::copy(word_.begin(), word_.end(), cached.ids);
        }
        tokens->insert(tokens->end(), cached.ids, cached.ids + cached.tokens);
    }

    /// Leaves the tokens of a word in word_.
    void merge(std::string_view word) {
        word_.clear();
        if (tokenizer_.vocabulary_.whole_words) {
            const auto whole = tokenizer_.words_.find(word);
            if (whole != tokenizer_.words_.end()) return word_.push_back(whole->second);
        }
        for (const char c : word) word_.push_back(byte_token(c));
        merger_.merge(tokenizer_.vocabulary_.merges, &word_);
    }

    int32_t byte_token(char c) const { return tokenizer_.vocabulary_.bytes[static_cast<unsigned char>(c)]; }

    const BpeTokenizer& tokenizer_;
    const AddedTokenFinder& added_;
    WordSplitter splitter_;
    WordMerger merger_;
    std::vector<CachedWord> cache_;
    std::vector<int32_t> word_;
};

namespace {

std::vector<AddedToken> added_tokens(const BpeVocabulary& vocabulary, bool with_special) {
    std::vector<AddedToken> tokens;
    for (const AddedToken& token : vocabulary.added) {
        if (with_special || !token.special) tokens.push_back(token);
    }
    return tokens;
}

}  // namespace

BpeTokenizer::BpeTokenizer(std::string name, BpeVocabulary vocabulary)
    : name_(std::move(name)),
      vocabulary_(std::move(vocabulary)),
      pattern_(vocabulary_.pattern, vocabulary_.source),
      always_(added_tokens(vocabulary_, false)),
      asked_(added_tokens(vocabulary_, true)) {
    if (!vocabulary_.whole_words) return;
    for (size_t id = 0; id < vocabulary_.tokens.size(); ++id) {
        words_.emplace(vocabulary_.tokens[id], static_cast<int32_t>(id));
    }
    for (const AddedToken& token : vocabulary_.added) words_.erase(token.text);
    words_.erase("");
}

std::unique_ptr<Encoder> BpeTokenizer::make_encoder(SpecialTokens special) const {
    return std::make_unique<BpeEncoder>(*this, special);
}

std::string BpeTokenizer::token_bytes(int32_t token) const {
    if (token < 0 || token >= vocab_size()) {
        fail("token {} is not in the vocabulary of tokenizer '{}', which has {}; the data or model needs another one",
             token, name_, vocab_size());
    }
    return vocabulary_.tokens[static_cast<size_t>(token)];
}

std::string BpeTokenizer::decode(std::span<const int32_t> tokens) const {
    std::string text;
    for (const int32_t token : tokens) {
        if (token != vocabulary_.end_of_text) text += token_bytes(token);
    }
    return text;
}

}  // namespace llmc
