#include "llmc/io/gguf/gguf_architecture.h"
#include "llmc/model/builder.h"
#include "tests/io/temp_dir.h"

#include <gtest/gtest.h>

#include <set>

namespace llmc {
namespace {

ModelConfig small(const std::string& name) {
    ModelConfig config = preset(name);
    config.maxT = 64;
    return config;
}

/// A llama block with further parameters, as other families have them.
Model llama_with(const std::vector<std::pair<std::string, int64_t>>& vectors, const ModelConfig& config) {
    const Model llama = make_model(config);
    ModelBuilder builder(config);
    for (int i = 0; i < llama.parameters_per_layer; ++i) {
        const ParameterRow& row = llama.parameters[static_cast<size_t>(llama.first_layer_parameter + i)];
        const std::string leaf = row.name.substr(row.name.rfind('.') + 1);
        row.cols == 1 ? builder.layer_vector(leaf, row.rows, Init::Ones)
                      : builder.layer_matrix(leaf, row.rows, row.cols, 0.02);
    }
    for (const auto& [name, size] : vectors) builder.layer_vector(name, size, Init::Zeros);
    for (const ActivationRow& row : llama.activations) builder.activation(row.name, row.columns, row.role);
    for (const OpRow& row : llama.block) builder.op(row);
    Model model = builder.finish(/*learned_positions=*/false, /*norm_bias=*/false);
    model.norm = llama.norm;
    return model;
}

TEST(GgufArchitecture, IsChosenByWhatTheModelHas) {
    const ModelConfig llama = small("llama-nano");
    EXPECT_STREQ(gguf_architecture_of(make_model(small("gpt2-nano"))).name, "gpt2");
    EXPECT_STREQ(gguf_architecture_of(make_model(llama)).name, "llama");
    EXPECT_STREQ(gguf_architecture_of(llama_with({{"qkv_bias", llama.QKV()}}, llama)).name, "qwen2");
    EXPECT_STREQ(
        gguf_architecture_of(llama_with({{"q_norm_weight", llama.HD}, {"k_norm_weight", llama.HD}}, llama)).name,
        "qwen3");
    ModelConfig wide = llama;  // llama.cpp's qwen2 has heads that share the channels.
    wide.HD = 64;
    EXPECT_STREQ(gguf_architecture_of(llama_with({{"qkv_bias", wide.QKV()}}, wide)).name, "llama");
    EXPECT_STREQ(gguf_architecture_of(llama_with({{"fc_proj_bias", llama.C}}, llama)).name, "llama");
}

TEST(GgufArchitecture, AParameterWithoutAPlaceIsNamed) {
    const ModelConfig llama = small("llama-nano");
    const std::string message = error_of([&] { gguf_architecture_of(llama_with({{"sink_weight", 7}}, llama)); });
    EXPECT_TRUE(has(message, {"--format=gguf", "layers.0.sink_weight", "--format=hf"}));
    ModelConfig narrow = small("gpt2-nano");
    narrow.HD = 16;
    EXPECT_TRUE(has(error_of([&] { gguf_architecture_of(make_model(narrow)); }), {"--format=gguf", "GPT-2"}));
}

TEST(GgufArchitecture, PartsCoverEveryRowOnce) {
    for (const char* name : {"gpt2-nano", "llama-nano"}) {
        ModelConfig config = small(name);
        config.tied = config.family == Family::Gpt2;
        const Model model = make_model(config);
        const GgufArchitecture& architecture = gguf_architecture_of(model);
        std::set<std::pair<int, int64_t>> rows;
        std::set<std::string> names;
        for (const GgufPart& part : gguf_parts(architecture, model)) {
            EXPECT_TRUE(names.insert(part.name).second) << part.name;
            for (int64_t row = 0; row < part.rows; ++row) {
                EXPECT_TRUE(rows.emplace(part.parameter, part.source_row(row)).second) << part.name << " " << row;
            }
        }
        int64_t expected = 0;
        for (const ParameterRow& row : model.parameters) expected += row.used_rows;
        EXPECT_EQ(static_cast<int64_t>(rows.size()), expected);
        EXPECT_EQ(names.contains("output.weight"), !config.tied);
        EXPECT_TRUE(names.contains("blk.3.ffn_down.weight"));
    }
}

TEST(GgufArchitecture, LlamaHasTheTwoHalvesOfAHeadInterleaved) {
    const Model model = make_model(small("llama-nano"));  // 4 heads of 32, 2 of them for keys.
    for (const GgufPart& part : gguf_parts(gguf_architecture_of(model), model)) {
        if (part.name == "blk.1.attn_q.weight") {
            const int64_t expected[] = {0, 16, 1, 17, 2, 18};
            for (int64_t row = 0; row < 6; ++row) EXPECT_EQ(part.source_row(row), expected[row]);
            EXPECT_EQ(part.source_row(32), 32);
            EXPECT_EQ(part.source_row(33), 48);
            EXPECT_EQ(part.source_row(127), 127);
        }
        if (part.name == "blk.1.attn_k.weight") {
            EXPECT_EQ(part.source_row(0), 128);
            EXPECT_EQ(part.source_row(1), 144);
        }
        if (part.name == "blk.1.attn_v.weight") {
            EXPECT_EQ(part.source_row(1), 193);
        }
    }
}

}  // namespace
}  // namespace llmc
