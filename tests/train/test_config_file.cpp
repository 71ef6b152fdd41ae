// The TOML of --config: what is read, what is refused and where, and strings that come back as they were.
#include "llmc/train/config_file.h"

#include "tests/io/temp_dir.h"

#include <gtest/gtest.h>

namespace llmc {
namespace {

TEST(ConfigFile, ReadsNumbersWordsAndStrings) {
    const TempDir dir;
    const auto entries = read_config(dir.write("c.toml",
                                               "# a comment\n"
                                               "\n"
                                               "steps = 20\n"
                                               "  learning-rate=3e-4   # the peak\r\n"
                                               "dry-run = true\n"
                                               "data = \"a # \\\"b\\\" \\\\ c\"  # a comment\n"
                                               "\tmodel\t=\t'raw \\ \"text\" #1'\n"
                                               "empty = \"\""));
    const std::vector<std::pair<std::string, std::string>> expected = {{"steps", "20"},
                                                                       {"learning-rate", "3e-4"},
                                                                       {"dry-run", "true"},
                                                                       {"data", "a # \"b\" \\ c"},
                                                                       {"model", "raw \\ \"text\" #1"},
                                                                       {"empty", ""}};
    ASSERT_EQ(entries.size(), expected.size());
    for (size_t i = 0; i < entries.size(); ++i) {
        EXPECT_EQ(entries[i].name, expected[i].first);
        EXPECT_EQ(entries[i].value, expected[i].second);
    }
    EXPECT_EQ(entries[1].line, 4);
}

TEST(ConfigFile, AnEmptyFileHasNoEntries) {
    const TempDir dir;
    EXPECT_TRUE(read_config(dir.write("c.toml", "")).empty());
    EXPECT_TRUE(read_config(dir.write("c.toml", "\n\n# nothing\n")).empty());
}

TEST(ConfigFile, WhatIsNoEntryIsRefusedWithItsLine) {
    const TempDir dir;
    for (const char* bad : {"steps", "steps 5", "= 5", "steps =", "steps = # 5", "steps = 5 6", "steps = [5]", "a = {}",
                            "[section]", "data = \"open", "data = 'open", "data = \"a\" b", "data = \"\\q\"", "a b = 1",
                            "data = \"\\", "steps = 1,2", "steps = 5=6"}) {
        const std::string path = dir.write("c.toml", std::string("seed = 1\n") + bad + "\n");
        EXPECT_TRUE(has(error_of([&] { read_config(path); }), {"--config=", path, "line 2"})) << bad;
    }
}

TEST(ConfigFile, ADuplicateIsRefused) {
    const TempDir dir;
    const std::string path = dir.write("c.toml", "a = 1\nb = 2\na = 3\n");
    EXPECT_TRUE(has(error_of([&] { read_config(path); }), {"--config=", "'a'", "lines 1 and 3"}));
}

TEST(ConfigFile, AMissingFileIsBadUsage) {
    const TempDir dir;
    try {
        read_config(dir / "absent.toml");
        FAIL();
    } catch (const Error& error) {
        EXPECT_EQ(error.exit_code(), kExitBadUsage);
        EXPECT_TRUE(has(error.what(), {"--config", "absent.toml"}));
    }
}

TEST(ConfigFile, QuotedStringsComeBack) {
    const TempDir dir;
    std::string every_byte;
    for (int byte = 1; byte < 256; ++byte) every_byte += static_cast<char>(byte);
    for (const std::string& text :
         {std::string(), std::string("plain"), std::string("#\"'\\ = [x], {y}"), every_byte}) {
        const auto entries = read_config(dir.write("c.toml", "text = " + quoted(text) + "  # comment\n"));
        ASSERT_EQ(entries.size(), 1u);
        EXPECT_EQ(entries[0].value, text);
    }
}

}  // namespace
}  // namespace llmc
