// The tokens of words seen lately, for one thread. A newer word takes the place of an older one.
#pragma once

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <span>
#include <string_view>
#include <vector>

namespace llmc {

class WordCache {
  public:
    static constexpr size_t kMostBytes = 22;   ///< Of a word that is kept.
    static constexpr size_t kMostTokens = 10;  ///< Of a word that is kept.

    /// Appends the tokens of `word`, of at most kMostBytes; false if they are not here.
    bool find(std::string_view word, std::vector<int32_t>* tokens) const {
        const Entry& entry = entries_[slot(word)];
        if (entry.bytes != word.size() || std::memcmp(entry.text, word.data(), word.size()) != 0) return false;
        tokens->insert(tokens->end(), entry.ids, entry.ids + entry.tokens);
        return true;
    }
    void put(std::string_view word, std::span<const int32_t> tokens) {
        if (tokens.size() > kMostTokens) return;
        Entry& entry = entries_[slot(word)];
        entry.bytes = static_cast<uint8_t>(word.size());
        entry.tokens = static_cast<uint8_t>(tokens.size());
        std::memcpy(entry.text, word.data(), word.size());
        std::copy(tokens.begin(), tokens.end(), entry.ids);
    }

  private:
    static constexpr size_t kEntries = size_t{1} << 15;  ///< 2 MiB: about what a core's own cache holds.
    struct Entry {
        uint8_t bytes;
        uint8_t tokens;
        char text[kMostBytes];
        int32_t ids[kMostTokens];
    };
    static_assert(sizeof(Entry) == 64);
    static size_t slot(std::string_view word) { return XXH3_64bits(word.data(), word.size()) % kEntries; }

    struct Free {
        void operator()(Entry* entries) const { std::free(entries); }
    };
    static std::unique_ptr<Entry[], Free> make_entries() {
        // Zeros that the system gives page by page, when they are needed: short texts need few.
        auto* entries = static_cast<Entry*>(std::calloc(kEntries, sizeof(Entry)));
        if (entries == nullptr) throw std::bad_alloc();
        return std::unique_ptr<Entry[], Free>(entries);
    }
    std::unique_ptr<Entry[], Free> entries_ = make_entries();
};

}  // namespace llmc
