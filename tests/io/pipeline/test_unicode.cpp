#include "llmc/io/pipeline/unicode.h"
#include "tests/io/temp_dir.h"

#include <gtest/gtest.h>

namespace llmc {
namespace {

TEST(Unicode, ValidUtf8) {
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

TEST(Unicode, CharactersThereAndBack) {
    for (const char32_t c : {U'a', U'\u00e9', U'\u4e2d', U'\U0001F600', U'\U0010FFFF'}) {
        std::string text = "x";
        append_utf8(c, &text);
        EXPECT_EQ(character_at(text, 1), c);
        EXPECT_EQ(utf8_bytes(text[1]), text.size() - 1);
        EXPECT_EQ(character_before(text, text.size()), 1u);
    }
}

TEST(Unicode, BlanksBehindLetters) {
    const std::string text = "1 a b.\xff \u4e2d\n\xe4\xb8 x";
    EXPECT_EQ(blank_after_letter(text, 0), 3u);
    EXPECT_EQ(blank_after_letter(text, 4), text.find('\n'));
    EXPECT_EQ(blank_after_letter(text, text.find('\n') + 1), text.size());
    EXPECT_EQ(blank_after_letter("", 0), 0u);
}

}  // namespace
}  // namespace llmc
