// Models of the families: which architecture of llama.cpp each gets, with which rows and rotary positions; and what
// llama.cpp has nothing for. That llama.cpp computes transformers' loss of them: dev/oracle/gguf_check.py.
#include "llmc/io/gguf/gguf_architecture.h"
#include "llmc/io/gguf/gguf_model.h"
#include "llmc/io/hf_model.h"
#include "tests/io/gguf/gguf_reader.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <numbers>

namespace llmc {
namespace {

const std::string kGolden = "tests/golden/";

struct FamilyCase {
    std::string folder;
    std::string architecture;
    bool interleaves = false;  ///< Rows of queries and keys.
};

void PrintTo(const FamilyCase& family, std::ostream* out) { *out << family.folder; }

const std::vector<FamilyCase> kFamilies = {{"families/gpt2_untied", "gpt2"},
                                           {"families/mistral", "llama", true},
                                           {"families/phi3", "llama", true},
                                           {"families/qwen2", "qwen2"},
                                           {"families/qwen2_head_size", "llama", true},
                                           {"families/qwen2_llama3", "llama", true},
                                           {"families/qwen2_yarn", "qwen2"},
                                           {"families/qwen3_yarn", "qwen3"},
                                           {"families/smollm3", "smollm3", true},
                                           {"families/smollm3_yarn", "smollm3", true},
                                           {"kinds/llama_biases", "llama", true},
                                           {"kinds/llama_yarn", "llama", true},
                                           {"kinds/qwen3_norms", "qwen3"}};

class GgufFamilyTest : public testing::TestWithParam<FamilyCase> {
  protected:
    GgufFamilyTest() : model_(kGolden + GetParam().folder), file_(written(model_)) {}

    static GgufReader written(const HfModel& model) {
        const TempDir dir;
        write_gguf_model(dir / "x.gguf", model, GgufType::F32, {});
        return GgufReader(dir / "x.gguf");
    }
    const ModelConfig& config() const { return model_.model().config; }
    std::string key(const std::string& name) const { return GetParam().architecture + "." + name; }
    double real(const std::string& name, double otherwise) const {
        return file_.has(key(name)) ? file_.real(key(name)) : otherwise;
    }
    std::vector<double> ours(const std::string& name) const {
        const std::vector<float> values = model_.values(model_.model().find_parameter(name));
        return {values.begin(), values.end()};
    }

    const HfModel model_;
    const GgufReader file_;
};

TEST_P(GgufFamilyTest, HasItsArchitectureAndSizes) {
    EXPECT_EQ(file_.string("general.architecture"), GetParam().architecture);
    EXPECT_EQ(file_.count(key("block_count")), static_cast<uint64_t>(config().L));
    EXPECT_EQ(file_.count(key("attention.head_count_kv")), static_cast<uint64_t>(config().NKV));
    EXPECT_EQ(file_.count(key("context_length")), static_cast<uint64_t>(config().maxT));
    if (config().is_rotary()) {
        EXPECT_EQ(file_.count(key("attention.key_length")), static_cast<uint64_t>(config().HD));
    }
    EXPECT_EQ(file_.tensors.contains("output.weight"), !config().tied);
    uint64_t elements = 0, expected = 0;
    for (const auto& [name, tensor] : file_.tensors) elements += name == "rope_freqs.weight" ? 0 : tensor.elements();
    for (const ParameterRow& row : model_.model().parameters) {
        expected += static_cast<uint64_t>(row.used_rows * row.cols);
    }
    EXPECT_EQ(elements, expected);
}

/// Our row of a head that llama.cpp has as row `row`.
int64_t row_of_head(bool interleaves, int64_t row, int64_t HD) {
    return interleaves ? row / 2 + row % 2 * (HD / 2) : row;
}

TEST_P(GgufFamilyTest, QueriesAndKeysAreInTheOrderOfTheArchitecture) {
    if (!config().is_rotary()) return;
    const int64_t HD = config().HD;
    for (const std::string kind : {"weight", "bias"}) {
        if (model_.model().find_parameter("layers.1.qkv_" + kind) == kNone) continue;
        const std::vector<double> qkv = ours("layers.1.qkv_" + kind);
        const int64_t cols = kind == "bias" ? 1 : config().C;
        int64_t first = 0;
        for (const auto& [name, heads] : {std::pair("q", config().NH), {"k", config().NKV}, {"v", config().NKV}}) {
            const std::vector<double> part = file_.tensors.at(fmt::format("blk.1.attn_{}.{}", name, kind)).values();
            ASSERT_EQ(part.size(), static_cast<size_t>(heads * HD * cols));
            const bool interleaves = GetParam().interleaves && *name != 'v';
            for (int64_t i = 0; i < static_cast<int64_t>(part.size()); ++i) {
                const int64_t row = i / cols, source = first + row / HD * HD + row_of_head(interleaves, row % HD, HD);
                ASSERT_EQ(part[static_cast<size_t>(i)], qkv[static_cast<size_t>(source * cols + i % cols)])
                    << name << " " << kind << " " << i;
            }
            first += heads * HD;
        }
    }
}

/// llama.cpp's rotary positions, from nothing but the file: radians per position of each pair, and the magnitude.
TEST_P(GgufFamilyTest, RotaryPositionsAreTheModels) {
    if (!config().is_rotary()) return;
    const auto columns = static_cast<double>(file_.count(key("rope.dimension_count")));
    const double base = file_.real(key("rope.freq_base")), factor = real("rope.scaling.factor", 1);
    const bool is_yarn = file_.has(key("rope.scaling.type")) && file_.string(key("rope.scaling.type")) == "yarn";
    double first = 0, last = 0, magnitude = real("rope.scaling.attn_factor", 1);
    if (is_yarn) {
        const auto original = static_cast<double>(file_.count(key("rope.scaling.original_context_length")));
        const auto pair_at = [&](double turns) {
            return columns * std::log(original / (turns * 2 * std::numbers::pi)) / (2 * std::log(base));
        };
        first = std::max(0.0, std::floor(pair_at(file_.real(key("rope.scaling.yarn_beta_fast")))));
        last = std::min(columns - 1, std::ceil(pair_at(file_.real(key("rope.scaling.yarn_beta_slow")))));
        magnitude *= 1 + 0.1 * std::log(factor);
    }
    std::vector<double> divisors(static_cast<size_t>(config().HD / 2), 1);
    if (file_.tensors.contains("rope_freqs.weight")) {
        EXPECT_EQ(GetParam().architecture, "llama") << "the others take no such tensor";
        divisors = file_.tensors.at("rope_freqs.weight").values();
    }
    const std::vector<double> expected = rope_frequencies(config(), config().maxT);
    ASSERT_EQ(divisors.size(), expected.size());
    for (size_t i = 0; i < expected.size(); ++i) {
        const double frequency = std::pow(base, -2 * static_cast<double>(i) / columns) / divisors[i];
        const double ramp = std::clamp((static_cast<double>(i) - first) / std::max(0.001, last - first), 0.0, 1.0);
        const double stretched = frequency / factor;
        EXPECT_NEAR(is_yarn ? frequency * (1 - ramp) + stretched * ramp : stretched, expected[i], 1e-6 * expected[i])
            << i;
    }
    EXPECT_NEAR(magnitude, config().rope_scaling.attention_factor, 1e-6);
}

INSTANTIATE_TEST_SUITE_P(Families, GgufFamilyTest, testing::ValuesIn(kFamilies),
                         [](const auto& info) { return info.param.folder.substr(info.param.folder.find('/') + 1); });

std::string refusal(const std::string& folder, const std::function<void(ModelConfig*)>& change = {}) {
    ModelConfig config = HfModel(kGolden + folder).model().config;
    if (change) change(&config);
    const Model model = make_model(config);
    return error_of([&] { gguf_architecture_of(model); });
}

TEST(GgufFamilies, WhatLlamaCppLacksIsNamed) {
    const std::pair<const char*, const char*> rows[] = {
        {"kinds/gpt2_exact_gelu", "activation_function"}, {"kinds/gpt2_score_scale", "scale_attn_weights"},
        {"kinds/llama_dynamic", "rope_type dynamic"},     {"kinds/mistral_window", "windows of 6 tokens"},
        {"kinds/phi3_short", "rope_type longrope"},       {"kinds/qwen2_windows", "sliding_window"}};
    for (const auto& [folder, words] : rows) {
        EXPECT_TRUE(has(refusal(folder), {"--format=gguf", words, "--format=hf"})) << folder;
    }
    ModelConfig wide = HfModel(kGolden + "kinds/qwen2_windows").model().config;
    wide.window = wide.maxT;
    EXPECT_STREQ(gguf_architecture_of(make_model(wide)).name, "llama") << "a window that hides nothing";
    const auto without_window = [](ModelConfig* config) { config->window = 0, config->window_layers.clear(); };
    EXPECT_TRUE(has(refusal("kinds/smollm3_no_rope", without_window), {"not every fourth (no_rope_layers)"}));
    EXPECT_TRUE(has(refusal("kinds/phi3_long", without_window), {"4 of 8 columns", "partial_rotary_factor"}));
    EXPECT_TRUE(
        has(refusal("kinds/gpt2_score_scale", [](ModelConfig* config) { config->features.scale_scores = true; }),
            {"scale_attn_by_inverse_layer_idx"}));
}

/// llama.cpp fails to load the divisors in an architecture that takes none, and its YaRN is one of whole pairs.
TEST(GgufFamilies, RotaryPositionsThatAnArchitectureHasNotAreNamed) {
    const auto scaled = [](RopeScaling scaling) {
        return [scaling](ModelConfig* config) { config->rope_scaling = scaling; };
    };
    RopeScaling llama3, yarn;
    llama3.kind = RopeScaling::Kind::Llama3, llama3.factor = 4, llama3.original_max_position = 16;
    yarn.kind = RopeScaling::Kind::Yarn, yarn.factor = 2, yarn.original_max_position = 16, yarn.truncate = false;
    for (const std::string folder : {"kinds/qwen3_norms", "families/smollm3"}) {
        EXPECT_TRUE(has(refusal(folder, scaled(llama3)), {"rope_type llama3", "--format=hf"})) << folder;
        EXPECT_TRUE(has(refusal(folder, scaled(yarn)), {"rope_type yarn without truncate"})) << folder;
    }
    yarn.truncate = true, yarn.original_max_position = 1'000'000;
    const auto ends_before_it_begins = [&](ModelConfig* config) {
        config->rope_theta = 4, config->rope_scaling = yarn;
    };
    EXPECT_TRUE(has(refusal("kinds/qwen3_norms", ends_before_it_begins), {"rope_type yarn"}));
    EXPECT_TRUE(has(refusal("families/smollm3", [](ModelConfig* config) { config->features.qkv_bias = true; }),
                    {"smollm3 has no place", "qkv_bias"}));
}

}  // namespace
}  // namespace llmc
