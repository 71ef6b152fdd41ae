#include "llmc/io/pretokenize.h"
#include "tests/io/temp_dir.h"

#include <gtest/gtest.h>

#include <string>
#include <string_view>
#include <vector>

namespace llmc {
namespace {

using Words = std::vector<std::string>;

Words words_of(const std::string& pattern, std::string_view text) {
    const SplitPattern compiled(pattern, "test");
    WordSplitter splitter(compiled);
    Words words;
    for (size_t begin = 0; begin < text.size();) {
        const size_t end = splitter.word_end(text, begin);
        words.emplace_back(text.substr(begin, end - begin));
        begin = end;
    }
    return words;
}

TEST(Pretokenize, Gpt2Words) {
    EXPECT_EQ(words_of(kGpt2Pattern, "I'll say  it's 1234!\n\n x"),
              (Words{"I", "'ll", " say", " ", " it", "'s", " 1234", "!", "\n\n", " x"}));
    EXPECT_EQ(words_of(kGpt2Pattern, "caf\u00e9\u0301 \u4e2d\u6587 end  "),
              (Words{"caf\u00e9", "\u0301", " \u4e2d\u6587", " end", "  "}));
}

TEST(Pretokenize, Llama3Words) {
    EXPECT_EQ(words_of(kLlama3Pattern, "IT'S (ok) 12345!\r\n  x"),
              (Words{"IT", "'S", " (", "ok", ")", " ", "123", "45", "!\r\n", " ", " x"}));
}

TEST(Pretokenize, BlanksAreThoseOfUnicode) {
    // U+180E is no White_Space any more; U+0085 and U+3000 are.
    EXPECT_EQ(words_of(kGpt2Pattern, "a\u180eb"), (Words{"a", "\u180e", "b"}));
    EXPECT_EQ(words_of(kGpt2Pattern, "a \u180e."), (Words{"a", " \u180e."}));
    EXPECT_EQ(words_of(kGpt2Pattern, "a\u0085\u3000b"), (Words{"a", "\u0085", "\u3000", "b"}));
}

TEST(Pretokenize, WhatDoesNotMatchIsAWord) {
    EXPECT_EQ(words_of("b+", "aabbabx"), (Words{"aa", "bb", "a", "b", "x"}));
    EXPECT_TRUE(has(error_of([] { SplitPattern("(", "x.json"); }), {"x.json", "pattern"}));
}

TEST(Pretokenize, ValidUtf8) {
    for (const std::string text : {"", "plain ascii text", "\u00e9\u4e2d\U0001F600", "\xed\x9f\xbf\xee\x80\x80"}) {
        EXPECT_EQ(valid_utf8_prefix(text), text.size());
        EXPECT_EQ(valid_utf8_prefix(text + "\xff after it"), text.size());
    }
    for (const std::string bad :
         {"\x80", "\xc0\xaf", "\xc1\xbf", "\xe0\x9f\xbf", "\xed\xa0\x80", "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80",
          "\xf5\x80\x80\x80", "\xc3", "\xe2\x82", "\xf0\x9f\x98", "\xe2("}) {
        EXPECT_EQ(valid_utf8_prefix(bad), 0u) << bad;
        EXPECT_EQ(valid_utf8_prefix("0123456789" + bad), 10u) << bad;
    }
}

/// Words of any bytes, as the tokenizer sees them.
Words words_of_bytes(WordSplitter& splitter, std::string_view text) {
    Words words;
    while (!text.empty()) {
        const std::string_view valid = text.substr(0, valid_utf8_prefix(text));
        for (size_t begin = 0; begin < valid.size();) {
            const size_t end = splitter.word_end(valid, begin);
            words.emplace_back(valid.substr(begin, end - begin));
            begin = end;
        }
        text.remove_prefix(valid.size());
        if (text.empty()) break;
        words.emplace_back(text.substr(0, 1));
        text.remove_prefix(1);
    }
    return words;
}

TEST(Pretokenize, CutsAreSafe) {
    const std::string text = slurp("tests/golden/tokenizers/text.bin");
    ASSERT_FALSE(text.empty());
    for (const char* pattern : {kGpt2Pattern, kLlama3Pattern}) {
        const SplitPattern compiled(pattern, "test");
        ASSERT_TRUE(compiled.runs_end_words());
        WordSplitter splitter(compiled);
        const Words whole = words_of_bytes(splitter, text);
        for (size_t from = 0; from < text.size(); ++from) {
            const size_t cut = splitter.safe_cut(text, from);
            ASSERT_GE(cut, from);
            Words parts = words_of_bytes(splitter, std::string_view(text).substr(0, cut));
            const Words rest = words_of_bytes(splitter, std::string_view(text).substr(cut));
            parts.insert(parts.end(), rest.begin(), rest.end());
            ASSERT_EQ(parts, whole) << pattern << " cut at " << cut;
        }
    }
}

TEST(Pretokenize, CutsInAnyScript) {
    const SplitPattern gpt2(kGpt2Pattern, "test");
    WordSplitter splitter(gpt2);
    std::string text;
    while (text.size() < 200'000) text += "\u4e2d\u6587\u3002";
    for (const size_t from : {1ul, 100'000ul, 131'071ul}) {
        EXPECT_LE(splitter.safe_cut(text, from), from + 16);
    }
    EXPECT_EQ(splitter.safe_cut(std::string(100'000, '!'), 10), 100'000u);
    EXPECT_EQ(splitter.safe_cut(std::string(100'000, '\xff'), 10), 100'000u);
    const SplitPattern other("[a-z]+", "test");
    EXPECT_EQ(WordSplitter(other).safe_cut("ab cd ef", 2), 8u);
}

}  // namespace
}  // namespace llmc
