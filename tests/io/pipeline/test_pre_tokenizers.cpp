// Each pre-tokeniser alone; kinds.json (test_kinds.cpp) holds what the tokenizers library makes of whole pipelines.
#include "tests/io/pipeline/stage_testing.h"
#include "tests/io/temp_dir.h"

#include <gtest/gtest.h>

namespace llmc {
namespace {

Words split(const std::string& pattern, std::string_view text, SplitBehavior behavior = SplitBehavior::Isolated,
            bool invert = false) {
    return pieces_of(*make_split(pattern, behavior, invert, "test"), text);
}

TEST(Split, Gpt2sWords) {
    EXPECT_EQ(split(kGpt2Pattern, "I'll say  it's 1234!\n\n x"),
              (Words{"I", "'ll", " say", " ", " it", "'s", " 1234", "!", "\n\n", " x"}));
    EXPECT_EQ(split(kGpt2Pattern, "caf\u00e9\u0301 \u4e2d\u6587 end  "),
              (Words{"caf\u00e9", "\u0301", " \u4e2d\u6587", " end", "  "}));
}

TEST(Split, Llama3sWords) {
    EXPECT_EQ(split(kLlama3Pattern, "IT'S (ok) 12345!\r\n  x"),
              (Words{"IT", "'S", " (", "ok", ")", " ", "123", "45", "!\r\n", " ", " x"}));
}

TEST(Split, BlanksAreThoseOfUnicode) {
    // U+180E is no White_Space any more; U+0085 and U+3000 are.
    EXPECT_EQ(split(kGpt2Pattern, "a\u180eb"), (Words{"a", "\u180e", "b"}));
    EXPECT_EQ(split(kGpt2Pattern, "a \u180e."), (Words{"a", " \u180e."}));
    EXPECT_EQ(split(kGpt2Pattern, "a\u0085\u3000b"), (Words{"a", "\u0085", "\u3000", "b"}));
}

TEST(Split, LettersOfLaterYears) {
    // U+31350 came with Unicode 15, U+1C8A with 16.
    EXPECT_EQ(split(kGpt2Pattern, "a\U00031350b!"), (Words{"a\U00031350b", "!"}));
    EXPECT_EQ(split(R"(\P{L}+|[^\p{Ll}])", "\u1c8a.\u1c8a1"), (Words{"\u1c8a", ".", "\u1c8a", "1"}));
}

TEST(Split, Behaviors) {
    const char* text = "the-final--countdown";
    EXPECT_EQ(split("-", text, SplitBehavior::Removed), (Words{"the", "final", "countdown"}));
    EXPECT_EQ(split("-", text, SplitBehavior::Isolated), (Words{"the", "-", "final", "-", "-", "countdown"}));
    EXPECT_EQ(split("-", text, SplitBehavior::MergedWithPrevious), (Words{"the-", "final-", "-", "countdown"}));
    EXPECT_EQ(split("-", text, SplitBehavior::MergedWithNext), (Words{"the", "-final", "-", "-countdown"}));
    EXPECT_EQ(split("-", text, SplitBehavior::Contiguous), (Words{"the", "-", "final", "--", "countdown"}));
    EXPECT_EQ(split("[a-z]+", text, SplitBehavior::Removed, true), (Words{"the", "final", "countdown"}));
    EXPECT_EQ(split("[a-z]+", text, SplitBehavior::MergedWithNext, true), (Words{"the", "-final", "--countdown"}));
    EXPECT_EQ(split("-", "-a-", SplitBehavior::MergedWithPrevious), (Words{"-", "a-"}));
    EXPECT_TRUE(has(error_of([] { split_behavior("Glued", "x.json"); }), {"x.json", "'Glued'"}));
}

TEST(Split, EmptyMatchesCutBetweenCharacters) {
    EXPECT_EQ(split("x*", "anxxd"), (Words{"a", "n", "xx", "d"}));
    EXPECT_EQ(split("x*", "anxxd", SplitBehavior::MergedWithNext), (Words{"a", "n", "xxd"}));
    EXPECT_EQ(split("x*", "anxxd", SplitBehavior::MergedWithPrevious), (Words{"a", "nxx", "d"}));
    EXPECT_EQ(pieces_of(*make_literal_split("", SplitBehavior::Isolated, false, "t"), "\u00e9a"),
              (Words{"\u00e9", "a"}));
}

TEST(Split, ByText) {
    const auto stage = make_literal_split(".*", SplitBehavior::MergedWithPrevious, false, "test");
    EXPECT_EQ(pieces_of(*stage, "a.*b.*.*c"), (Words{"a.*", "b.*", ".*", "c"}));
}

TEST(ByteLevel, PrefixAndSpelling) {
    EXPECT_EQ(pieces_of(*make_byte_level({true, true, true}), "is \u00e9"), (Words{"\u0120is", "\u0120\u00c3\u00a9"}));
    EXPECT_EQ(pieces_of(*make_byte_level({false, true, false}), "is \u00e9"), (Words{"is", " \u00e9"}));
    EXPECT_EQ(pieces_of(*make_byte_level({true, false, false}), "is so"), (Words{" is so"}));
    EXPECT_EQ(pieces_of(*make_byte_level({true, false, false}), " is so"), (Words{" is so"}));
}

TEST(Classes, DigitsPunctuationWhitespace) {
    EXPECT_EQ(pieces_of(*make_digits(true), "a12\u00bd\u0663 b"), (Words{"a", "1", "2", "\u00bd", "\u0663", " b"}));
    EXPECT_EQ(pieces_of(*make_digits(false), "a12\u00bd b3"), (Words{"a", "12\u00bd", " b", "3"}));
    EXPECT_EQ(pieces_of(*make_punctuation(SplitBehavior::Isolated), "a.$b\u3002\u20ac"),
              (Words{"a", ".", "$", "b", "\u3002", "\u20ac"}));
    EXPECT_EQ(pieces_of(*make_whitespace(), " a_1\u0301. .\u3000x "), (Words{"a_1\u0301", ".", ".", "x"}));
    EXPECT_EQ(pieces_of(*make_whitespace_split(), " a. b\u00a0c "), (Words{"a.", "b", "c"}));
    EXPECT_EQ(pieces_of(*make_delimiter_split(U'\u00e9'), "a\u00e9\u00e9b"), (Words{"a", "b"}));
}

TEST(Metaspace, Schemes) {
    const std::string sign = "\u2581";
    EXPECT_EQ(pieces_of(*make_metaspace(sign, PrependScheme::Always, true), "a  b"),
              (Words{sign + "a", sign, sign + "b"}));
    EXPECT_EQ(pieces_of(*make_metaspace(sign, PrependScheme::First, false), "a b"), (Words{sign + "a" + sign + "b"}));
    EXPECT_EQ(pieces_of(*make_metaspace(sign, PrependScheme::First, false), "a b", /*is_first=*/false),
              (Words{"a" + sign + "b"}));
    EXPECT_EQ(pieces_of(*make_metaspace(sign, PrependScheme::Never, true), "a b"), (Words{"a", sign + "b"}));
    EXPECT_EQ(pieces_of(*make_metaspace(sign, PrependScheme::Always, true), " a"), (Words{sign + "a"}));
}

/// A text may be cut where a stage says so.
TEST(BlankCuts, AreWhatTheyPromise) {
    const std::string text = "It's a  text\nwith 12 words, some-thing else\u00e9 \u4e2d\u6587\n\n  'll end \n x";
    for (const char* pattern : {kGpt2Pattern, kLlama3Pattern}) {
        const auto stage = make_split(pattern, SplitBehavior::Isolated, false, "test");
        ASSERT_EQ(stage->cut_before(' '), BlankCut::Cut);
        const Words whole = pieces_of(*stage, text);
        for (size_t p = 1; p < text.size(); ++p) {
            const bool after_letter = ((text[p - 1] | 0x20) >= 'a' && (text[p - 1] | 0x20) <= 'z');
            if (!after_letter || (text[p] != ' ' && text[p] != '\n')) continue;
            Words parts = pieces_of(*stage, std::string_view(text).substr(0, p));
            const Words rest = pieces_of(*stage, std::string_view(text).substr(p));
            parts.insert(parts.end(), rest.begin(), rest.end());
            EXPECT_EQ(parts, whole) << pattern << " cut at " << p;
        }
    }
    EXPECT_EQ(make_split("[a-z]+ ?", SplitBehavior::Isolated, false, "test")->cut_before(' '), BlankCut::Unknown);
    EXPECT_EQ(make_split(kGpt2Pattern, SplitBehavior::MergedWithNext, false, "test")->cut_before(' '),
              BlankCut::Unknown);
    EXPECT_EQ(
        make_split("[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+", SplitBehavior::Isolated, false, "t")->cut_before(' '),
        BlankCut::Kept);
}

}  // namespace
}  // namespace llmc
