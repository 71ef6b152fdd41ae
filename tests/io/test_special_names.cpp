#include "llmc/io/special_names.h"

#include "llmc/io/encode_corpus.h"
#include "tests/io/tokenizer_testing.h"

#include <gtest/gtest.h>

namespace llmc {
namespace {

TEST(SpecialNames, CountsWhatWouldBeIds) {
    SpecialNames names(*make_tokenizer(std::string(kGoldenFolder) + "tokenizer.json"));
    names.count("<|endoftext|> and <|endoftext|><|endoftext|> <br> <|other|> <|endoftext|");
    EXPECT_EQ(names.total(), 3);
    EXPECT_TRUE(names.cuts_through("a<|endoftext|>", 5));
    EXPECT_FALSE(names.cuts_through("a<|endoftext|>", 1));
    EXPECT_FALSE(names.cuts_through("a<|endoftext|>b", 14));
    SpecialNames none((UnknownTokenizer()));
    none.count("<|endoftext|>");
    EXPECT_EQ(none.total(), 0);
}

TEST(SpecialNames, BytesHaveOne) {
    const ByteTokenizer bytes;
    SpecialNames names(bytes);
    names.count("<|endoftext|>x<|endoftext|>");
    EXPECT_EQ(names.total(), 2);
    std::vector<int32_t> tokens;
    const auto encoder = bytes.make_encoder(SpecialTokens::AsIds);
    encoder->encode("a<|endoftext|><|endoftext", /*continues=*/false, &tokens);
    EXPECT_EQ(tokens.size(), 13u);
    EXPECT_EQ(tokens[1], ByteTokenizer::kEndOfText);
    const std::string text = "ab<|endoftext|>cd";
    for (size_t from = 0; from < text.size(); ++from) {
        const size_t cut = encoder->safe_cut(text, from);
        EXPECT_EQ(cut, from > 2 && from < 15 ? 15 : from);
    }
}

TEST(SpecialNames, ThreadsCountWhatOneDoes) {
    std::string text;
    while (text.size() < (size_t{10} << 20)) text += "<|endoftext|>some<|endoftext";
    SpecialNames one((ByteTokenizer())), many((ByteTokenizer()));
    one.count(text);
    for (const int threads : {1, 2, 3}) many.count_on_threads(text, threads);
    EXPECT_EQ(many.total(), 3 * one.total());
    EXPECT_GT(one.total(), 100'000);
    many.count_on_threads("", 2);
    EXPECT_EQ(many.total(), 3 * one.total());
}

TEST(SpecialNames, NoneIsCutByAChunk) {
    const TempDir dir;
    std::string text;
    while (text.size() < (size_t{1} << 20)) text += "<|endoftext|>";
    const auto wanted = static_cast<int64_t>(text.size() / 13);
    TextCorpus corpus({dir.write("x.txt", text)}, {.special_tokens = true}, "tokenize");
    int64_t ends = 0;
    encode_corpus(corpus, ByteTokenizer(), SpecialTokens::AsIds, 2,
                  [&](const CorpusChunk&, std::span<const int32_t> tokens) {
                      ends += std::count(tokens.begin(), tokens.end(), ByteTokenizer::kEndOfText);
                  });
    EXPECT_EQ(ends, wanted + 1);
}

}  // namespace
}  // namespace llmc
