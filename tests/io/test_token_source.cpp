#include "llmc/io/token_file.h"
#include "llmc/io/token_source.h"
#include "tests/io/temp_dir.h"

#include <gtest/gtest.h>

#include <sys/stat.h>
#include <thread>
#include <unistd.h>

namespace llmc {
namespace {

std::vector<int32_t> tokens_of(const std::string& text) {
    std::vector<int32_t> tokens = {256};
    for (const char c : text) tokens.push_back(static_cast<unsigned char>(c));
    return tokens;
}

std::string open_error(const std::string& path, const std::string& option = "--data") {
    return error_of([&] { open_token_source(path, option); });
}

TEST(TextSource, OneFileIsOneDocument) {
    const TempDir dir;
    const auto source = open_token_source(dir.write("a.txt", "Hello\n\xff\xe9"), "--data");
    ASSERT_EQ(source->size(), 9);
    std::vector<int32_t> tokens(9);
    source->read(0, tokens);
    EXPECT_EQ(tokens, tokens_of("Hello\n\xff\xe9"));
    EXPECT_EQ(source->vocab_size(), 257);
    EXPECT_EQ(source->end_of_text(), 256);
    EXPECT_EQ(source->tokenizer(), "bytes");
    EXPECT_EQ(source->where(3), "'" + dir / "a.txt" + "' at byte 2");
    EXPECT_TRUE(has(source->describe(), {"a.txt", "bytes"}));
    source->read(9, std::span<int32_t>());
}

TEST(TextSource, AnyRangeOverSeveralFiles) {
    const TempDir dir;
    const std::vector<std::string> texts = {"first", "x", "the third one"};
    std::vector<int32_t> expected;
    for (size_t i = 0; i < texts.size(); ++i) {
        dir.write(std::to_string(i) + ".txt", texts[i]);
        const auto tokens = tokens_of(texts[i]);
        expected.insert(expected.end(), tokens.begin(), tokens.end());
    }
    const auto source = open_token_source(dir / "*.txt", "--data");
    const auto size = static_cast<int64_t>(expected.size());
    ASSERT_EQ(source->size(), size);
    for (int64_t first = 0; first < size; ++first) {
        for (int64_t count = 0; first + count <= size; ++count) {
            std::vector<int32_t> tokens(static_cast<size_t>(count));
            source->read(first, tokens);
            EXPECT_TRUE(std::equal(tokens.begin(), tokens.end(), expected.begin() + first));
        }
    }
    EXPECT_EQ(source->where(6), "'" + dir / "1.txt" + "' at its start");
    EXPECT_EQ(source->where(7), "'" + dir / "1.txt" + "' at byte 0");
    EXPECT_TRUE(has(source->describe(), {"3 files"}));
}

TEST(TextSource, ManyThreadsMayRead) {
    const TempDir dir;
    const auto source = open_token_source(dir.write("a.txt", std::string(10000, 'q')), "--data");
    std::vector<std::thread> threads;
    std::vector<std::vector<int32_t>> results(4, std::vector<int32_t>(9000));
    for (auto& result : results) threads.emplace_back([&] { source->read(1, result); });
    for (auto& thread : threads) thread.join();
    for (const auto& result : results) EXPECT_EQ(result, std::vector<int32_t>(9000, 'q'));
}

TEST(OpenTokenSource, NamesOptionFileAndRemedy) {
    const TempDir dir;
    EXPECT_TRUE(has(open_error(dir / "none.txt"), {"--data: ", "none.txt", "does not exist", "check"}));
    EXPECT_TRUE(has(open_error(dir / "*.none", "--val-data"), {"--val-data: ", "*.none", "no file matches"}));
    EXPECT_TRUE(has(open_error(dir.write("e.txt", "")), {"--data: ", "e.txt", "is empty"}));
    std::filesystem::create_directories(dir / "folder/sub");
    EXPECT_TRUE(has(open_error(dir / "folder"), {"--data: ", "folder", "is a folder without files"}));
    dir.write("folder/sub/text.txt", "in it");
    EXPECT_TRUE(has(open_error(dir / "folder"), {"--data: ", "folder", "is a folder without files", "folder/sub"}));
    EXPECT_TRUE(has(open_error(dir.write("n.txt", std::string("ab\0c", 4))), {"--data: ", "n.txt", "binary"}));
    EXPECT_TRUE(has(open_error(dir.write("c.txt", "\x01\x02\x03 abc")), {"--data: ", "c.txt", "binary"}));
    EXPECT_TRUE(has(open_error(dir.write("u.txt", "\xff\xfe\x41")), {"--data: ", "u.txt", "UTF-16", "iconv"}));
    ASSERT_EQ(mkfifo((dir / "pipe").c_str(), 0600), 0);
    EXPECT_TRUE(has(open_error(dir / "pipe"), {"--data: ", "pipe", "not a regular file"}));
    if (geteuid() == 0) return;
    chmod(dir.write("secret.txt", "x").c_str(), 0);
    EXPECT_TRUE(has(open_error(dir / "secret.txt"), {"--data: ", "secret.txt", "Permission denied"}));
}

TEST(OpenTokenSource, SkipsEmptyFilesAmongOthers) {
    const TempDir dir;
    dir.write("a.txt", "");
    EXPECT_TRUE(has(open_error(dir / "[ab].txt"), {"is empty"}));
    dir.write("b.txt", "");
    EXPECT_TRUE(has(open_error(dir / "[ab].txt"), {"--data: ", "2 files", "empty"}));
    dir.write("b.txt", "b");
    EXPECT_EQ(open_token_source(dir / "[ab].txt", "--data")->size(), 2);
}

TEST(OpenTokenSource, RefusesMixedKinds) {
    const TempDir dir;
    const std::vector<int32_t> tokens = {1, 2, 3};
    for (const TokenFormat& format : {kGpt2Tokens, kLlama3Tokens}) {
        TokenShardWriter writer(dir / std::string(1, format.name[0]), format);
        writer.append(tokens);
        writer.close();
    }
    EXPECT_TRUE(has(open_error(dir / "*.bin"), {"--data: ", "mixes", "GPT-2", "Llama 3"}));
    dir.write("text.bin", "some text");
    EXPECT_TRUE(has(open_error(dir / "[Gt]*.bin"), {"--data: ", "mixes", "GPT-2", "text"}));
}

TEST(OpenTokenSource, LooksOnlyAtTheStart) {
    const TempDir dir;
    std::string text(100'000, 'a');
    text[90'000] = '\0';
    EXPECT_EQ(open_token_source(dir.write("a.txt", text), "--data")->size(), 100'001);
}

TEST(TokenRange, IsAView) {
    const TempDir dir;
    const auto source = open_token_source(dir.write("a.txt", "0123456789"), "--data");
    const TokenRange range(*source, 4, 5);
    std::vector<int32_t> tokens(2);
    range.read(1, tokens);
    EXPECT_EQ(tokens, (std::vector<int32_t>{'4', '5'}));
    EXPECT_EQ(range.where(1), source->where(5));
    EXPECT_EQ(TokenRange(*source).size(), 11);
}

TEST(Marks, WithoutAnyEveryTokenIsScoredAndADocumentStartsWithItsSeparator) {
    const TempDir dir;
    dir.write("a.txt", "ab");
    dir.write("b.txt", "c");
    const auto source = open_token_source(dir / "[ab].txt", "--data");
    EXPECT_FALSE(source->is_marked());
    std::vector<uint8_t> marks(4);
    TokenRange(*source, 1, 4).read_marks(0, marks);
    EXPECT_EQ(marks, (std::vector<uint8_t>{kScored, kScored, kScored | kDocumentStart, kScored}));
}

TEST(SplitOffValidation, LastTwentiethOrOneSequence) {
    const TempDir dir;
    const auto source = open_token_source(dir.write("a.txt", std::string(1999, 'a')), "--data");
    const TokenSplit split = split_off_validation(*source, 64);
    EXPECT_EQ(split.train.size(), 1900);
    EXPECT_EQ(split.validation.first(), 1900);
    EXPECT_EQ(split.validation.size(), 100);
    EXPECT_EQ(split_off_validation(*source, 255).validation.size(), 256);
    EXPECT_EQ(split_off_validation(*source, 999).train.size(), 1000);
    EXPECT_TRUE(has(error_of([&] { split_off_validation(*source, 1000); }),
                    {"--data: ", "a.txt", "2,000", "--seq-len=1000", "2,002", "1,001"}));
}

TEST(RequireOneSequence, SaysHowMuchIsNeeded) {
    const TempDir dir;
    const auto source = open_token_source(dir.write("a.txt", std::string(63, 'a')), "--val-data");
    require_one_sequence(TokenRange(*source), 63, "--val-data");
    EXPECT_TRUE(has(error_of([&] { require_one_sequence(TokenRange(*source), 64, "--val-data"); }),
                    {"--val-data: ", "64 tokens", "--seq-len=64", "65"}));
}

}  // namespace
}  // namespace llmc
