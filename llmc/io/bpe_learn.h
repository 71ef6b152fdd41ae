// Learning a byte-level BPE vocabulary from text, with GPT-2's pre-tokenisation: the pair of neighbouring tokens that
// is most frequent becomes a token, again and again (Sennrich et al. 2016).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace llmc {

/// How often each word occurs.
class WordCounts {
  public:
    /// Adds the words of a text that neither begins nor ends within one. Any bytes; one that is not part of valid
    /// UTF-8 is never merged with others.
    void add_text(std::string_view text);
    void add(std::string_view word, int64_t count);
    void add(const WordCounts& other);
    /// Words and counts in the order of the words' bytes.
    std::vector<std::pair<std::string_view, int64_t>> sorted() const;

  private:
    struct Hash {
        using is_transparent = void;
        size_t operator()(std::string_view text) const;
    };
    std::unordered_map<std::string, int64_t, Hash, std::equal_to<>> counts_;
};

/// A vocabulary with ids for bytes, then learned tokens, then end-of-text.
struct LearnedBpe {
    std::vector<std::string> tokens;                  ///< Bytes by id; end-of-text, the last, by its name.
    std::vector<std::pair<int32_t, int32_t>> merges;  ///< Ids, in the order in which they were learned.
};

/// Learns a vocabulary of at most `vocab_size` tokens; of fewer if no pair occurs twice any more. Of equally frequent
/// pairs the one with the lower ids comes first, so the result depends on the counts alone.
LearnedBpe learn_bpe(const WordCounts& words, int64_t vocab_size);

/// Writes vocab.json, merges.txt, tokenizer.json and tokenizer_config.json, as Hugging Face's programs read them.
void write_bpe(const LearnedBpe& bpe, const std::string& folder);

}  // namespace llmc
