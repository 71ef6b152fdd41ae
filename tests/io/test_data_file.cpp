#include "llmc/io/data_file.h"

#include "llmc/io/token_file.h"
#include "tests/io/packed_file.h"
#include "tests/io/temp_dir.h"

#include <gtest/gtest.h>

namespace llmc {
namespace {

using namespace std::string_literals;

const std::string kTokens = "\x88\xd8\x34\x01"s + std::string(1020, '\0');  // The magic number of 20240520.

DataKind kind(const TempDir& dir, const std::string& content, const DataReading& reading = {},
              const std::string& name = "x") {
    return open_data_file(dir.write(name, content), "--data", reading).kind;
}

std::string refusal(const TempDir& dir, const std::string& content, const std::string& name = "x") {
    return error_of([&] { kind(dir, content, {}, name); });
}

TEST(DataFile, ContentDecides) {
    const TempDir dir;
    EXPECT_EQ(kind(dir, "some text"), DataKind::Text);
    EXPECT_EQ(kind(dir, ""), DataKind::Text);
    EXPECT_EQ(kind(dir, "{\"text\": 1}", {.jsonl_field = "text"}), DataKind::JsonLines);
    EXPECT_EQ(kind(dir, kTokens), DataKind::TokenFile);
    EXPECT_EQ(kind(dir, gzip_of(kTokens)), DataKind::TokenFile);
    EXPECT_EQ(kind(dir, zstd_of("text")), DataKind::Text);
    EXPECT_EQ(kind(dir, kTokens, {}, "called.txt"), DataKind::TokenFile);
    EXPECT_EQ(kind(dir, "some text", {.data_format = "uint16"}), DataKind::Uint16);
    EXPECT_EQ(kind(dir, "some text", {.data_format = "uint32"}), DataKind::Uint32);
    EXPECT_EQ(kind(dir, "a\0b"s, {.data_format = "text"}), DataKind::Text);
    EXPECT_EQ(open_data_file(dir.write("a.gz", gzip_of("x")), "--data").describe(),
              "'" + dir / "a.gz" + "' is text (gzip)");
}

TEST(DataFile, NanoGptsFilesByTheirNames) {
    const TempDir dir;
    const std::string ids("\x01\0\x02\0\x03\x01", 6), letters = "texttext";
    EXPECT_EQ(kind(dir, ids, {}, "train.bin"), DataKind::Uint16);
    EXPECT_TRUE(has(refusal(dir, letters, "val.bin"), {"val.bin", "nanoGPT", "--data-format=text", "uint16"}));
    EXPECT_TRUE(has(refusal(dir, ids, "other.bin"), {"other.bin", "binary", "--data-format=uint16"}));
    dir.write("meta.pkl", "\x80\x04");
    EXPECT_EQ(kind(dir, ids, {}, "other.bin"), DataKind::Uint16);
    EXPECT_TRUE(has(refusal(dir, letters, "other.bin"), {"other.bin", "nanoGPT"}));
}

TEST(DataFile, OtherKindsAreNamed) {
    const TempDir dir;
    const std::string tar = "name"s + std::string(253, '\0') + "ustar";
    for (const auto& [content, word] :
         {std::pair("PAR1\x15\0PAR1"s, "Parquet"),
          std::pair("BZh91AY&SY\x01\x02"s, "bzip2"),
          std::pair("\xfd"s + "7zXZ\0\0"s, "xz"),
          std::pair("\x04\x22\x4d\x18"s, "lz4"),
          std::pair("PK\x03\x04\x14"s, "zip"),
          std::pair(tar, "tar"),
          std::pair("ARROW1\0\0"s, "Arrow"),
          std::pair("\x93NUMPY\x01"s, "NumPy"),
          std::pair("\x89HDF\r\n\x1a\n"s, "HDF5"),
          std::pair("%PDF-1.4"s, "PDF"),
          std::pair("\x80\x04\x95\x01"s, "pickle"),
          std::pair("\x40\0\0\0\0\0\0\0{\"a\""s, "safetensors"),
          std::pair("\xc6\xd7\x34\x01\x03\0"s, "llm.c's model"),
          std::pair("\x8a\xd8\x34\x01\x01"s, "--hellaswag"),
          std::pair("\xff\xfe\x41\0"s, "UTF-16"),
          std::pair("h\0e\0l\0l\0o\0"s, "UTF-16LE"),
          std::pair("\0h\0e\0l\0l\0o"s, "UTF-16BE"),
          std::pair("h\0\0\0e\0\0\0"s, "UTF-32LE"),
          std::pair("ab\0c"s, "binary"),
          std::pair("version https://git-lfs.github.com/spec/v1\noid sha256:3f\nsize 7\n"s, "git lfs pull")}) {
        EXPECT_TRUE(has(refusal(dir, content), {"--data: ", "x'", word}));
        if (std::string(word) == "git lfs pull") continue;
        EXPECT_TRUE(has(refusal(dir, gzip_of(content)), {word}));
    }
    for (const std::string& text :
         {"PAR1 is how it begins"s, "BZhang said"s, "%PD"s, "version https://git-lfs of all"s}) {
        EXPECT_EQ(kind(dir, text), DataKind::Text) << text;
    }
}

TEST(DataFile, AFolderGivesItsFilesOrHowToNameThem) {
    const TempDir dir;
    const auto names = [&](FolderUse use) {
        std::string text;
        for (const std::string& path : data_paths(dir.path(), "--data", use)) {
            text += std::filesystem::path(path).filename().string() + " ";
        }
        return text;
    };
    EXPECT_TRUE(has(error_of([&] { names(FolderUse::All); }), {"is a folder without files"}));
    dir.write("a.txt", "a");
    dir.write("b.txt.gz", gzip_of("b"));
    dir.write(".hidden", "");
    EXPECT_EQ(names(FolderUse::All), "a.txt b.txt.gz ");
    dir.write("README", "about it");
    EXPECT_TRUE(has(error_of([&] { names(FolderUse::All); }), {"several kinds", "/README'", "/*.txt'"}));
    dir.write("x_train_000000.bin", kTokens);
    EXPECT_EQ(names(FolderUse::All), "x_train_000000.bin ");
    EXPECT_EQ(names(FolderUse::Validation), "x_train_000000.bin ");
    EXPECT_FALSE(has_validation_files(dir.path()));
    dir.write("x_val_000000.bin", kTokens);
    EXPECT_EQ(names(FolderUse::Training), "x_train_000000.bin ");
    EXPECT_EQ(names(FolderUse::Validation), "x_val_000000.bin ");
    EXPECT_TRUE(has(error_of([&] { names(FolderUse::All); }), {"/*_train_*.bin'", "/*_val_*.bin'"}));
    EXPECT_TRUE(has_validation_files(dir.path()));
}

}  // namespace
}  // namespace llmc
