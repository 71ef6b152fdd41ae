#include "llmc/io/unpack.h"

#include "tests/io/packed_file.h"
#include "tests/io/temp_dir.h"

#include <gtest/gtest.h>

namespace llmc {
namespace {

/// Longer than any buffer on the way, and compressible.
std::string long_text() {
    std::string text;
    for (int64_t i = 0; text.size() < (size_t{5} << 20); ++i) text += std::to_string(i * i) + (i % 9 == 0 ? "\n" : " ");
    return text;
}

std::string unpacked(const TempDir& dir, const std::string& packed) {
    const MappedFile file(dir.write("x", packed));
    return std::string(unpack(file, packing_of(file.text()), "--data").text());
}

std::string error_for(const TempDir& dir, const std::string& packed) {
    return error_of([&] { unpacked(dir, packed); });
}

TEST(Unpack, GivesWhatWasPacked) {
    const TempDir dir;
    const std::string text = long_text();
    for (const std::string& content : {text, std::string("short"), std::string()}) {
        EXPECT_EQ(unpacked(dir, gzip_of(content)), content);
        EXPECT_EQ(unpacked(dir, zstd_of(content)), content);
    }
}

TEST(Unpack, SeveralPartsAndPadding) {
    const TempDir dir;
    const std::string text = long_text();
    EXPECT_EQ(unpacked(dir, gzip_of(text) + gzip_of("a") + gzip_of("") + gzip_of("b")), text + "ab");
    EXPECT_EQ(unpacked(dir, zstd_of("a") + zstd_of(text)), "a" + text);
    EXPECT_EQ(unpacked(dir, gzip_of("padded") + std::string(700, '\0')), "padded");
    const std::string skippable("\x53\x2a\x4d\x18\x03\0\0\0xyz", 11);
    EXPECT_EQ(unpacked(dir, skippable + zstd_of("after a note")), "after a note");
}

TEST(Unpack, CutOrDamagedIsAnError) {
    const TempDir dir;
    const std::string text = long_text();
    for (const std::string& packed : {gzip_of(text), zstd_of(text), gzip_of("short"), zstd_of("short")}) {
        for (const size_t left : {packed.size() - 1, packed.size() / 2, size_t{5}}) {
            EXPECT_TRUE(has(error_for(dir, packed.substr(0, left)), {"--data: ", "x'", "ends in the middle"})) << left;
        }
    }
    std::string damaged = gzip_of(text);
    damaged[damaged.size() - 6] ^= 1;  // Its checksum.
    EXPECT_TRUE(has(error_for(dir, damaged), {"gzip", "incorrect data check"}));
    EXPECT_TRUE(has(error_for(dir, gzip_of("a") + "and more"), {"something else follows"}));
    EXPECT_TRUE(has(error_for(dir, zstd_of("a") + "and more"), {"zstd"}));
}

TEST(Unpack, KnowsPackedContent) {
    EXPECT_EQ(packing_of(gzip_of("x")), "gzip");
    EXPECT_EQ(packing_of(zstd_of("x")), "zstd");
    EXPECT_EQ(packing_of("\x1f\x8b"), "");
    EXPECT_EQ(packing_of("text like any other"), "");
    EXPECT_EQ(packing_of(""), "");
}

}  // namespace
}  // namespace llmc
