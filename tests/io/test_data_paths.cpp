#include "llmc/io/data_paths.h"

#include "tests/io/temp_dir.h"
#include "tests/io/warnings.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace llmc {
namespace {

using namespace std::string_literals;

const std::string kTokens = "\x88\xd8\x34\x01"s + std::string(1020, '\0');  // The magic number of 20240520.

std::string names(const std::string& pattern, FolderUse use = FolderUse::All, const std::string& option = "--data") {
    std::string text;
    for (const std::string& path : data_paths(pattern, option, use)) {
        text += std::filesystem::path(path).filename().string() + " ";
    }
    return text;
}

TEST(DataPaths, NumbersCountAsNumbers) {
    const std::vector<std::string> order = {"",
                                            "1",
                                            "2",
                                            "10",
                                            "a",
                                            "a0",
                                            "a00",
                                            "a1",
                                            "a01",
                                            "a1b",
                                            "a2",
                                            "a10",
                                            "a10b1",
                                            "a10b02",
                                            "a10b20",
                                            "a99999999999999999999",
                                            "a100000000000000000000",
                                            "ab",
                                            "b1"};
    for (size_t i = 0; i < order.size(); ++i) {
        for (size_t j = 0; j < order.size(); ++j) {
            const bool is_pair = (order[i] == "a0" && order[j] == "a00") || (order[i] == "a1" && order[j] == "a01");
            if (is_pair || (order[j] == "a0" && order[i] == "a00") || (order[j] == "a1" && order[i] == "a01")) continue;
            EXPECT_EQ(comes_before(order[i], order[j]), i < j) << order[i] << " " << order[j];
        }
    }
    EXPECT_NE(comes_before("a1", "a01"), comes_before("a01", "a1")) << "one of them is the first";
    const TempDir dir;
    for (const int number : {10, 2, 1, 20, 3}) dir.write("shard_" + std::to_string(number) + ".bin", kTokens);
    const std::string sorted = "shard_1.bin shard_2.bin shard_3.bin shard_10.bin shard_20.bin ";
    EXPECT_EQ(names(dir.path()), sorted);
    EXPECT_EQ(names(dir / "shard_*.bin"), sorted);
}

TEST(DataPaths, WhatAFolderHasBesidesIsSaidOnce) {
    const TempDir dir;
    dir.write("x_train_0.bin", kTokens);
    dir.write("x_val_0.bin", kTokens);
    std::filesystem::create_directory(dir / "x_tokenizer");
    const Warnings warnings;
    names(dir.path(), FolderUse::Training);
    names(dir.path(), FolderUse::Validation);
    EXPECT_EQ(warnings.text(), "");
    dir.write("a.txt", "a");
    names(dir.path(), FolderUse::Training);
    names(dir.path(), FolderUse::Validation);
    EXPECT_TRUE(has(warnings.text(), {"--data: of the folder", "2 files are read; 1 other is left out: a.txt\n"}));
    EXPECT_EQ(warnings.count(), 1);
    for (const char* name : {"b.parquet", "c.md", "d", ".hidden"}) dir.write(name, "x");
    std::filesystem::create_directory(dir / "more");
    names(dir.path(), FolderUse::Training);
    EXPECT_TRUE(has(warnings.text(), {"5 others are left out: a.txt, b.parquet, c.md and 2 more\n"}));
    EXPECT_EQ(warnings.count(), 2);
    names(dir.path(), FolderUse::Validation, "--val-data");
    EXPECT_TRUE(has(warnings.text(), {"--val-data: of the folder", "1 file is read; 6 others"}));
}

TEST(DataPaths, SoIsWhatAFolderOfTextsHas) {
    const TempDir dir;
    dir.write("a.txt", "a");
    dir.write("b.txt", "b");
    const Warnings warnings;
    EXPECT_EQ(names(dir.path()), "a.txt b.txt ");
    EXPECT_EQ(warnings.text(), "");
    std::filesystem::create_directory(dir / "deeper");
    std::filesystem::create_symlink("nowhere", dir / "link");
    EXPECT_EQ(names(dir.path()), "a.txt b.txt ");
    EXPECT_TRUE(has(warnings.text(), {"2 files are read; 2 others are left out: deeper, link\n"}));
}

}  // namespace
}  // namespace llmc
