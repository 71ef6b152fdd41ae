// Tables for a terminal: columns go by rank, blocks repeat the first column, words are broken, and no line is too long.
#include "llmc/draw/text_table.h"

#include "llmc/draw/report_units.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <sstream>

namespace llmc {
namespace {

size_t widest(const std::string& text) {
    size_t most = 0;
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) most = std::max(most, line.size());
    return most;
}

TextTable some_table() {
    TextTable table({{.header = "name", .left = true},
                     {.header = "first\nrank", .rank = 2},
                     {.header = "kept"},
                     {.header = "gone\nlast", .rank = 1},
                     {.header = "in words", .left = true, .rank = 3, .prose = true}});
    table.add_row({"one", "1,000", "2", "3", "some words that are broken where the line ends"});
    table.add_row({"another", "1", "22,000", "33", "few"});
    return table;
}

TEST(TextTable, LeavesColumnsOutByRank) {
    const TextTable table = some_table();
    for (const int width : {20, 24, 30, 40, 60, 80, 200})
        EXPECT_LE(widest(table.text(width)), static_cast<size_t>(width)) << width;
    EXPECT_NE(table.text(60).find("in words"), std::string::npos);
    EXPECT_EQ(table.text(40).find("in words"), std::string::npos);
    EXPECT_NE(table.text(40).find("1,000"), std::string::npos);
    EXPECT_EQ(table.text(24).find("1,000"), std::string::npos);
    EXPECT_NE(table.text(24).find("gone"), std::string::npos);
    EXPECT_EQ(table.text(16).find("gone"), std::string::npos);
    EXPECT_NE(table.text(5).find("22,000"), std::string::npos) << "columns of rank 0 stay";
}

TEST(TextTable, IsAligned) {
    EXPECT_EQ(some_table().text(24),
              "                 gone\n"
              "name       kept  last\n"
              "one           2     3\n"
              "another  22,000    33\n");
}

TEST(TextTable, BlocksRepeatTheFirstColumn) {
    TextTable table({{.header = "bytes", .left = true}, {.header = "none"}, {.header = "layer"}, {.header = "sqrt"}});
    table.add_row({"all", "1", "2", "3"});
    EXPECT_EQ(table.blocks(80), "bytes  none  layer  sqrt\nall       1      2     3\n");
    EXPECT_EQ(table.blocks(18), "bytes  none  layer\nall       1      2\n\nbytes  sqrt\nall       3\n");
    EXPECT_EQ(table.blocks(1), "bytes  none\nall       1\n\nbytes  layer\nall        2\n\nbytes  sqrt\nall       3\n");
}

TEST(Wrapped, BreaksAtSpaces) {
    EXPECT_EQ(wrapped("one two three", 7), "one two\n  three\n");
    EXPECT_EQ(wrapped("one two three", 80), "one two three\n");
    EXPECT_EQ(wrapped("averylongword b", 4, 0), "averylongword\nb\n");
    EXPECT_EQ(wrapped("two\nlines\n", 80), "two\nlines\n");
    EXPECT_EQ(wrapped("", 80), "\n");
}

TEST(WrappedCommand, CanBePasted) {
    EXPECT_EQ(wrapped_command("train_gpt --steps=1", 40), "  train_gpt --steps=1\n");
    EXPECT_EQ(wrapped_command("train_gpt --one=1 --two=2 --three=3", 24),
              "  train_gpt --one=1 \\\n    --two=2 --three=3\n");
    const std::string quoted = "train_gpt --data='a b c d e f g' --steps=1";
    EXPECT_EQ(wrapped_command(quoted, 16), "  train_gpt \\\n    --data='a b c d e f g' \\\n    --steps=1\n");
    for (int width = 12; width < 60; ++width) {
        std::string joined = wrapped_command("train_gpt --one=1 --two=2 --three=3 --four=4", width);
        for (size_t at = 0; (at = joined.find(" \\\n    ")) != std::string::npos;) joined.replace(at, 7, " ");
        EXPECT_EQ(joined, "  train_gpt --one=1 --two=2 --three=3 --four=4\n") << width;
    }
}

TEST(ReportUnits, RoundOrInFull) {
    const ReportUnits units(false, int64_t{5} << 30), small(false, 5 << 20), full(true, int64_t{5} << 30);
    EXPECT_EQ(units.bytes(int64_t{3} << 29), "1.50");
    EXPECT_EQ(units.of_bytes("total"), "total GiB");
    EXPECT_EQ(small.bytes(3 << 19), "1.50");
    EXPECT_EQ(small.of_bytes(""), "MiB");
    EXPECT_EQ(full.bytes(1234567), "1,234,567");
    EXPECT_EQ(full.of_bytes("total"), "total B");
    EXPECT_EQ(units.seconds(123.4), "123");
    EXPECT_EQ(units.seconds(1.234), "1.23");
    EXPECT_EQ(units.seconds(0.01234), "0.0123");
    EXPECT_EQ(units.seconds(0), "0");
    EXPECT_EQ(full.seconds(1.2345), "1234.500");
    EXPECT_EQ(full.of_seconds("step"), "step ms");
}

}  // namespace
}  // namespace llmc
