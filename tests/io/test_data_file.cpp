#include "llmc/io/data_file.h"

#include "llmc/io/data_paths.h"
#include "llmc/io/token_file.h"
#include "tests/io/packed_file.h"
#include "tests/io/temp_dir.h"
#include "tests/io/warnings.h"

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
    EXPECT_EQ(kind(dir, "some text", {.data_format = "uint32"}), DataKind::Uint32);  // So short that it may be ids.
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

/// Text as two or four bytes a letter, without a mark.
std::string wide(std::u32string_view text, size_t bytes, bool big) {
    std::string out;
    const auto put = [&](uint32_t unit) {
        for (size_t k = 0; k < bytes; ++k) {
            out += static_cast<char>(unit >> 8 * (big ? bytes - 1 - k : k) & 0xFF);
        }
    };
    for (const char32_t c : text) {
        if (bytes == 4 || c < 0x10000) {
            put(c);
        } else {
            put(0xD800 + ((c - 0x10000) >> 10));
            put(0xDC00 + ((c - 0x10000) & 0x3FF));
        }
    }
    return out;
}

TEST(DataFile, WideTextIsKnownInEveryScript) {
    const TempDir dir;
    for (const std::u32string_view sentence :
         {U"In the beginning was the word, and the word was short.\n",
          U"\u0412 \u043d\u0430\u0447\u0430\u043b\u0435 \u0431\u044b\u043b\u043e \u0421\u043b\u043e\u0432\u043e.\n",
          U"\u592a\u521d\u6709\u9053\u3002\u9053\u8207\u795e\u540c\u5728\u3001\u9053\u5c31\u662f\u795e\u3002\n",
          U"\u521d\u3081\u306b\u8a00\u304c\u3042\u3063\u305f\u3002\n",
          U"\ud0dc\ucd08\uc5d0 \ub9d0\uc500\uc774 \uacc4\uc2dc\ub2c8\ub77c\n",
          U"\u0641\u064a \u0627\u0644\u0628\u062f\u0621 \u0643\u0627\u0646 \u0627\u0644\u0643\u0644\u0645\u0629\n",
          U"\u00c0 l\u2019\u00e9t\u00e9 d\u00e9j\u00e0 \u00e9coul\u00e9, \u0153uvre \U0001F600 \U0001F601!\n",
          U"\u0906\u0926\u093f \u092e\u0947\u0902 \u0935\u091a\u0928 \u0925\u093e\n"}) {
        std::u32string text;
        while (text.size() < 200) text += sentence;
        for (const auto& [bytes, big, name] : {std::tuple(2, false, "UTF-16LE"), std::tuple(2, true, "UTF-16BE"),
                                               std::tuple(4, false, "UTF-32LE"), std::tuple(4, true, "UTF-32BE")}) {
            const std::string content = wide(text, static_cast<size_t>(bytes), big);
            EXPECT_TRUE(has(refusal(dir, content), {"x' is UTF-", std::string("iconv -f ") + name})) << content.size();
            EXPECT_TRUE(has(refusal(dir, content.substr(0, content.size() - 1)), {bytes == 2 ? name : "x'"}));
        }
    }
}

TEST(DataFile, IdsAndOtherTextAreNotTakenForWideText) {
    const TempDir dir;
    uint64_t state = 7;
    const auto draw = [&](uint64_t n) {
        return (state = state * 6364136223846793005 + 1442695040888963407) / 65536 % n;
    };
    for (const uint64_t vocabulary : {60u, 300u, 1000u, 4096u, 32000u, 50257u, 65536u}) {
        for (const bool wide_ids : {false, true}) {
            std::string ids;
            for (int i = 0; i < 4000; ++i) {  // Frequent ones are small, as in every vocabulary of merges.
                const uint64_t id = draw(1 + draw(1 + draw(vocabulary)));
                for (int k = 0; k < (wide_ids ? 4 : 2); ++k) ids += static_cast<char>(id >> 8 * k & 0xFF);
            }
            EXPECT_TRUE(has(refusal(dir, ids), {"binary"})) << vocabulary;
        }
    }
    std::string latin1, windows1251;
    for (int i = 0; i < 100; ++i)
        latin1 += "caf\xe9 d\xe9j\xe0 vu ", windows1251 += "\xcf\xf0\xe8\xe2\xe5\xf2 \xec\xe8\xf0 ";
    EXPECT_EQ(kind(dir, latin1), DataKind::Text);
    EXPECT_EQ(kind(dir, windows1251), DataKind::Text);
}

TEST(DataFile, TextIsNotReadAsIdsUnsaid) {
    const TempDir dir;
    std::string text;
    while (text.size() < 400) text += "Once upon a time. ";
    EXPECT_TRUE(has(error_of([&] { kind(dir, text, {.data_format = "uint32"}); }),
                    {"is text, not token ids of 32 bits; leave --data-format=uint32 out"}));
    const Warnings warnings;
    EXPECT_EQ(kind(dir, text, {.data_format = "uint16"}), DataKind::Uint16);
    EXPECT_TRUE(has(warnings.text(), {"looks like text", "--data-format=uint16"}));
}

TEST(DataFile, WhatIsNoJsonLinesIsNamed) {
    const TempDir dir;
    const auto lines = [&](const std::string& content, const std::string& format = "auto") {
        return kind(dir, content, {.data_format = format, .jsonl_field = "text", .skip_bad_lines = true});
    };
    for (const char* format : {"auto", "text"}) {
        EXPECT_TRUE(has(error_of([&] { lines("plain text\nof lines\n", format); }),
                        {"x' is no JSON Lines file", "leave --jsonl-field=text out"}));
        EXPECT_TRUE(has(error_of([&] { lines("{\n  \"text\": \"a\"\n}\n", format); }),
                        {"x' is one JSON object over several lines", "jq -c ."}));
        EXPECT_TRUE(has(error_of([&] { lines("\n [\n{\"text\": \"a\"}]", format); }), {"x' is a JSON array", "jq -c"}));
        EXPECT_EQ(lines("\n{\"text\": \"a\"}\n", format), DataKind::JsonLines);
        EXPECT_EQ(lines("cut\": 1}\n{\"text\": \"a\"}\n", format), DataKind::JsonLines);
        EXPECT_EQ(lines("{\"text\": \"cut\n", format), DataKind::JsonLines) << "its lines are named one by one";
        EXPECT_EQ(lines("\n", format), DataKind::JsonLines);
        EXPECT_EQ(lines("{\"text\": \"" + std::string(3 << 20, 'x') + "\"}", format), DataKind::JsonLines);
    }
}

TEST(DataFile, AdviceIsForTheCommand) {
    const TempDir dir;
    const DataReading tokenize = {.only_text = true};
    const std::string binary = "ab\0c"s;
    EXPECT_TRUE(has(refusal(dir, binary), {"binary", "give --data-format=uint16"}));
    EXPECT_TRUE(
        has(error_of([&] { kind(dir, binary, tokenize); }), {"binary", "train on them as they are, with --data="}));
    EXPECT_TRUE(has(error_of([&] { kind(dir, "letters", tokenize, "train.bin"); }),
                    {"--data-format=text", "train on them as they are, with --data="}));
    const Warnings warnings;
    kind(dir, "letters", tokenize, "other.bin");
    EXPECT_TRUE(has(warnings.text(), {"has no known header", "train on them as they are, with --data="}));
}

TEST(DataFile, WhatIsNoFileIsSaid) {
    const TempDir dir;
    const auto refused = [&](const std::string& path) { return error_of([&] { open_data_file(path, "--data"); }); };
    std::filesystem::create_symlink("b", dir / "a");
    std::filesystem::create_symlink("a", dir / "b");
    EXPECT_TRUE(has(refused(dir / "a"), {"--data: cannot find '", "/a'", "a link that leads back to itself"}));
    EXPECT_TRUE(has(refused(dir / std::string(300, 'n')), {"--data: cannot find '", "check the name"}));
    EXPECT_TRUE(has(refused(dir.path()), {"is a folder; name a file in it"}));
    EXPECT_TRUE(has(refused(dir / "absent"), {"does not exist"}));
    EXPECT_TRUE(has(refused("/dev/null"), {"is not a regular file; save its content"}));
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
    dir.write("c.md", "c");
    EXPECT_EQ(names(FolderUse::All), "README a.txt b.txt.gz c.md ");
    EXPECT_EQ(data_paths(dir / "{*.md,*.txt,*.txt.gz,README}", "--data").size(), 4U);
    dir.write("d.jsonl", "{}");
    dir.write("e", std::string(100, '\0'));
    EXPECT_TRUE(has(error_of([&] { names(FolderUse::All); }),
                    {"several kinds", "/{*.md,*.txt,*.txt.gz}'", "/*.jsonl'", "/{README,e}'"}));
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
