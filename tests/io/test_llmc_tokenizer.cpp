#include "llmc/io/llmc_tokenizer.h"
#include "tests/io/tokenizer_testing.h"

#include <gtest/gtest.h>

#include <array>
#include <cstring>

namespace llmc {
namespace {

std::string file_of(int32_t version, int32_t end_of_text, const std::vector<std::string>& tokens) {
    std::string bytes(1024, '\0');
    const std::array<int32_t, 4> fields = {20240328, version, static_cast<int32_t>(tokens.size()), end_of_text};
    std::memcpy(bytes.data(), fields.data(), sizeof fields);
    for (const std::string& token : tokens) bytes += static_cast<char>(token.size()) + token;
    return bytes;
}

TEST(LlmcTokenizer, ReadsTheBytesOfTheFormat) {
    const TempDir dir;
    const std::string path = dir.write("t.bin", file_of(2, 2, {"a", " b", "<|endoftext|>", std::string(255, 'x')}));
    const auto tokenizer = make_tokenizer(path);
    EXPECT_EQ(tokenizer->name(), path);
    EXPECT_EQ(tokenizer->vocab_size(), 4);
    EXPECT_EQ(tokenizer->end_of_text(), 2);
    EXPECT_EQ(tokenizer->decode(std::vector<int32_t>{2, 0, 1, 3}), "a b" + std::string(255, 'x'));
    EXPECT_TRUE(has(error_of([&] { tokenizer->encode("a"); }), {"t.bin", "no merges"}));
    EXPECT_TRUE(has(error_of([&] { tokenizer->decode(std::vector<int32_t>{4}); }), {"token 4", "4"}));
}

TEST(LlmcTokenizer, VersionOneImpliesGpt2) {
    const TempDir dir;
    const std::string path = dir.write("t.bin", file_of(1, 0, std::vector<std::string>(50257, "y")));
    EXPECT_EQ(make_tokenizer(path)->end_of_text(), 50256);
}

TEST(LlmcTokenizer, WritesWhatItReads) {
    const TempDir dir;
    for (const char* name : {"ranks.tiktoken", "tokenizer.json"}) {
        const std::string pattern = name == std::string("ranks.tiktoken") ? "[a-z]+" : "";
        const auto tokenizer = make_tokenizer(std::string(kGoldenFolder) + name, {"", pattern});
        write_llmc_tokenizer(*tokenizer, dir / "first.bin");
        const auto read = make_tokenizer(dir / "first.bin");
        EXPECT_EQ(read->vocab_size(), tokenizer->vocab_size());
        EXPECT_EQ(read->end_of_text(), tokenizer->end_of_text());
        EXPECT_EQ(read->decode(tokenizer->encode(golden_text())), golden_text());
        write_llmc_tokenizer(*read, dir / "second.bin");
        EXPECT_EQ(slurp(dir / "second.bin"), slurp(dir / "first.bin"));
    }
    const ByteTokenizer bytes;
    write_llmc_tokenizer(bytes, dir / "bytes.bin");
    EXPECT_EQ(make_tokenizer(dir / "bytes.bin")->token_bytes(0), std::string(1, '\0'));
    EXPECT_TRUE(has(error_of([&] { write_llmc_tokenizer(UnknownTokenizer(), dir / "x.bin"); }), {"'none'"}));
}

TEST(LlmcTokenizer, Gpt2sIsWhatLlmcWrites) {
    const std::string path = data_file("gpt2_encoder.json");
    if (path.empty()) GTEST_SKIP() << "GPT-2's vocabulary is not there";
    const TempDir dir;
    write_llmc_tokenizer(*make_tokenizer(path), dir / "gpt2_tokenizer.bin");
    const std::string file = slurp(dir / "gpt2_tokenizer.bin");
    // The header and the first and last tokens, as dev/data of llm.c writes them.
    EXPECT_EQ(file.substr(0, 1024), file_of(2, 50256, std::vector<std::string>(50257)).substr(0, 1024));
    EXPECT_EQ(file.substr(1024, 4), "\x01!\x01\"");
    EXPECT_TRUE(file.ends_with("\x0d<|endoftext|>"));
    EXPECT_EQ(make_tokenizer(dir.path())->vocab_size(), 50257);
}

TEST(LlmcTokenizer, BadFilesAreNamed) {
    const TempDir dir;
    const std::string good = file_of(2, 1, {"abc", "<|endoftext|>"});
    const auto error = [&](const std::string& content) {
        const std::string path = dir.write("t.bin", content);
        return error_of([&] { make_tokenizer(path); });
    };
    for (size_t size = 4; size < good.size(); ++size)
        EXPECT_TRUE(has(error(good.substr(0, size)), {"t.bin", "truncated"}));
    EXPECT_TRUE(has(error(good + "x"), {"t.bin", "corrupt"}));
    EXPECT_TRUE(has(error(file_of(3, 1, {"abc", "d"})), {"t.bin", "version 3"}));
    EXPECT_TRUE(has(error(file_of(2, 2, {"abc", "d"})), {"t.bin", "corrupt"}));
    EXPECT_TRUE(has(error(file_of(2, 0, {})), {"t.bin", "corrupt"}));
}

}  // namespace
}  // namespace llmc
