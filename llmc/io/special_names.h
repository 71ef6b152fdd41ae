// Names of special tokens where they stand in a text that is read without --special-tokens: letters like any other,
// which a user should know.
#pragma once

#include "llmc/io/tokenizer.h"

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace llmc {

/// A token that is its id where its name stands in a text read with SpecialTokens::AsIds, and letters else.
struct SpecialToken {
    std::string name;
    int32_t id;
};
/// All of a tokenizer's, the longest names first.
std::vector<SpecialToken> special_tokens_of(const Tokenizer& tokenizer);

class SpecialNames {
  public:
    /// The names that `tokenizer` would read as ids if it were asked to.
    explicit SpecialNames(const Tokenizer& tokenizer);

    /// Counts those in a text. Any number of threads at once.
    void count(std::string_view text);
    /// The same on several threads, at the speed of memory, with progress.
    void count_on_threads(std::string_view text, int threads);
    /// Whether cutting text[0, p) from the rest would cut through one.
    bool cuts_through(std::string_view text, size_t p) const;
    /// Says how many there were so far, if there were any.
    void report(const std::string& option) const;
    int64_t total() const;
    /// "'<s>' 3 times, '</s>' 1 time"; "" if there were none.
    std::string found() const;

  private:
    /// Index of the longest name that begins there; names_.size() if none does.
    size_t at(std::string_view text) const;

    std::vector<std::string> names_;  ///< The longest first.
    std::string first_bytes_;
    std::vector<bool> beginnings_;  ///< By two bytes: whether a name begins so.
    bool can_be_ids_ = true;
    std::unique_ptr<std::atomic<int64_t>[]> counts_;  ///< By name.
};

}  // namespace llmc
