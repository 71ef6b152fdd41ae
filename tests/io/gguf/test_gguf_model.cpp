// Files of the golden models and of random ones, read back by the reader of the tests.
#include "llmc/io/gguf/gguf_model.h"
#include "llmc/io/hf_model.h"
#include "tests/io/file_limit.h"
#include "tests/io/gguf/gguf_reader.h"

#include <gtest/gtest.h>

#include <functional>

namespace llmc {
namespace {

const std::string kGolden = "tests/golden/hf/";

/// Random weights; some of them may be replaced.
class RandomWeights final : public WeightSource {
  public:
    explicit RandomWeights(const ModelConfig& config) : WeightSource(make_model(config)) {}
    void read(int parameter, std::span<float> out) const override {
        uint32_t state = static_cast<uint32_t>(parameter) * 7919 + 1;
        for (float& x : out) {
            state = state * 1664525 + 1013904223;
            x = static_cast<float>(state >> 8) / 16777216 - 0.5f;
        }
        if (change) change(parameter, out);
    }
    std::string describe() const override { return "random weights"; }
    std::function<void(int, std::span<float>)> change;
};

ModelConfig small(const std::string& name) {
    ModelConfig config = preset(name);
    config.maxT = 64;
    return config;
}

GgufReader written(const WeightSource& weights, GgufType type) {
    const TempDir dir;
    write_gguf_model(dir / "x.gguf", weights, type, {});
    return GgufReader(dir / "x.gguf");
}

std::vector<double> values_of(const WeightSource& weights, const std::string& name) {
    const std::vector<float> values = weights.values(weights.model().find_parameter(name));
    return {values.begin(), values.end()};
}

TEST(GgufModel, Gpt2InFp32IsTheModelItself) {
    const HfModel gpt2(kGolden + "gpt2");
    const GgufReader file = written(gpt2, GgufType::F32);
    EXPECT_EQ(file.string("general.architecture"), "gpt2");
    EXPECT_EQ(file.string("general.name"), "gpt2");
    EXPECT_EQ(file.count("general.file_type"), 0u);
    EXPECT_FALSE(file.has("general.license"));
    EXPECT_EQ(file.count("gpt2.context_length"), 20u);
    EXPECT_EQ(file.count("gpt2.embedding_length"), 24u);
    EXPECT_EQ(file.count("gpt2.attention.head_count"), 3u);
    EXPECT_EQ(file.count("gpt2.block_count"), 2u);
    EXPECT_EQ(file.count("gpt2.vocab_size"), 61u);
    EXPECT_EQ(file.real("gpt2.attention.layer_norm_epsilon"), static_cast<double>(1e-5f));
    EXPECT_EQ(file.string("tokenizer.ggml.model"), "none");
    EXPECT_EQ(file.tensors.size(), gpt2.model().parameters.size());
    const std::pair<const char*, const char*> names[] = {{"token_embd.weight", "wte"},
                                                         {"position_embd.weight", "wpe"},
                                                         {"output_norm.bias", "lnf_bias"},
                                                         {"blk.1.attn_qkv.weight", "layers.1.qkv_weight"},
                                                         {"blk.1.attn_qkv.bias", "layers.1.qkv_bias"},
                                                         {"blk.0.ffn_up.weight", "layers.0.fc_weight"},
                                                         {"blk.0.ffn_down.bias", "layers.0.fc_proj_bias"}};
    for (const auto& [theirs, ours] : names) {
        EXPECT_EQ(file.tensors.at(theirs).values(), values_of(gpt2, ours)) << theirs;
    }
    EXPECT_EQ(file.tensors.at("token_embd.weight").dims, (std::vector<uint64_t>{24, 61}));
    EXPECT_EQ(file.tensors.at("blk.1.attn_qkv.weight").dims, (std::vector<uint64_t>{24, 72}));
}

TEST(GgufModel, LlamaHasItsRowsInTheOrderOfTheFormat) {
    const HfModel llama(kGolden + "llama");
    const ModelConfig& config = llama.model().config;
    const GgufReader file = written(llama, GgufType::F32);
    EXPECT_EQ(file.count("llama.attention.head_count_kv"), static_cast<uint64_t>(config.NKV));
    EXPECT_EQ(file.count("llama.attention.key_length"), static_cast<uint64_t>(config.HD));
    EXPECT_EQ(file.count("llama.rope.dimension_count"), static_cast<uint64_t>(config.HD));
    EXPECT_EQ(file.real("llama.rope.freq_base"), static_cast<double>(static_cast<float>(config.rope_theta)));
    EXPECT_FALSE(config.tied);
    EXPECT_EQ(file.tensors.at("output.weight").values(), values_of(llama, "lm_head"));
    const std::vector<double> qkv = values_of(llama, "layers.1.qkv_weight");
    const std::vector<double> q = file.tensors.at("blk.1.attn_q.weight").values();
    const auto C = static_cast<size_t>(config.C), HD = static_cast<size_t>(config.HD);
    for (size_t head = 0; head < static_cast<size_t>(config.NH); ++head) {
        for (size_t half = 0; half < 2; ++half) {
            for (size_t i = 0; i < HD / 2; ++i) {
                const size_t ours = head * HD + half * HD / 2 + i, theirs = head * HD + 2 * i + half;
                for (size_t c = 0; c < C; ++c) ASSERT_EQ(q[theirs * C + c], qkv[ours * C + c]) << head << " " << i;
            }
        }
    }
    const std::vector<double> up = file.tensors.at("blk.0.ffn_up.weight").values();
    const std::vector<double> gate_up = values_of(llama, "layers.0.gate_up_weight");
    EXPECT_TRUE(std::equal(up.begin(), up.end(), gate_up.begin() + static_cast<std::ptrdiff_t>(gate_up.size() / 2)));
}

TEST(GgufModel, EveryTypeKeepsItsRounding) {
    const RandomWeights weights(small("llama-nano"));
    const std::vector<double> exact = values_of(weights, "layers.2.att_proj_weight");
    for (const auto& [name, tolerance] : {std::pair("f16", 0x1p-12), {"bf16", 0x1p-9}, {"q8_0", 0.5 / 254 + 0x1p-11}}) {
        const GgufReader file = written(weights, gguf_type(name));
        EXPECT_EQ(file.count("general.file_type"), facts_of(gguf_type(name)).file_type);
        EXPECT_EQ(file.has("general.quantization_version"), std::string(name) == "q8_0");
        const std::vector<double> rounded = file.tensors.at("blk.2.attn_output.weight").values();
        for (size_t i = 0; i < exact.size(); ++i) ASSERT_NEAR(rounded[i], exact[i], tolerance) << name << " " << i;
        EXPECT_NE(rounded, exact) << name;
        EXPECT_EQ(file.tensors.at("blk.2.attn_norm.weight").type, 0u);
        EXPECT_EQ(file.tensors.at("blk.2.attn_norm.weight").values(), values_of(weights, "layers.2.ln1_weight"));
    }
    const RandomWeights gpt2(small("gpt2-nano"));
    EXPECT_EQ(written(gpt2, GgufType::Q8_0).tensors.at("position_embd.weight").type, 0u);
}

TEST(GgufModel, ColumnsThatAreNoWholeBlocksAreF16) {
    ModelConfig config = small("llama-nano");
    config.F = 100;
    const GgufReader file = written(RandomWeights(config), GgufType::Q8_0);
    EXPECT_EQ(file.tensors.at("blk.0.ffn_down.weight").type, 1u);
    EXPECT_EQ(file.tensors.at("blk.0.ffn_up.weight").type, 8u);
    EXPECT_EQ(file.count("general.file_type"), 7u);
}

TEST(GgufModel, RopeScalingIsSaid) {
    ModelConfig config = small("llama-nano");
    config.rope_scaling = {RopeScaling::Kind::Linear, 4};
    const GgufReader linear = written(RandomWeights(config), GgufType::F16);
    EXPECT_EQ(linear.string("llama.rope.scaling.type"), "linear");
    EXPECT_EQ(linear.real("llama.rope.scaling.factor"), 4);
    EXPECT_FALSE(linear.tensors.contains("rope_freqs.weight"));
    config.rope_scaling = {RopeScaling::Kind::Llama3, 8, 1, 4, 32};
    const GgufReader llama3 = written(RandomWeights(config), GgufType::Q8_0);
    EXPECT_FALSE(llama3.has("llama.rope.scaling.type"));
    EXPECT_EQ(llama3.tensors.at("rope_freqs.weight").type, 0u);
    EXPECT_EQ(llama3.tensors.at("rope_freqs.weight").dims, (std::vector<uint64_t>{16}));
    EXPECT_EQ(llama3.tensors.at("rope_freqs.weight").values().back(), 8);
}

TEST(GgufModel, AValueThatATypeCannotHoldIsNamed) {
    RandomWeights weights(small("llama-nano"));
    const int parameter = weights.model().find_parameter("layers.1.gate_up_weight");
    weights.change = [&](int index, std::span<float> out) {
        if (index == parameter) out[5] = -70000;
    };
    const TempDir dir;
    const std::string message = error_of([&] { write_gguf_model(dir / "x.gguf", weights, GgufType::F16, {}); });
    EXPECT_TRUE(has(message, {"--gguf-type", "blk.1.ffn_gate.weight", "-70000", "f16", "f32"}));
    EXPECT_FALSE(std::filesystem::exists(dir / "x.gguf"));
    const std::vector<double> values = written(weights, GgufType::F32).tensors.at("blk.1.ffn_gate.weight").values();
    EXPECT_EQ(values[5], -70000);
    EXPECT_NEAR(written(weights, GgufType::Q8_0).tensors.at("blk.1.ffn_gate.weight").values()[5], -70000, 35);
}

TEST(GgufModel, AFullDiskLeavesNothing) {
    const TempDir dir;
    const RandomWeights weights(small("llama-nano"));
    const std::string message =
        error_with_file_limit(200'000, [&] { write_gguf_model(dir / "x.gguf", weights, GgufType::F16, {}); });
    EXPECT_TRUE(has(message, {"x.gguf", "the unfinished file was removed"}));
    EXPECT_FALSE(std::filesystem::exists(dir / "x.gguf"));
}

}  // namespace
}  // namespace llmc
