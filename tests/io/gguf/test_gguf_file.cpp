#include "llmc/io/gguf/gguf_file.h"
#include "tests/io/file_limit.h"
#include "tests/io/gguf/gguf_reader.h"

#include <gtest/gtest.h>

namespace llmc {
namespace {

TEST(GgufFile, WhatIsWrittenIsRead) {
    const TempDir dir;
    GgufMetadata metadata;
    metadata.add_text("general.architecture", "llama");
    metadata.add_count("general.alignment", 32);
    metadata.add_number("a.number", 1e-5);
    metadata.add_flag("a.flag", true);
    metadata.add_flag("no.flag", false);
    metadata.add_texts("a.texts", std::vector<std::string>{"one", "", "\xC4\xA0two"});
    metadata.add_texts("a.empty", std::vector<std::string>{});
    metadata.add_numbers("a.numbers", std::vector<float>{1.5f, -2});
    metadata.add_integers("a.integers", std::vector<int32_t>{-1, 7});
    metadata.add_bytes("a.bytes", std::string("\x00\xFF", 2));
    std::vector<float> vector(5), matrix(2 * 64), half(3 * 3);
    for (size_t i = 0; i < matrix.size(); ++i) matrix[i] = static_cast<float>(i % 64) - 20;
    for (size_t i = 0; i < vector.size(); ++i) vector[i] = static_cast<float>(i) / 3;
    for (size_t i = 0; i < half.size(); ++i) half[i] = static_cast<float>(i) / 8;
    const std::vector<GgufTensor> tensors = {{"v", GgufType::F32, 1, 5, true},
                                             {"m", GgufType::Q8_0, 2, 64},
                                             {"h", GgufType::F16, 3, 3},
                                             {"b", GgufType::BF16, 3, 3}};
    GgufWriter writer(dir / "x.gguf", metadata, tensors);
    std::vector<std::byte> bytes(2 * 68);
    writer.append(std::as_bytes(std::span(vector)));
    encode(GgufType::Q8_0, matrix, bytes.data());
    writer.append(std::span(bytes).first(68));
    writer.append(std::span(bytes).subspan(68));
    for (const GgufType type : {GgufType::F16, GgufType::BF16}) {
        bytes.resize(18);
        encode(type, half, bytes.data());
        writer.append(bytes);
    }
    const int64_t total = writer.total_bytes();
    writer.close();
    EXPECT_EQ(total, GgufWriter::bytes_needed(metadata, tensors));

    const GgufReader file(dir / "x.gguf");
    EXPECT_EQ(static_cast<int64_t>(file.file_end), total);
    EXPECT_EQ(file.string("general.architecture"), "llama");
    EXPECT_EQ(file.real("a.number"), static_cast<double>(1e-5f));
    EXPECT_TRUE(file.flag("a.flag"));
    EXPECT_FALSE(file.flag("no.flag"));
    EXPECT_EQ(file.strings("a.texts"), (std::vector<std::string>{"one", "", "\xC4\xA0two"}));
    EXPECT_TRUE(file.strings("a.empty").empty());
    EXPECT_EQ(file.reals("a.numbers"), (std::vector<double>{1.5, -2}));
    EXPECT_EQ(file.integers("a.integers"), (std::vector<int64_t>{-1, 7}));
    EXPECT_EQ(file.order, (std::vector<std::string>{"v", "m", "h", "b"}));
    EXPECT_EQ(file.tensors.at("v").dims, (std::vector<uint64_t>{5}));
    EXPECT_EQ(file.tensors.at("m").dims, (std::vector<uint64_t>{64, 2}));
    EXPECT_EQ(file.tensors.at("v").values(), std::vector<double>(vector.begin(), vector.end()));
    EXPECT_EQ(file.tensors.at("h").values(), std::vector<double>(half.begin(), half.end()));
    EXPECT_EQ(file.tensors.at("b").values(), std::vector<double>(half.begin(), half.end()));
    const std::vector<double> levels = file.tensors.at("m").values();
    for (size_t i = 0; i < matrix.size(); ++i) {  // Half a level, and what the scale loses as a half.
        EXPECT_NEAR(levels[i], matrix[i], 43.0 / 127 / 2 + 43 * 0x1p-11) << i;
    }
}

TEST(GgufFile, AFullDiskLeavesNothingAndAnUnfinishedFileNeither) {
    const TempDir dir;
    const std::vector<GgufTensor> tensors = {{"m", GgufType::F32, 1000, 100}};
    const std::vector<std::byte> bytes(400'000);
    const std::string message = error_with_file_limit(100'000, [&] {
        GgufWriter writer(dir / "full.gguf", {}, tensors);
        writer.append(bytes);
    });
    EXPECT_TRUE(has(message, {"full.gguf", "the unfinished file was removed"}));
    EXPECT_FALSE(std::filesystem::exists(dir / "full.gguf"));
    { GgufWriter writer(dir / "unfinished.gguf", {}, tensors); }
    EXPECT_FALSE(std::filesystem::exists(dir / "unfinished.gguf"));
}

}  // namespace
}  // namespace llmc
