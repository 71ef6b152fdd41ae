// Pre-tokenisers cut text into the pieces that a model works on one by one; some change it on the way. Stages as
// tokenizer.json names them, except sequences, which are stages one after the other.
#pragma once

#include "llmc/io/pipeline/piece.h"
#include "llmc/io/pipeline/split_behavior.h"

#include <cstdint>
#include <memory>
#include <string>

namespace llmc {

/// What a stage does where a letter stands in front of a blank.
enum class BlankCut : uint8_t {
    Unknown,  ///< It depends on what stands around.
    Kept,     ///< It treats both sides apart, but may leave them in one piece.
    Cut,      ///< A piece ends there, always, and what stands before it decides nothing behind it.
};

/// A stage. Immutable.
class PreTokenizer {
  public:
    virtual ~PreTokenizer() = default;
    /// One thread's use of the stage: what it takes goes, in pieces, to `next`, which must outlive it.
    virtual std::unique_ptr<PieceSink> connect(PieceSink& next) const = 0;
    /// For texts of which one may be cut in front of `blank`, ' ' or '\n', without changing its pieces.
    virtual BlankCut cut_before(char blank) const = 0;
};

/// Contractions, letters, digits, everything else, each with the blank in front of it.
inline constexpr const char* kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
/// Digits in threes, one character of any kind in front of letters, line breaks at the end of punctuation.
inline constexpr const char* kLlama3Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
    R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";

/// Splits by an expression. Errors name `source`.
std::unique_ptr<PreTokenizer> make_split(const std::string& pattern, SplitBehavior behavior, bool invert,
                                         const std::string& source);
/// Splits at a text.
std::unique_ptr<PreTokenizer> make_literal_split(const std::string& text, SplitBehavior behavior, bool invert,
                                                 const std::string& source);
/// What GPT-2 does before its model sees a text. With `spell`, bytes become the characters of bpe_alphabet.h; without,
/// they stay as they are, for a model over bytes.
struct ByteLevelSettings {
    bool add_prefix_space = true;
    bool use_regex = true;
    bool spell = true;
};
std::unique_ptr<PreTokenizer> make_byte_level(const ByteLevelSettings& settings);
/// Numbers apart from the rest: one by one, or in groups.
std::unique_ptr<PreTokenizer> make_digits(bool individual);
std::unique_ptr<PreTokenizer> make_punctuation(SplitBehavior behavior);
/// Words and punctuation; white space is dropped.
std::unique_ptr<PreTokenizer> make_whitespace();
/// What stands between white space.
std::unique_ptr<PreTokenizer> make_whitespace_split();
/// Splits at a character, which is dropped.
std::unique_ptr<PreTokenizer> make_delimiter_split(char32_t delimiter);

/// Whether the replacement of blanks is put in front of a piece that does not begin with it.
enum class PrependScheme : uint8_t { Never, First, Always };
/// Blanks become `replacement`; with `split`, every one begins a piece.
std::unique_ptr<PreTokenizer> make_metaspace(const std::string& replacement, PrependScheme scheme, bool split);

/// What a Split by an expression does in front of blanks; Unknown unless the expression is one of those that published
/// tokenizers use.
BlankCut known_pattern_cut(const std::string& pattern, SplitBehavior behavior, bool invert);

}  // namespace llmc
