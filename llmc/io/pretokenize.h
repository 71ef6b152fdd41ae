// Pre-tokenisation: text is cut into words by the regular expression that came with a vocabulary, and BPE merges only
// inside a word. The expressions run on PCRE2, compiled to machine code. bpe_tokenizer.h is what uses this.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

namespace llmc {

/// Contractions, letters, digits, everything else, each with the blank in front of it.
inline constexpr const char* kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
/// Digits in threes, one character of any kind in front of letters, line breaks at the end of punctuation.
inline constexpr const char* kLlama3Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
    R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";

/// Bytes at the beginning of `text` that are valid UTF-8 (RFC 3629: no surrogates, nothing overlong).
size_t valid_utf8_prefix(std::string_view text);

/// A compiled expression. Immutable: any number of threads may use it, each through its own WordSplitter.
class SplitPattern {
  public:
    /// `pattern` in the syntax of the tokenizer's file. An Error that names `source` if it does not compile.
    SplitPattern(const std::string& pattern, const std::string& source);
    ~SplitPattern();
    SplitPattern(const SplitPattern&) = delete;
    SplitPattern& operator=(const SplitPattern&) = delete;

    const std::string& pattern() const { return pattern_; }
    /// Whether the end of a run of letters or digits ends a word, whatever stands around: then safe_cut() is allowed.
    /// Known for the patterns above and their relatives; no other pattern is trusted with it.
    bool runs_end_words() const { return runs_end_words_; }

  private:
    friend class WordSplitter;
    struct Code;
    std::string pattern_;
    bool runs_end_words_;
    std::unique_ptr<Code> words_;
    std::unique_ptr<Code> runs_;  ///< Finds the ends of runs of letters or digits.
};

/// One thread's use of a SplitPattern, which must outlive it.
class WordSplitter {
  public:
    explicit WordSplitter(const SplitPattern& pattern);
    ~WordSplitter();
    WordSplitter(const WordSplitter&) = delete;
    WordSplitter& operator=(const WordSplitter&) = delete;

    /// End of the word that begins at `begin` < text.size(). `text` is valid UTF-8. What the expression does not
    /// match, up to the next match, is a word too.
    size_t word_end(std::string_view text, size_t begin);
    /// The first position p >= `from` such that the words of `text` are those of text[0, p) and those of text[p, end),
    /// whatever follows `text`; text.size() if there is none. `text` may be any bytes.
    size_t safe_cut(std::string_view text, size_t from);

  private:
    struct State;
    const SplitPattern& pattern_;
    std::unique_ptr<State> state_;
};

}  // namespace llmc
