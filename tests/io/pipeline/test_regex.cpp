// Oniguruma's syntax on PCRE2.
#include "llmc/io/pipeline/regex.h"
#include "llmc/io/pipeline/regex_syntax.h"
#include "tests/io/temp_dir.h"

#include <gtest/gtest.h>

#include <vector>

namespace llmc {
namespace {

/// All matches in a text.
std::vector<std::string> matches(const std::string& pattern, std::string_view text) {
    const Regex regex(pattern, "test");
    RegexSearch search(regex);
    search.start(text);
    std::vector<std::string> found;
    for (size_t begin = 0, end = 0; search.next(&begin, &end);) found.emplace_back(text.substr(begin, end - begin));
    return found;
}

using Found = std::vector<std::string>;

TEST(Regex, WordsAndDigitsAreUnicodes) {
    EXPECT_EQ(matches(R"(\w+)", "n\u0303o_1 \u4e2d-\u00bd"), (Found{"n\u0303o_1", "\u4e2d", "\u00bd"}));
    EXPECT_EQ(matches(R"([\w]+)", "a\u00bd"), (Found{"a"}));
    EXPECT_EQ(matches(R"(\d+)", "12\u0663\u00bd"), (Found{"12\u0663"}));
    EXPECT_EQ(matches(R"(\h+)", "xaF09g"), (Found{"aF09"}));
    EXPECT_EQ(matches(R"(\b.)", "ab c\u0301."), (Found{"a", " ", "c", "."}));
    EXPECT_EQ(matches(R"(\B\w)", "ab c"), (Found{"b"}));
    EXPECT_EQ(matches(R"([^\S\n]+)", " \t\n\u3000"), (Found{" \t", "\u3000"}));
}

TEST(Regex, Properties) {
    EXPECT_EQ(matches(R"(\p{Lu}|\p{^L})", "aB1"), (Found{"B", "1"}));
    EXPECT_EQ(matches(R"([\p{Uppercase_Letter}\p{Nd}]+)", "aB1c"), (Found{"B1"}));
    // Scripts of characters themselves: U+30FC is used in Hiragana, but common to both.
    EXPECT_EQ(matches(R"(\p{Hiragana}+)", "\u3042\u30fc"), (Found{"\u3042"}));
    EXPECT_EQ(matches(R"([[:alpha:]]+|[[:punct:]])", "a\u00e9+\u3002"), (Found{"a\u00e9", "+", "\u3002"}));
    EXPECT_EQ(matches(R"([[:^digit:]]+)", "a1b"), (Found{"a", "b"}));
}

TEST(Regex, ClassesWithinClasses) {
    EXPECT_EQ(matches("[a-c[x-z]]+", "abxdz"), (Found{"abx", "z"}));
    EXPECT_EQ(matches(R"([\p{L}&&[^\p{Han}]]+)", "ab\u4e2dc"), (Found{"ab", "c"}));
    EXPECT_EQ(matches("[^a-c&&b-d]+", "abcd"), (Found{"a", "d"}));
    EXPECT_EQ(matches(R"([\-\[\]^]+)", "a-[]^b"), (Found{"-[]^"}));
    EXPECT_EQ(matches("[]a]+", "b]a"), (Found{"]a"}));
    EXPECT_EQ(matches("[a-]+", "b-a"), (Found{"-a"}));
}

TEST(Regex, Quantifiers) {
    EXPECT_EQ(matches("a{2}+", "aaaaa"), (Found{"aaaa"}));  // Twice, again and again.
    EXPECT_EQ(matches("(?:ab){,2}c", "ababc abababc"), (Found{"ababc", "ababc"}));
    EXPECT_EQ(matches("a{,x}", "a{,x}"), (Found{"a{,x}"}));
    EXPECT_EQ(matches("a++b|a", "aac"), (Found{"a", "a"}));
    EXPECT_EQ(matches("ba{2}?", "baab"), (Found{"baa", "b"}));
}

TEST(Regex, LinesGroupsAndCase) {
    EXPECT_EQ(matches("^.", "a\nb"), (Found{"a", "b"}));
    EXPECT_EQ(matches(".$", "a\nb\n"), (Found{"a", "b"}));
    EXPECT_EQ(matches("(?m:a.)b", "a\nb"), (Found{"a\nb"}));
    EXPECT_EQ(matches("(?i:'s|k)", "'S '\u017f \u212a"), (Found{"'S", "'\u017f", "\u212a"}));
    EXPECT_EQ(matches(R"((?<n>.)\k<n>(?#nothing))", "abbc"), (Found{"bb"}));
    EXPECT_EQ(matches(R"((?<=\p{Lu})\p{Ll})", "Ab bC"), (Found{"b"}));
    EXPECT_EQ(matches(R"(\u4e2d|\x{6587}|\x41)",
                      "\u4e2d\u6587"
                      "A"),
              (Found{"\u4e2d", "\u6587", "A"}));
}

TEST(Regex, WhatCannotBeSaidIsNamed) {
    const auto error = [](const char* pattern) { return error_of([&] { Regex(pattern, "x.json"); }); };
    EXPECT_TRUE(has(error("("), {"x.json", "pattern does not compile", "'('"}));
    EXPECT_TRUE(has(error("(?~ab)"), {"x.json", "absent"}));
    EXPECT_TRUE(has(error(R"(\y)"), {"x.json", "\\y"}));
    EXPECT_TRUE(has(error(R"(\p{Klingon}+)"), {"x.json", "compile"}));
    EXPECT_TRUE(has(error(R"(\p{Alphabetic)"), {"x.json"}));
    EXPECT_TRUE(has(error("[a-"), {"x.json"}));
}

TEST(Regex, LongRepetitions) {
    const std::string text(3'000'000, 'a');
    EXPECT_EQ(matches(R"([\p{L}&&[^\p{Han}]]+)", text).at(0).size(), text.size());
    EXPECT_EQ(matches(R"((?:a|b)+)", text).at(0).size(), text.size());
}

}  // namespace
}  // namespace llmc
