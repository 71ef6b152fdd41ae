#include "llmc/base/file.h"
#include "llmc/io/token_file.h"
#include "llmc/io/token_source.h"
#include "tests/io/temp_dir.h"

#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <numeric>
#include <set>
#include <unistd.h>

namespace llmc {
namespace {

std::string header(int32_t magic, int32_t version, int32_t count) {
    std::string bytes(kTokenFileHeaderBytes, '\0');
    const std::array<int32_t, 3> fields = {magic, version, count};
    std::memcpy(bytes.data(), fields.data(), sizeof fields);
    return bytes;
}

std::vector<int32_t> all_of(const TokenSource& source) {
    std::vector<int32_t> tokens(static_cast<size_t>(source.size()));
    source.read(0, tokens);
    return tokens;
}

std::string open_error(const std::string& path) {
    return error_of([&] { open_token_source(path, "--data"); });
}

TEST(TokenFile, ReadsTheBytesOfTheFormat) {
    const TempDir dir;
    const auto gpt2 =
        TokenFile(open_data_file(dir.write("a.bin", header(20240520, 1, 2) + "\x50\xc4\x01\x02"), "--data"), "--data");
    EXPECT_EQ(all_of(gpt2), (std::vector<int32_t>{50256, 0x0201}));
    EXPECT_EQ(gpt2.end_of_text(), 50256);
    EXPECT_EQ(gpt2.where(1), "'" + dir / "a.bin" + "' at token 1");
    const std::string item("\x00\xf4\x01\x00", 4);
    const auto llama = TokenFile(open_data_file(dir.write("b.bin", header(20240801, 7, 1) + item), "--data"), "--data");
    EXPECT_EQ(all_of(llama), std::vector<int32_t>{128000});
    EXPECT_EQ(llama.end_of_text(), 128000);
}

/// Inside the last page, whose rest would be zeros: nothing would be scored any more.
TEST(TokenFile, MarksThatAreCutWhileInUseAreNamed) {
    const TempDir dir;
    const std::string tokens = header(20240520, 1, 100) + std::string(200, '\1');
    const std::string path = dir.write("a.bin", tokens);
    std::vector<uint8_t> marks(100, kScored), read(100);
    marks[0] |= kDocumentStart;
    write_marks(marks_beside(path), marks, checksum_of(std::as_bytes(std::span(tokens))));
    const TokenFile file(open_data_file(path, "--data"), "--data");
    file.read_marks(0, read);
    EXPECT_EQ(read, marks);
    std::filesystem::resize_file(marks_beside(path), 60);
    const std::string error = error_of([&] { file.read_marks(0, read); });
    EXPECT_EQ(error.find("cannot read '" + marks_beside(path) + "': it was cut while it was in use"), 0u) << error;
}

TEST(TokenFile, ShardsRoundTrip) {
    const TempDir dir;
    for (const TokenFormat& format : {kGpt2Tokens, kLlama3Tokens}) {
        std::vector<int32_t> tokens(1000);
        std::iota(tokens.begin(), tokens.end(), format.vocab_size - 1000);
        TokenShardWriter writer(dir / std::to_string(format.magic) + "_train", format, 300);
        writer.append(std::span(tokens).first(450));
        writer.append(std::span(tokens).subspan(450));
        writer.close();
        ASSERT_EQ(writer.paths().size(), 4u);
        EXPECT_EQ(writer.paths()[3], dir / std::to_string(format.magic) + "_train_000003.bin");
        const auto source = open_token_source(dir / std::to_string(format.magic) + "_train_*.bin", "--data");
        EXPECT_EQ(all_of(*source), tokens);
        EXPECT_EQ(source->vocab_size(), format.vocab_size);
        EXPECT_EQ(source->tokenizer(), "none");
        EXPECT_EQ(source->where(650), "'" + writer.paths()[2] + "' at token 50");
        std::vector<int32_t> across(7);
        source->read(597, across);
        EXPECT_EQ(across, std::vector<int32_t>(tokens.begin() + 597, tokens.begin() + 604));
    }
}

/// A validation shard and three training shards, their tokens and marks.
void write_split(const TempDir& dir) {
    TokenShardWriter train(dir / "x_train", kGpt2Tokens, 4), val(dir / "x_val", kGpt2Tokens, 4);
    const std::vector<int32_t> tokens = {1, 2, 3, 4};
    const std::vector<uint8_t> marks = {kDocumentStart, kScored, kScored, kScored};
    for (TokenShardWriter* writer : {&val, &train, &train, &train}) writer->append_marked(tokens, marks);
    TokenShardWriter::close_all({&train, &val});
}

std::set<std::string> names_in(const TempDir& dir) {
    std::set<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(dir.path())) names.insert(entry.path().filename());
    return names;
}

TEST(TokenFile, ShardsThatCannotAllBeNamedAreRemoved) {
    const TempDir whole;
    write_split(whole);
    const std::set<std::string> all = names_in(whole);
    ASSERT_EQ(all.size(), 8u);
    for (const std::string& name : all) {
        const TempDir dir;
        std::filesystem::create_directories(dir / name + "/in the way");
        EXPECT_TRUE(has(error_of([&] { write_split(dir); }), {"cannot replace", name}));
        EXPECT_EQ(names_in(dir), std::set<std::string>{name});
    }
}

TEST(TokenFile, ShardsOfAnUnfinishedSetAreRefused) {
    const TempDir dir;
    write_split(dir);
    const std::vector<std::string> patterns = {"x_train_*.bin", "x_train_000002.bin", "x_train_00000[12].bin",
                                               "x_val_000000.bin"};
    const std::string first = dir / "x_train_000000.bin", temporary = dir / ".tmp-x_train_000000.bin";
    std::filesystem::rename(first, temporary);
    for (const std::string& pattern : patterns) {
        EXPECT_TRUE(has(open_error(dir / pattern), {"--data: '", "'" + temporary + "' has not got its name", "again"}));
    }
    EXPECT_TRUE(has(error_of([&] { open_token_source(dir.path(), "--data", nullptr, {}, FolderUse::Training); }),
                    {"'" + temporary + "' has not got its name"}));
    // Another set's lies beside shards as llm.c's scripts number them, from 000001 on; a stale one beside a whole set.
    std::filesystem::rename(temporary, dir / ".tmp-y_train_000000.bin");
    for (const std::string& pattern : patterns) EXPECT_NO_THROW(open_token_source(dir / pattern, "--data")) << pattern;
    std::filesystem::rename(dir / ".tmp-y_train_000000.bin", first);
    dir.write(".tmp-x_train_000000.bin", "of a later tokenize");
    for (const std::string& pattern : patterns) EXPECT_NO_THROW(open_token_source(dir / pattern, "--data")) << pattern;
}

TEST(TokenFile, WriterRefusesWhatDoesNotFit) {
    const TempDir dir;
    TokenShardWriter writer(dir / "x_train", kGpt2Tokens);
    const std::vector<int32_t> tokens = {50257};
    EXPECT_TRUE(has(error_of([&] { writer.append(tokens); }), {"50257", "GPT-2"}));
}

TEST(TokenFile, BadFilesAreNamed) {
    const TempDir dir;
    const std::string good = header(20240520, 1, 3) + "aabbcc";
    EXPECT_TRUE(has(open_error(dir.write("short.bin", good.substr(0, good.size() - 1))),
                    {"--data: ", "short.bin", "truncated", "1030 bytes", "1029"}));
    EXPECT_TRUE(has(open_error(dir.write("long.bin", good + "d")), {"--data: ", "long.bin", "too long"}));
    EXPECT_TRUE(has(open_error(dir.write("head.bin", good.substr(0, 100))), {"--data: ", "head.bin", "truncated"}));
    EXPECT_TRUE(has(open_error(dir.write("magic.bin", good.substr(0, 4))), {"--data: ", "magic.bin", "truncated"}));
    EXPECT_TRUE(has(open_error(dir.write("v.bin", header(20240520, 7, 3) + "aabbcc")), {"v.bin", "version 7"}));
    EXPECT_TRUE(has(open_error(dir.write("none.bin", header(20240801, 7, 0))), {"none.bin", "0 tokens"}));
    EXPECT_TRUE(has(open_error(dir.write("neg.bin", header(20240801, 7, -5))), {"neg.bin", "-5 tokens"}));
}

TEST(TokenFile, EveryTruncationIsAnError) {
    const TempDir dir;
    const std::string good = header(20240801, 7, 2) + "aaaabbbb";
    for (size_t size = 4; size < good.size(); ++size) {  // Less does not hold the magic number.
        EXPECT_TRUE(has(open_error(dir.write("cut.bin", good.substr(0, size))), {"--data: ", "cut.bin"})) << size;
    }
}

TEST(TokenFile, BeyondTwoGibibytes) {
    const TempDir dir;
    constexpr int64_t kCount = (int64_t{1} << 30) + 1000;
    const std::string path = dir.write("big_train_000000.bin", header(20240520, 1, static_cast<int32_t>(kCount)));
    const int64_t bytes = kTokenFileHeaderBytes + 2 * kCount;
    if (truncate(path.c_str(), bytes) != 0) GTEST_SKIP() << "no sparse files here";
    const int descriptor = open(path.c_str(), O_WRONLY);
    const std::array<uint16_t, 2> last = {1234, 50256};
    ASSERT_EQ(pwrite(descriptor, last.data(), sizeof last, bytes - 4), 4);
    close(descriptor);
    const auto source = open_token_source(path, "--data");
    ASSERT_EQ(source->size(), kCount);
    std::vector<int32_t> tokens(3);
    source->read(kCount - 3, tokens);
    EXPECT_EQ(tokens, (std::vector<int32_t>{0, 1234, 50256}));
}

TEST(TokenFile, WithoutAHeader) {
    const TempDir dir;
    std::vector<uint16_t> ids(40);
    std::iota(ids.begin(), ids.end(), 7);
    const std::string bytes(reinterpret_cast<const char*>(ids.data()), 80);
    const auto open = [&](const std::string& content, const std::string& format) {
        return open_token_source(dir.write("x", content), "--data", nullptr, {.data_format = format});
    };
    EXPECT_EQ(all_of(*open(bytes, "uint16")), std::vector<int32_t>(ids.begin(), ids.end()));
    EXPECT_EQ(open(bytes, "uint16")->vocab_size(), 50257);
    EXPECT_EQ(open(bytes, "uint32")->size(), 20);
    std::string wide, wider;
    for (const uint16_t id : ids) {
        wide += std::string(reinterpret_cast<const char*>(&id), 2) + std::string(2, '\0');
        wider += std::string(reinterpret_cast<const char*>(&id), 2) + std::string(6, '\0');
    }
    EXPECT_EQ(all_of(*open(wide, "uint32")), std::vector<int32_t>(ids.begin(), ids.end()));
    EXPECT_TRUE(has(error_of([&] { open(wide, "uint16"); }), {"32 bits", "give --data-format=uint32"}));
    for (const char* format : {"uint16", "uint32"}) {
        EXPECT_TRUE(has(error_of([&] { open(wider, format); }), {"bits", "write them as uint32"}));
    }
    EXPECT_TRUE(has(error_of([&] { open("odd", "uint16"); }), {"3 bytes", "uint16"}));
}

}  // namespace
}  // namespace llmc
