#include "llmc/base/rng.h"
#include "llmc/io/hf_model.h"
#include "llmc/io/llmc_model.h"
#include "tests/io/temp_dir.h"

#include <gtest/gtest.h>

#include <cstring>
#include <numeric>

namespace llmc {
namespace {

struct Sizes {
    int32_t maxT = 5, V = 61, L = 2, NH = 3, C = 12, Vp = 128;
};

/// The bytes of a file, written here from the format's description alone: every tensor for all layers, one after the
/// other. Element i of the file is the i-th of a random sequence, or 0 in the padding rows.
std::string file_bytes(int32_t version, const Sizes& s = {}) {
    const int64_t L = s.L, C = s.C;
    const int64_t counts[] = {s.Vp * C,      s.maxT * C, L * C, L * C, L * 3 * C * C, L * 3 * C,
                              L * C * C,     L * C,      L * C, L * C, L * 4 * C * C, L * 4 * C,
                              L * C * 4 * C, L * C,      C,     C};
    const int64_t count = std::accumulate(std::begin(counts), std::end(counts), int64_t{0});
    std::vector<float> values(static_cast<size_t>(count));
    fill_normal(values.data(), count, 0.3f, 11, RngStream::Test, 0);
    std::fill(values.begin() + s.V * C, values.begin() + s.Vp * C, 0.0f);
    std::string bytes(1024, '\0');
    const int32_t header[] = {20240326, version, s.maxT, s.V, s.L, s.NH, s.C, s.Vp};
    std::memcpy(bytes.data(), header, sizeof header);
    for (const float value : values) {
        const bf16 rounded = to_bf16(value);
        bytes += version == 5 ? std::string(reinterpret_cast<const char*>(&rounded), 2)
                              : std::string(reinterpret_cast<const char*>(&value), 4);
    }
    return bytes;
}

float element(const std::string& bytes, int64_t index) {
    float value = 0;
    std::memcpy(&value, bytes.data() + 1024 + 4 * index, 4);
    return value;
}

void set_field(std::string& bytes, size_t index, int32_t value) { std::memcpy(bytes.data() + 4 * index, &value, 4); }

std::string error_for(const std::string& bytes) {
    const TempDir dir;
    const std::string path = dir.write("m.bin", bytes);
    const std::string message = error_of([&] { LlmcModel model(path); });
    EXPECT_TRUE(has(message, {path}));
    return message;
}

TEST(LlmcModel, ReadsTheTensorsOfEveryLayer) {
    const TempDir dir;
    const std::string bytes = file_bytes(3);
    const LlmcModel file(dir.write("gpt2_tiny.bin", bytes));
    const ModelConfig& config = file.model().config;
    EXPECT_EQ(config.name, "gpt2_tiny");
    EXPECT_EQ(config.maxT, 5);
    EXPECT_EQ(config.V, 61);
    EXPECT_EQ(config.HD, 4);
    EXPECT_EQ(config.F, 48);
    EXPECT_EQ(file.padded_vocab_size(), 128);
    const auto values = [&](const char* name) { return file.values(file.model().find_parameter(name)); };
    EXPECT_EQ(values("wte").size(), 61u * 12);
    EXPECT_EQ(values("wte")[7], element(bytes, 7));
    const int64_t wpe = 128 * 12, ln1w = wpe + 5 * 12, qkvw = ln1w + 4 * 12, qkvb = qkvw + 2 * 36 * 12;
    EXPECT_EQ(values("wpe")[3], element(bytes, wpe + 3));
    EXPECT_EQ(values("layers.1.ln1_weight")[2], element(bytes, ln1w + 12 + 2));
    EXPECT_EQ(values("layers.1.qkv_weight")[35 * 12 + 1], element(bytes, qkvw + 36 * 12 + 35 * 12 + 1));
    EXPECT_EQ(values("layers.0.qkv_bias")[35], element(bytes, qkvb + 35));
    EXPECT_EQ(values("lnf_bias")[11], element(bytes, (static_cast<int64_t>(bytes.size()) - 1024) / 4 - 1));
}

TEST(LlmcModel, BothVersionsComeBackByteForByte) {
    const TempDir dir;
    for (const int32_t version : {3, 5}) {
        for (const int32_t Vp : {61, 64, 128, 192}) {
            Sizes sizes;
            sizes.Vp = Vp;
            const std::string bytes = file_bytes(version, sizes);
            const LlmcModel file(dir.write("a.bin", bytes));
            write_llmc_model(dir / "b.bin", file, version == 5 ? DType::BF16 : DType::F32);
            EXPECT_TRUE(slurp(dir / "b.bin") == bytes) << version << " " << Vp;
        }
    }
}

TEST(LlmcModel, AModelFromElsewhereIsPaddedAsLlmcDoes) {
    const TempDir dir;
    const HfModel gpt2("tests/golden/hf/gpt2");
    write_llmc_model(dir / "m.bin", gpt2, DType::F32);
    const LlmcModel file(dir / "m.bin");
    EXPECT_EQ(file.padded_vocab_size(), 128);
    for (size_t i = 0; i < gpt2.model().parameters.size(); ++i) {
        EXPECT_EQ(file.values(static_cast<int>(i)), gpt2.values(static_cast<int>(i)))
            << gpt2.model().parameters[i].name;
    }
}

TEST(LlmcModel, RefusesOtherArchitectures) {
    const TempDir dir;
    const HfModel llama("tests/golden/hf/llama");
    EXPECT_TRUE(has(error_of([&] { write_llmc_model(dir / "m.bin", llama, DType::F32); }), {"--format", "LLaMA"}));
    EXPECT_FALSE(std::filesystem::exists(dir / "m.bin"));
}

TEST(LlmcModel, PaddingRowsThatAreNotZeroAreDropped) {
    const TempDir dir;
    std::string bytes = file_bytes(3);
    bytes[1024 + 4 * 61 * 12] = 1;
    const LlmcModel file(dir.write("a.bin", bytes));
    write_llmc_model(dir / "b.bin", file, DType::F32);
    EXPECT_TRUE(slurp(dir / "b.bin") == file_bytes(3));
}

TEST(LlmcModel, NamesWhatIsWrongWithAFile) {
    const std::string good = file_bytes(3);
    const auto changed = [&](size_t index, int32_t value) {
        std::string bytes = good;
        set_field(bytes, index, value);
        return error_for(bytes);
    };
    EXPECT_TRUE(has(changed(0, 20240327), {"not an llm.c model file"}));
    EXPECT_TRUE(has(changed(1, 1), {"version 1", "3 (fp32)", "5 (bf16)"}));
    EXPECT_TRUE(has(changed(1, 5), {"too long"}));
    EXPECT_TRUE(has(changed(4, 3), {"truncated"}));
    EXPECT_TRUE(has(changed(4, 0), {"num_layers = 0"}));
    EXPECT_TRUE(has(changed(6, -12), {"channels = -12"}));
    EXPECT_TRUE(has(changed(5, 5), {"5 heads, 12 channels"}));
    EXPECT_TRUE(has(changed(7, 60), {"padded_vocab_size 60, vocab_size 61"}));
    EXPECT_TRUE(has(changed(6, 2147483647), {"channels"}));
    EXPECT_TRUE(has(error_for(good.substr(0, 1000)), {"truncated"}));
    EXPECT_TRUE(has(error_for(good.substr(0, good.size() - 1)), {"truncated"}));
    EXPECT_TRUE(has(error_for(good + "x"), {"too long"}));
    EXPECT_TRUE(has(error_for("abc"), {"not an llm.c model file"}));
}

}  // namespace
}  // namespace llmc
