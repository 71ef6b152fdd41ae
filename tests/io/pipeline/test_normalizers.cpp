#include "tests/io/pipeline/stage_testing.h"
#include "tests/io/temp_dir.h"

#include <gtest/gtest.h>

namespace llmc {
namespace {

TEST(Normalizer, UnicodesForms) {
    const std::string text = "\u00e9 e\u0301 \ufb01 \u212b \u1112\u1161\u11ab";
    EXPECT_EQ(normal(*make_unicode_normalizer(UnicodeForm::NFC), text), "\u00e9 \u00e9 \ufb01 \u00c5 \ud55c");
    EXPECT_EQ(normal(*make_unicode_normalizer(UnicodeForm::NFD), "\u00e9\ud55c"), "e\u0301\u1112\u1161\u11ab");
    EXPECT_EQ(normal(*make_unicode_normalizer(UnicodeForm::NFKC), text), "\u00e9 \u00e9 fi \u00c5 \ud55c");
    EXPECT_EQ(normal(*make_unicode_normalizer(UnicodeForm::NFKD), "\ufb01\u2460"), "fi1");
    // Marks are put in order; what came after Unicode 9 is left alone (U+32FF, Reiwa).
    EXPECT_EQ(normal(*make_unicode_normalizer(UnicodeForm::NFD), "a\u0301\u0323"), "a\u0323\u0301");
    EXPECT_EQ(normal(*make_unicode_normalizer(UnicodeForm::NFKC), "\u32ff"), "\u32ff");
}

TEST(Normalizer, UnicodeOfMuchText) {
    std::string text, wanted;
    while (text.size() < (size_t{20} << 20)) text += "e\u0301\u4e2dabc ", wanted += "\u00e9\u4e2dabc ";
    EXPECT_TRUE(normal(*make_unicode_normalizer(UnicodeForm::NFC), text) == wanted);
}

TEST(Normalizer, Characters) {
    EXPECT_EQ(normal(*make_lowercase(), "A\u00c9\u0130\u03a3 \u1e9e"), "a\u00e9i\u0307\u03c3 \u00df");
    EXPECT_EQ(normal(*make_strip_accents(), "e\u0301\u00e9a\u0323"), "e\u00e9a");
    EXPECT_EQ(normal(*make_strip_accents(), "\U000111C9\u1CF2"), "\U000111C9");  // As when the library was made.
    EXPECT_EQ(normal(*make_nmt(), std::string("a\x01\t\u200b\u00a0\0b", 10)), std::string("a  \u00a0\0b", 7));
    EXPECT_EQ(normal(*make_byte_spelling(), " \u00e9"), "\u0120\u00c3\u00a9");
}

TEST(Normalizer, Ends) {
    EXPECT_EQ(normal(*make_strip(true, true), " \u3000a b\n"), "a b");
    EXPECT_EQ(normal(*make_strip(true, false), "  "), "");
    EXPECT_EQ(normal(*make_prepend("\u2581"), "a"),
              "\u2581"
              "a");
    EXPECT_EQ(normal(*make_prepend("\u2581"), ""), "");
    NormalText more = {"a", false, /*continues=*/true};
    make_prepend("x")->apply(&more);
    EXPECT_EQ(more.text, "a");
}

TEST(Normalizer, Replace) {
    EXPECT_EQ(normal(*make_literal_replace(" ", "\u2581", "t"), "a  b"),
              "a\u2581\u2581"
              "b");
    EXPECT_EQ(normal(*make_literal_replace(".*", "", "t"), "a.*b"), "ab");
    EXPECT_EQ(normal(*make_replace(" {2,}", " ", "t"), "a   b c"), "a b c");
    EXPECT_EQ(normal(*make_replace("x*", "-", "t"), "axxb"), "-a-b-");
    EXPECT_EQ(normal(*make_replace("(a)", "$1\\1", "t"), "a"), "$1\\1");
}

/// What begins with the document's first character decides where Metaspace puts its sign.
TEST(Normalizer, TheBeginningIsRemembered) {
    const auto first_after = [](const Normalizer& stage, const char* text) {
        NormalText whole = {text, /*is_first=*/true, /*continues=*/false};
        stage.apply(&whole);
        return whole.is_first;
    };
    EXPECT_FALSE(first_after(*make_strip(true, false), " a"));
    EXPECT_TRUE(first_after(*make_strip(true, false), "a"));
    EXPECT_FALSE(first_after(*make_strip_accents(),
                             "\u0301"
                             "a"));
    EXPECT_TRUE(first_after(*make_literal_replace("a", "b", "t"), "a"));
    EXPECT_FALSE(first_after(*make_literal_replace("aa", "b", "t"), "aa"));
    EXPECT_FALSE(first_after(*make_replace("a", "", "t"), "ab"));
    EXPECT_TRUE(first_after(*make_unicode_normalizer(UnicodeForm::NFC), "e\u0301"));
}

}  // namespace
}  // namespace llmc
