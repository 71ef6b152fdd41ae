// Where a generated text begins and ends, and whose tokens a HellaSwag file has.
#include "llmc/train/text_ends.h"

#include "llmc/train/hellaswag_tokens.h"
#include "tests/io/tokenizer_testing.h"

#include <gtest/gtest.h>

namespace llmc {
namespace {

TEST(EndTokens, ComeFromTokenizerAndConfiguration) {
    const TempDir dir;
    EXPECT_EQ(end_tokens(ByteTokenizer(), "", 300).ends, std::vector<int32_t>{256});
    dir.write("config.json", R"({"eos_token_id": 2, "bos_token_id": 1})");
    EXPECT_EQ(end_tokens(UnknownTokenizer(), dir.path(), 300).document, 1);
    dir.write("generation_config.json", R"({"eos_token_id": [7, 9, 5000, "x", -1, null]})");
    const EndTokens tokens = end_tokens(ByteTokenizer(), dir.path(), 300);
    EXPECT_EQ(tokens.document, 256);
    EXPECT_EQ(tokens.ends, (std::vector<int32_t>{2, 7, 9, 256}));
    dir.write("generation_config.json", R"({"eos_token_id": {"a": 1}})");
    EXPECT_EQ(end_tokens(ByteTokenizer(), dir.path(), 300).ends, (std::vector<int32_t>{2, 256}));
}

TEST(StopText, PrintsWhatComesBefore) {
    const auto printed = [](const std::string& stop, const std::vector<std::string>& parts) {
        std::string text;
        StopText stopper(stop, [&](std::string_view part) { text += part; });
        for (const std::string& part : parts) {
            if (!stopper.add(part)) continue;
            text += "|";
            break;
        }
        stopper.finish();
        return text;
    };
    EXPECT_EQ(printed("", {"a", "b"}), "ab");
    EXPECT_EQ(printed("bc", {"ab", "ab", "cd"}), "aba|");
    EXPECT_EQ(printed("aab", {"a", "a", "a", "b"}), "a|");
    EXPECT_EQ(printed("aab", {"a", "a", "x", "a", "a"}), "aaxaa");
    EXPECT_EQ(printed("\n\n", {"one\n", "two\n", "\nthree"}), "one\ntwo|");
}

TEST(HellaswagTokens, AreTheModelsOwn) {
    const auto tokenizer = make_tokenizer(std::string(kGoldenFolder) + "tokenizer.json");
    const auto example = [](std::vector<int32_t> context) {
        return HellaswagExample{std::move(context), {{1}, {2}}, 0};
    };
    const std::vector<HellaswagExample> own = {example(tokenizer->encode("A man goes to the house.")),
                                               example(tokenizer->encode("The others went out of it"))};
    require_tokens_of(*tokenizer, tokenizer->vocab_size(), own, "own.bin");
    std::vector<HellaswagExample> others = own;
    for (HellaswagExample& other : others) {
        for (int32_t& token : other.context) token = (token * 7 + 3) % 256;
    }
    EXPECT_TRUE(has(error_of([&] { require_tokens_of(*tokenizer, 1000, others, "x.bin"); }),
                    {"--hellaswag=x.bin", "not those of the model's tokenizer"}));
    EXPECT_TRUE(has(error_of([&] { require_tokens_of(ByteTokenizer(), 257, others, "x.bin"); }), {"'bytes'"}));
    require_tokens_of(ByteTokenizer(), 257, std::vector{example(ByteTokenizer().encode("Caf\xc3\xa9 or tea?"))},
                      "x.bin");
    EXPECT_TRUE(
        has(error_of([&] { require_tokens_of(UnknownTokenizer(), 50, others, "x.bin"); }), {"vocabulary is 50"}));
    require_tokens_of(UnknownTokenizer(), 50257, others, "x.bin");
}

}  // namespace
}  // namespace llmc
