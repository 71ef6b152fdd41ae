// The models alone, on vocabularies of a few tokens.
#include "llmc/io/pipeline/bpe_model.h"
#include "llmc/io/pipeline/unigram_model.h"
#include "tests/io/temp_dir.h"

#include <gtest/gtest.h>

#include <random>

namespace llmc {
namespace {

using Merges = std::vector<std::pair<std::string, std::string>>;

TokenNames names_of(const std::vector<std::string>& list) {
    TokenNames names;
    for (size_t id = 0; id < list.size(); ++id) names.add(list[id], static_cast<int64_t>(id), "test");
    return names;
}

std::string encoded(const TokenModel& model, std::string_view piece) {
    LostText lost("test");
    std::vector<int32_t> tokens;
    model.make_encoder(lost)->encode(piece, &tokens);
    std::string text;
    for (const int32_t token : tokens) text += (text.empty() ? "" : " ") + model.names().name(token);
    return text;
}

TEST(BpeModel, MergesInTheirOrder) {
    const BpeModel model({.source = "test"}, names_of({"a", "b", "c", "ab", "bc", "abc"}),
                         Merges{{"b", "c"}, {"a", "b"}, {"a", "bc"}});
    EXPECT_EQ(encoded(model, "abc"), "abc");
    EXPECT_EQ(encoded(model, "abab"), "ab ab");
    EXPECT_EQ(encoded(model, ""), "");
}

TEST(BpeModel, TheUnknown) {
    const TokenNames names = names_of({"?", "a", "<0xC3>", "<0xA9>"});
    EXPECT_EQ(encoded(BpeModel({.source = "t", .unk_token = "?"}, names, Merges{}), "xya\u00e9"), "? ? a ?");
    EXPECT_EQ(encoded(BpeModel({.source = "t", .unk_token = "?", .fuse_unk = true}, names, Merges{}), "xya\u00e9"),
              "? a ?");
    EXPECT_EQ(encoded(BpeModel({.source = "t", .byte_fallback = true}, names, Merges{}), "xa\u00e9"),
              "a <0xC3> <0xA9>");
    // Behind bytes that come first, as in the library.
    EXPECT_EQ(encoded(BpeModel({.source = "t", .unk_token = "?", .byte_fallback = true}, names, Merges{}),
                      "x\u00e9"
                      "a"),
              "<0xC3> <0xA9> ? a");
    EXPECT_TRUE(has(error_of([&] { encoded(BpeModel({.source = "'t'", .unk_token = "!"}, names, Merges{}), "x"); }),
                    {"'t'", "'x'", "'!'"}));
}

TEST(BpeModel, AffixesAndWholeWords) {
    const BpeModel suffix({.source = "t", .suffix = "</w>"}, names_of({"a", "b", "b</w>", "ab</w>", "a</w>"}),
                          Merges{{"a", "b</w>"}});
    EXPECT_EQ(encoded(suffix, "ab"), "ab</w>");
    EXPECT_EQ(encoded(suffix, "aba"), "a b a</w>");
    const BpeModel prefix({.source = "t", .prefix = "##"}, names_of({"a", "##a", "aa", "##b", "aab"}),
                          Merges{{"a", "##a"}, {"aa", "##b"}});
    EXPECT_EQ(encoded(prefix, "aab"), "aab");
    EXPECT_TRUE(has(error_of([] {
                        BpeModel({.source = "'t'", .prefix = "##"}, names_of({"a", "b"}), Merges{{"a", "b"}});
                    }),
                    {"'t'", "'b'", "continuing_subword_prefix"}));
    const BpeModel whole({.source = "t", .ignore_merges = true}, names_of({"a", "b", "aba"}), Merges{});
    EXPECT_EQ(encoded(whole, "aba"), "aba");
    EXPECT_EQ(encoded(whole, "abab"), "a b a b");
}

TEST(BpeModel, OverBytes) {
    const BpeModel model({.source = "t", .over_bytes = true}, names_of({"\u0120", "\u00c3", "\u00a9", "\u00c3\u00a9"}),
                         Merges{{"\u00c3", "\u00a9"}});
    EXPECT_EQ(encoded(model, " \u00e9"), "\u0120 \u00c3\u00a9");
    EXPECT_EQ(encoded(model, "x"), "");  // Lost, with a warning.
}

/// Long pieces fall into parts; the result is that of merging the whole.
TEST(BpeModel, PartsOfLongPieces) {
    std::mt19937 random(3);
    const std::vector<std::string> list = {"a",
                                           "b",
                                           "c",
                                           "\u2581",
                                           "ab",
                                           "\u2581"
                                           "a",
                                           "\u2581"
                                           "ab",
                                           "cc",
                                           "abc",
                                           "?"};
    const Merges merges = {{"a", "b"}, {"\u2581", "a"}, {"c", "c"}, {"\u2581", "ab"}, {"ab", "c"}};
    const BpeModel model({.source = "t", .unk_token = "?", .fuse_unk = true}, names_of(list), merges);
    EXPECT_TRUE(model.never_joins("b", "\u2581"));
    EXPECT_FALSE(model.never_joins("\u2581", "a"));
    EXPECT_FALSE(model.never_joins("b", "x"));
    LostText lost("t");
    const auto encoder = model.make_encoder(lost);
    for (int round = 0; round < 200; ++round) {
        std::string text;
        const char* parts[] = {"a", "b", "c", "\u2581", "x", "\u00e9"};
        std::vector<int32_t> wanted;
        for (int i = 0; i < 80; ++i) {
            const size_t which = random() % 6;
            text += parts[which];
            const auto id = static_cast<int32_t>(which < 4 ? which : 9);
            if (id != 9 || wanted.empty() || wanted.back() != 9) wanted.push_back(id);
        }
        WordMerger().merge(model.merges(), &wanted);
        std::vector<int32_t> tokens;
        encoder->encode(text, &tokens);
        ASSERT_EQ(tokens, wanted) << text;
    }
}

TEST(BpeModel, BadContentIsNamed) {
    EXPECT_TRUE(has(error_of([] {
                        BpeModel({.source = "'t'"}, names_of({"a", "b"}), Merges{{"a", "b"}});
                    }),
                    {"'t' merge 1", "'ab'"}));
    TokenNames names = names_of({"a"});
    EXPECT_TRUE(has(error_of([&] { names.add("b", 0, "'t'"); }), {"'a' and 'b' share the id 0"}));
    EXPECT_TRUE(has(error_of([&] { names.add("a", 5, "'t'"); }), {"'a' is there twice"}));
    EXPECT_TRUE(has(error_of([&] { names.add("c", int64_t{1} << 31, "'t'"); }), {"'c'", "2147483648"}));
}

TEST(UnigramModel, TheBestPath) {
    const UnigramModel model("t", names_of({"?", "a", "b", "c", "d", "cd", "ab", "abc", "abcd"}),
                             {0, 0, 0, 0, 0, 1, 2, 5, 10}, 0, false);
    EXPECT_EQ(encoded(model, "abcdacdxx"), "abcd a cd ?");
    EXPECT_EQ(encoded(model, "xabx"), "? ab ?");
    const UnigramModel bytes("t", names_of({"?", "a", "<0xC3>", "<0xA9>"}), {0, -1, -2, -2}, 0, true);
    EXPECT_EQ(encoded(bytes, "a\u00e9x"), "a ?");  // Neighbours are one text, of which one byte lacks a token.
    EXPECT_EQ(encoded(bytes, "a\u00e9"), "a <0xC3> <0xA9>");
    const UnigramModel none("'t'", names_of({"a"}), {0}, -1, false);
    EXPECT_TRUE(has(error_of([&] { encoded(none, "x"); }), {"'t'", "'x'", "unk_id"}));
}

}  // namespace
}  // namespace llmc
