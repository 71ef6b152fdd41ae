// The TOML of --config: what is read, what is refused and where, and strings that come back as they were.
#include "llmc/train/config_file.h"

#include "tests/io/temp_dir.h"

#include <gtest/gtest.h>

namespace llmc {
namespace {

using Kind = ConfigValue::Kind;

std::vector<ConfigEntry> read(const TempDir& dir, std::string_view text) {
    return read_config(dir.write("c.toml", text), "--config=c.toml");
}

std::string refusal(const TempDir& dir, std::string_view text) {
    return error_of([&] { read(dir, text); });
}

TEST(ConfigFile, ReadsEveryFormOfValue) {
    const TempDir dir;
    const auto entries = read(dir,
                              "\xEF\xBB\xBF# a comment after the mark\r\n"
                              "steps = 1_000\n"
                              "a = 0x10\r\n"
                              "b = 0o17\n"
                              "c = 0b101\n"
                              "  learning-rate=3e-4   # the peak\n"
                              "d = -1_0.5\n"
                              "dry-run = true\n"
                              "\"quoted key\" = false\n"
                              "'data' = \"a # \\\"b\\\" \\\\ c \\u00e9\"  # a comment\n"
                              "\tmodel\t=\t'raw \\ \"text\" #1'\n"
                              "e = \"\"\"\nfirst\nsecond\\\n   joined\"\"\"\n"
                              "f = '''raw \\ '' text'''\n"
                              "g = [1, \"x\", # a comment\n  2.5,\n]\n"
                              "h = 1979-05-27T07:32:00Z\n"
                              "i = +inf\n"
                              "empty = \"\"");
    const std::vector<std::tuple<std::string, Kind, std::string>> expected = {
        {"steps", Kind::Integer, "1000"},
        {"a", Kind::Integer, "16"},
        {"b", Kind::Integer, "15"},
        {"c", Kind::Integer, "5"},
        {"learning-rate", Kind::Float, "0.0003"},
        {"d", Kind::Float, "-10.5"},
        {"dry-run", Kind::Boolean, "true"},
        {"quoted key", Kind::Boolean, "false"},
        {"data", Kind::String, "a # \"b\" \\ c \xc3\xa9"},
        {"model", Kind::String, "raw \\ \"text\" #1"},
        {"e", Kind::String, "first\nsecondjoined"},
        {"f", Kind::String, "raw \\ '' text"},
        {"g", Kind::Array, ""},
        {"h", Kind::Date, ""},
        {"i", Kind::Float, "inf"},
        {"empty", Kind::String, ""}};
    ASSERT_EQ(entries.size(), expected.size());
    for (size_t i = 0; i < entries.size(); ++i) {
        EXPECT_EQ(entries[i].section, "");
        EXPECT_EQ(entries[i].name, std::get<0>(expected[i]));
        EXPECT_EQ(entries[i].value.kind, std::get<1>(expected[i])) << entries[i].name;
        EXPECT_EQ(entries[i].value.text, std::get<2>(expected[i])) << entries[i].name;
    }
    EXPECT_EQ(entries[4].line, 6);
    EXPECT_EQ(entries[11].line, 16) << "after strings of several lines";
    const auto& list = entries[12].value.elements;
    ASSERT_EQ(list.size(), 3u);
    EXPECT_EQ(list[0].text + list[1].text + list[2].text, "1x2.5");
}

TEST(ConfigFile, SectionsInAnyForm) {
    const TempDir dir;
    const auto entries = read(dir,
                              "seed = 1\n"
                              "[model]\n"
                              "layers = 2\n"
                              "[ \"data\" ]\n"
                              "steps = 3\n"
                              "[model.inner]\n"
                              "x = 1\n");
    ASSERT_EQ(entries.size(), 4u);
    EXPECT_EQ(entries[0].section, "");
    EXPECT_EQ(entries[1].section + "." + entries[1].name, "model.layers");
    EXPECT_EQ(entries[2].section + "." + entries[2].name, "data.steps");
    EXPECT_EQ(entries[3].section + "." + entries[3].name, "model.inner");
    EXPECT_EQ(entries[3].value.kind, Kind::Table);
    const auto others = read(dir, "model.layers = 2\nrun = { seed = 5 }\n[[table]]\na = 1\n");
    ASSERT_EQ(others.size(), 3u);
    EXPECT_EQ(others[0].section + "." + others[0].name, "model.layers");
    EXPECT_EQ(others[1].section + "." + others[1].name, "run.seed");
    EXPECT_EQ(others[2].value.kind, Kind::Table);
}

TEST(ConfigFile, AnEmptyFileHasNoEntries) {
    const TempDir dir;
    for (const char* text : {"", "\n\n# nothing\n", "\xEF\xBB\xBF", "[model]\n"}) EXPECT_TRUE(read(dir, text).empty());
}

TEST(ConfigFile, WhatIsNoTomlIsRefusedWithItsLine) {
    const TempDir dir;
    for (const char* bad : {"steps",        "steps 5",        "= 5",
                            "steps =",      "steps = # 5",    "steps = 5 6",
                            "steps = [5",   "[section",       "data = \"open",
                            "data = 'open", "data = \"a\" b", "data = \"\\q\"",
                            "a b = 1",      "data = \"\\",    "steps = 1,2",
                            "steps = 5=6",  "a = maybe",      "a = 0x",
                            "a = 1__0",     "a = 01",         "a = 99999999999999999999",
                            "a = 1e999",    "a = TRUE",       "[.a]",
                            "[[.a]]",       "[a.]",           "a = {",
                            "a = \"\x01\""}) {
        const std::string message = refusal(dir, std::string("seed = 1\n") + bad + "\n");
        EXPECT_TRUE(has(message, {"--config=c.toml: line ", "is no TOML"})) << bad;
        EXPECT_NE(message.find("line 2"), message.find("line 3")) << bad;
    }
    EXPECT_TRUE(has(refusal(dir, "a = gpt2\n"), {"write strings in quotes"}));
    EXPECT_TRUE(has(refusal(dir, "a = \"C:\\data\"\n"), {"'single quotes'"}));
    EXPECT_TRUE(has(refusal(dir, "steps: 5\n"), {"line 1", "name = value"}));
    EXPECT_TRUE(has(refusal(dir, std::string("\xFF\xFE"
                                             "a\0",
                                             4)),
                    {"UTF-16"}));
}

TEST(ConfigFile, ADuplicateNamesBothLines) {
    const TempDir dir;
    EXPECT_TRUE(has(refusal(dir, "a = 1\nb = 2\na = 3\n"), {"--config=c.toml", "'a'", "lines 1 and 3"}));
    EXPECT_TRUE(has(refusal(dir, "[m]\na = 1\n[n]\na = 1\nb = [1,\n2]\n\"a\" = 3\n"), {"lines 4 and 7"}));
    EXPECT_TRUE(has(refusal(dir, "m.a = 1\r\nm.a = 2\r\n"), {"lines 1 and 2"}));
    EXPECT_TRUE(has(refusal(dir, "[m]\na = 1\n[n]\n[m]\nb = 1\n"), {"'m'", "lines 1 and 4", "section"}));
    EXPECT_TRUE(has(refusal(dir, "x = 1\nmodel = \"m\"\n[model]\nlayers = 1\n"),
                    {"'model'", "lines 2 and 3", "move the option"}));
    EXPECT_TRUE(has(refusal(dir, "x = 1\nm = { a = 1, a = 2 }\n"), {"'a'", "line 2"}));
}

TEST(ConfigFile, AMissingFileIsBadUsage) {
    const TempDir dir;
    try {
        read_config(dir / "absent.toml", "--config=absent.toml");
        FAIL();
    } catch (const Error& error) {
        EXPECT_EQ(error.exit_code(), kExitBadUsage);
        EXPECT_TRUE(has(error.what(), {"--config", "absent.toml"}));
    }
}

TEST(ConfigFile, QuotedStringsComeBack) {
    const TempDir dir;
    std::string every_byte, every_pair;
    for (int byte = 1; byte < 256; ++byte) every_byte += static_cast<char>(byte);
    for (int first = 0xC0; first < 256; ++first) {
        for (int second = 0x7F; second < 256; second += 0x10) {
            every_pair += {static_cast<char>(first), static_cast<char>(second)};
        }
    }
    for (const std::string& text :
         {std::string(), std::string("plain"), std::string("#\"'\\ = [x], {y}"), every_byte, every_pair,
          std::string("caf\xe9.txt"), std::string("\xee\xbe\x80 and \xee\xbf\xbf, which stand for bytes"),
          std::string("\xed\xa0\x80 surrogate, \xf4\x90\x80\x80 beyond, \xc0\xaf overlong, \xf0\x9f\x98\x80 fine"),
          std::string("cut \xe2\x82")}) {
        const auto entries = read(dir, "text = " + quoted(text) + "  # comment\n");
        ASSERT_EQ(entries.size(), 1u);
        EXPECT_EQ(entries[0].value.text, text);
    }
    EXPECT_EQ(quoted("caf\xc3\xa9 \xe9"), "\"caf\xc3\xa9 \\uEFE9\"") << "readable where it is UTF-8";
}

TEST(ConfigFile, BytesOfEarlierVersionsAreRead) {
    const TempDir dir;
    const auto entries = read(dir, "# caf\xe9\ndata = \"caf\xe9.txt\"\n");
    ASSERT_EQ(entries.size(), 1u);
    EXPECT_EQ(entries[0].value.text, "caf\xe9.txt");
}

}  // namespace
}  // namespace llmc
