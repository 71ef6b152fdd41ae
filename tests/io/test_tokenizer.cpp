#include "llmc/io/tokenizer.h"
#include "tests/io/temp_dir.h"

#include <gtest/gtest.h>

namespace llmc {
namespace {

TEST(ByteTokenizer, RestoresEveryByte) {
    std::string text;
    for (int c = 0; c < 256; ++c) text += static_cast<char>(c);
    const ByteTokenizer tokenizer;
    const std::vector<int32_t> tokens = tokenizer.encode(text);
    ASSERT_EQ(tokens.size(), 256u);
    for (int c = 0; c < 256; ++c) EXPECT_EQ(tokens[static_cast<size_t>(c)], c);
    EXPECT_EQ(tokenizer.decode(tokens), text);
    EXPECT_EQ(tokenizer.vocab_size(), 257);
    EXPECT_EQ(tokenizer.end_of_text(), 256);
}

TEST(ByteTokenizer, EndOfTextHasNoText) {
    const std::vector<int32_t> tokens = {256, 'a', 256, 'b'};
    EXPECT_EQ(ByteTokenizer().decode(tokens), "ab");
}

TEST(ByteTokenizer, RefusesUnknownIds) {
    for (const int32_t token : {257, 50256, -1}) {
        const std::vector<int32_t> tokens = {'a', token};
        EXPECT_TRUE(has(error_of([&] { ByteTokenizer().decode(tokens); }), {std::to_string(token), "257"}));
    }
}

TEST(UnknownTokenizer, ShowsIdsAndRefusesText) {
    const std::vector<int32_t> tokens = {123, 50256};
    EXPECT_EQ(UnknownTokenizer().decode(tokens), "<123><50256>");
    EXPECT_TRUE(has(error_of([] { UnknownTokenizer().encode("text"); }), {"cannot be turned into tokens"}));
}

TEST(MakeTokenizer, ByReference) {
    for (const std::string reference : {"bytes", "none"}) EXPECT_EQ(make_tokenizer(reference)->name(), reference);
    EXPECT_TRUE(has(error_of([] { make_tokenizer("gpt9"); }), {"'gpt9'", "'bytes'"}));
}

}  // namespace
}  // namespace llmc
