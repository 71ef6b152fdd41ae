#include "llmc/io/hf_config.h"
#include "tests/io/temp_dir.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <cmath>
#include <functional>

namespace llmc {
namespace {

using nlohmann::json;

const std::string kPath = "m/config.json";

json gpt2() {
    return {{"model_type", "gpt2"}, {"n_layer", 2},      {"n_head", 3},
            {"n_embd", 24},         {"n_positions", 17}, {"vocab_size", 61}};
}

json llama() {
    return {{"model_type", "llama"}, {"num_hidden_layers", 2},        {"num_attention_heads", 6},
            {"hidden_size", 48},     {"intermediate_size", 20},       {"num_key_value_heads", 2},
            {"vocab_size", 67},      {"max_position_embeddings", 64}, {"rms_norm_eps", 1e-6},
            {"rope_theta", 500000}};
}

ModelConfig read(const json& config) { return model_config_from_hf(config.dump(), kPath); }

json with(json config, const std::string& name, const json& value) {
    config[name] = value;
    return config;
}

/// The error for a config.json; it must be a failure (exit code 1) of that file.
std::string error_with(const json& base, const std::string& name, const json& value) {
    try {
        read(with(base, name, value));
    } catch (const Error& error) {
        EXPECT_EQ(error.exit_code(), kExitFailed) << error.what();
        EXPECT_TRUE(has(error.what(), {kPath}));
        return error_of([&] { throw error; });
    }
    ADD_FAILURE() << "accepted: " << name << " = " << value;
    return "";
}

TEST(HfConfig, Gpt2WithItsDefaults) {
    const ModelConfig config = read(gpt2());
    EXPECT_EQ(config.family, Family::Gpt2);
    EXPECT_EQ(config.L, 2);
    EXPECT_EQ(config.C, 24);
    EXPECT_EQ(config.NH, 3);
    EXPECT_EQ(config.NKV, 3);
    EXPECT_EQ(config.HD, 8);
    EXPECT_EQ(config.F, 96);
    EXPECT_EQ(config.V, 61);
    EXPECT_EQ(config.maxT, 17);
    EXPECT_TRUE(config.tied);
    EXPECT_EQ(config.norm_epsilon, 1e-5);
    EXPECT_EQ(read(with(gpt2(), "n_inner", nullptr)).F, 96);
    EXPECT_EQ(read(with(gpt2(), "n_inner", 80)).F, 80);
    EXPECT_EQ(read(with(gpt2(), "activation_function", "gelu_pytorch_tanh")).F, 96);
}

TEST(HfConfig, LlamaWithItsDefaults) {
    const ModelConfig config = read(llama());
    EXPECT_EQ(config.family, Family::Llama);
    EXPECT_EQ(config.NKV, 2);
    EXPECT_EQ(config.HD, 8);
    EXPECT_EQ(config.F, 20);
    EXPECT_FALSE(config.tied);
    EXPECT_EQ(config.norm_epsilon, 1e-6);
    EXPECT_EQ(config.rope_theta, 500000);
    EXPECT_EQ(config.rope_scaling, RopeScaling());
    EXPECT_EQ(read(with(llama(), "head_dim", 16)).HD, 16);
    EXPECT_EQ(read(with(llama(), "head_dim", nullptr)).HD, 8);
    EXPECT_TRUE(read(with(llama(), "tie_word_embeddings", true)).tied);
    json no_kv = llama();
    no_kv.erase("num_key_value_heads");
    EXPECT_EQ(read(no_kv).NKV, 6);
}

TEST(HfConfig, RopeScaling) {
    const json llama3 = {{"rope_type", "llama3"},
                         {"factor", 32.0},
                         {"low_freq_factor", 1.0},
                         {"high_freq_factor", 4.0},
                         {"original_max_position_embeddings", 8192}};
    llmc::RopeScaling expected;
    expected.kind = llmc::RopeScaling::Kind::Llama3;
    expected.factor = 32;
    EXPECT_EQ(read(with(llama(), "rope_scaling", llama3)).rope_scaling, expected);
    const ModelConfig linear = read(with(llama(), "rope_scaling", {{"type", "linear"}, {"factor", 2}}));
    EXPECT_EQ(linear.rope_scaling.kind, llmc::RopeScaling::Kind::Linear);
    EXPECT_EQ(linear.rope_scaling.factor, 2);
    EXPECT_EQ(read(with(llama(), "rope_scaling", {{"rope_type", "default"}})).rope_scaling, llmc::RopeScaling());
    EXPECT_EQ(read(with(llama(), "rope_scaling", nullptr)).rope_scaling, llmc::RopeScaling());
    // The place of later versions of transformers.
    json parameters = llama3;
    parameters["rope_theta"] = 10000.0;
    const ModelConfig later = read(with(llama(), "rope_parameters", parameters));
    EXPECT_EQ(later.rope_scaling, expected);
    EXPECT_EQ(later.rope_theta, 10000);
}

TEST(HfConfig, BothWays) {
    ModelConfig scaled = read(llama());
    scaled.rope_scaling.kind = RopeScaling::Kind::Llama3;
    scaled.rope_scaling.factor = 8, scaled.rope_scaling.original_max_position = 128;
    scaled.HD = 12;
    ModelConfig linear = read(llama());
    linear.rope_scaling.kind = RopeScaling::Kind::Linear;
    linear.rope_scaling.factor = 2.5;
    linear.tied = true;
    for (const ModelConfig& config : {read(gpt2()), read(with(gpt2(), "n_inner", 80)), read(llama()), scaled, linear}) {
        const std::string text = to_hf_config(config, DType::BF16, R"({"eos_token_id":5})");
        EXPECT_EQ(model_config_from_hf(text, kPath), config) << text;
        EXPECT_EQ(json::parse(text)["torch_dtype"], "bfloat16");
        EXPECT_EQ(json::parse(text)["eos_token_id"], 5);
        EXPECT_EQ(json::parse(text)["bos_token_id"], nullptr);
    }
    // transformers before 4.43 takes exactly these two fields, and later ones take them as well.
    EXPECT_EQ(json::parse(to_hf_config(linear, DType::F32, "{}"))["rope_scaling"],
              (json{{"type", "linear"}, {"factor", 2.5}}));
    ModelConfig odd = read(gpt2());
    odd.HD = 16;
    EXPECT_TRUE(has(error_of([&] { to_hf_config(odd, DType::F32, "{}"); }), {"GPT-2", "16"}));
}

TEST(HfConfig, FeaturesOfGpt2) {
    EXPECT_EQ(read(with(gpt2(), "activation_function", "gelu")).features.activation, Activation::GeluExact);
    EXPECT_EQ(read(with(gpt2(), "activation_function", "gelu_fast")).features.activation, Activation::GeluTanh);
    EXPECT_FALSE(read(with(gpt2(), "tie_word_embeddings", false)).tied);
    const ModelConfig scaled =
        read(with(with(gpt2(), "scale_attn_by_inverse_layer_idx", true), "scale_attn_weights", false));
    EXPECT_EQ(scaled.score_scale(0), 1.0f);
    EXPECT_EQ(scaled.score_scale(3), 0.25f);
    EXPECT_EQ(read(gpt2()).score_scale(1), 1.0f / std::sqrt(8.0f));
    json by_class = with(gpt2(), "architectures", {"GPT2LMHeadModel"});
    by_class.erase("model_type");
    EXPECT_EQ(read(by_class).family, Family::Gpt2);
}

/// A LLaMA's configuration with another model_type.
json of_type(const char* type) { return with(llama(), "model_type", type); }

TEST(HfConfig, FamiliesHaveTheirFeaturesAndDefaults) {
    EXPECT_EQ(read(llama()).features, row_of(Family::Llama).features);
    EXPECT_TRUE(read(of_type("qwen2")).features.qkv_bias);
    EXPECT_FALSE(read(of_type("qwen2")).features.att_proj_bias);
    EXPECT_TRUE(read(with(of_type("qwen2"), "attention_bias", false)).features.qkv_bias) << "the field means nothing";
    EXPECT_TRUE(read(of_type("qwen3")).features.qk_norm);
    EXPECT_EQ(read(of_type("qwen3")).HD, 128);
    EXPECT_EQ(read(with(of_type("qwen3"), "head_dim", 16)).HD, 16);
    const ModelConfig biases = read(with(with(llama(), "attention_bias", true), "mlp_bias", true));
    EXPECT_TRUE(biases.features.qkv_bias && biases.features.att_proj_bias && biases.features.mlp_bias);
    EXPECT_FALSE(read(with(of_type("mistral"), "attention_bias", true)).features.qkv_bias);
    json bare = llama();
    for (const char* field : {"max_position_embeddings", "rope_theta", "num_key_value_heads", "rms_norm_eps"}) {
        bare.erase(field);
    }
    bare["num_attention_heads"] = 16;
    const struct {
        const char* type;
        int64_t maxT, NKV;
        double theta, epsilon;
        bool tied;
    } defaults[] = {{"llama", 2048, 16, 1e4, 1e-6, false},  {"mistral", 131072, 8, 1e4, 1e-6, false},
                    {"qwen3", 32768, 32, 1e4, 1e-6, false}, {"smollm3", 32768, 4, 2e6, 1e-6, true},
                    {"phi3", 4096, 16, 1e4, 1e-5, false},   {"qwen2", 32768, 32, 1e4, 1e-6, false}};
    for (const auto& row : defaults) {
        json config = with(bare, "model_type", row.type);
        config["num_attention_heads"] = row.NKV == 32 ? 32 : 16;
        config["hidden_size"] = 64;
        const ModelConfig read_back = read(config);
        EXPECT_EQ(read_back.maxT, row.maxT) << row.type;
        EXPECT_EQ(read_back.NKV, row.NKV) << row.type;
        EXPECT_EQ(read_back.rope_theta, row.theta) << row.type;
        EXPECT_EQ(read_back.norm_epsilon, row.epsilon) << row.type;
        EXPECT_EQ(read_back.tied, row.tied) << row.type;
    }
}

TEST(HfConfig, Windows) {
    EXPECT_EQ(read(of_type("mistral")).window, 4096) << "transformers' own default";
    EXPECT_EQ(read(with(of_type("mistral"), "sliding_window", nullptr)).window, 0);
    EXPECT_EQ(read(with(of_type("mistral"), "sliding_window", 12)).window_of(1), 12);
    EXPECT_EQ(read(with(of_type("phi3"), "sliding_window", 12)).window, 12);
    EXPECT_EQ(read(of_type("phi3")).window, 0);
    EXPECT_EQ(read(with(llama(), "sliding_window", 12)).window, 0) << "LLaMA has no such field";
    json qwen2 = with(of_type("qwen2"), "sliding_window", 9);
    EXPECT_EQ(read(qwen2).window, 0);
    qwen2["use_sliding_window"] = true;
    EXPECT_EQ(read(qwen2).window, 0) << "from layer 28 on";
    EXPECT_EQ(read(with(qwen2, "max_window_layers", 0)).window_layers, std::vector<bool>());
    const ModelConfig upper = read(with(qwen2, "max_window_layers", 1));
    EXPECT_EQ(upper.window_of(0), 0);
    EXPECT_EQ(upper.window_of(1), 9);
    const ModelConfig listed = read(with(qwen2, "layer_types", {"sliding_attention", "full_attention"}));
    EXPECT_EQ(listed.window_of(0), 9);
    EXPECT_EQ(listed.window_of(1), 0);
    EXPECT_TRUE(has(error_with(qwen2, "layer_types", {"sliding_attention"}), {"layer_types", "all layers"}));
    EXPECT_TRUE(has(error_with(qwen2, "layer_types", {"full_attention", "chunked_attention"}), {"layer_types"}));
    EXPECT_TRUE(has(error_with(qwen2, "sliding_window", 0), {"sliding_window", "1 or more"}));
}

TEST(HfConfig, LayersWithoutRotaryPositions) {
    json config = of_type("smollm3");
    config["num_hidden_layers"] = 5;
    const std::vector<bool> fourth = {true, true, true, false, true};
    EXPECT_EQ(read(config).rope_layers, fourth);
    EXPECT_EQ(read(with(config, "no_rope_layer_interval", 9)).rope_layers, std::vector<bool>());
    const ModelConfig listed = read(with(config, "no_rope_layers", {0, 1, 1, 1, 0, 1}));
    EXPECT_FALSE(listed.rotates(0));
    EXPECT_TRUE(listed.rotates(1));
    EXPECT_FALSE(listed.rotates(4));
    EXPECT_TRUE(has(error_with(config, "no_rope_layers", {0, 1}), {"no_rope_layers", "each layer"}));
    EXPECT_TRUE(has(error_with(config, "no_rope_layers", {0, 1, 2, 1, 1}), {"no_rope_layers"}));
    config["use_sliding_window"] = true, config["sliding_window"] = 6;
    EXPECT_EQ(read(config).window_of(3), 6);
    EXPECT_EQ(read(config).window_of(2), 0);
}

json rope(const json& config, const json& scaling) { return with(config, "rope_scaling", scaling); }

TEST(HfConfig, StretchedRope) {
    using Kind = llmc::RopeScaling::Kind;
    const ModelConfig dynamic = read(rope(llama(), {{"type", "dynamic"}, {"factor", 4.0}}));
    EXPECT_EQ(dynamic.rope_scaling.kind, Kind::Dynamic);
    EXPECT_EQ(dynamic.rope_scaling.original_max_position, 64);
    EXPECT_EQ(dynamic.maxT, 256) << "it is for longer sequences";
    const ModelConfig yarn = read(rope(llama(), {{"rope_type", "yarn"}, {"factor", 4.0}}));
    EXPECT_EQ(yarn.rope_scaling.attention_factor, 0.1 * std::log(4.0) + 1);
    EXPECT_EQ(yarn.rope_scaling.original_max_position, 64) << "max_position_embeddings";
    EXPECT_EQ(yarn.maxT, 256);
    const json deepseek = {{"rope_type", "yarn"}, {"factor", 40.0}, {"mscale", 1.0}, {"mscale_all_dim", 0.5}};
    EXPECT_NEAR(read(rope(llama(), deepseek)).rope_scaling.attention_factor,
                (0.1 * std::log(40.0) + 1) / (0.05 * std::log(40.0) + 1), 1e-15);
    json top = rope(llama(), {{"rope_type", "yarn"}, {"factor", 2.0}, {"original_max_position_embeddings", 32}});
    EXPECT_EQ(read(top).rope_scaling.original_max_position, 32);
    top["original_max_position_embeddings"] = 16;
    EXPECT_EQ(read(top).rope_scaling.original_max_position, 16) << "that of the configuration comes first";
    const json factors = {{"type", "su"}, {"short_factor", {1, 1, 1, 1}}, {"long_factor", {2, 2, 2, 2.5}}};
    const ModelConfig phi3 = read(with(rope(of_type("phi3"), factors), "original_max_position_embeddings", 16));
    EXPECT_EQ(phi3.rope_scaling.kind, Kind::LongRope);
    EXPECT_EQ(phi3.rope_scaling.factor, 4);
    EXPECT_EQ(phi3.rope_scaling.attention_factor, std::sqrt(1 + std::log(4.0) / std::log(16.0)));
    EXPECT_EQ(read(with(of_type("phi3"), "partial_rotary_factor", 0.75)).rotary_size, 6);
    EXPECT_EQ(read(with(of_type("phi3"), "partial_rotary_factor", 1.0)).rotary_size, 0);
}

TEST(HfConfig, EveryFeatureIsWrittenAsItWasRead) {
    json qwen2 = with(with(of_type("qwen2"), "use_sliding_window", true), "max_window_layers", 1);
    json smollm3 = with(with(of_type("smollm3"), "no_rope_layers", {1, 0}), "use_sliding_window", true);
    const json factors = {{"type", "longrope"}, {"short_factor", {1, 1, 2}}, {"long_factor", {2, 2, 2.5}}};
    const json phi3 = with(with(rope(of_type("phi3"), factors), "partial_rotary_factor", 0.75),
                           "original_max_position_embeddings", 16);
    const json yarn = {
        {"rope_type", "yarn"}, {"factor", 3.0}, {"attention_factor", 0.7}, {"beta_fast", 16}, {"truncate", false}};
    for (const json& config : {with(gpt2(), "activation_function", "gelu"),
                               with(gpt2(), "tie_word_embeddings", false),
                               with(gpt2(), "scale_attn_by_inverse_layer_idx", true),
                               with(gpt2(), "scale_attn_weights", false),
                               with(llama(), "attention_bias", true),
                               with(llama(), "mlp_bias", true),
                               rope(llama(), {{"type", "dynamic"}, {"factor", 4.0}}),
                               rope(llama(), yarn),
                               rope(of_type("qwen2"), yarn),
                               of_type("mistral"),
                               with(of_type("mistral"), "sliding_window", nullptr),
                               of_type("qwen2"),
                               qwen2,
                               of_type("qwen3"),
                               of_type("smollm3"),
                               smollm3,
                               with(smollm3, "sliding_window", 7),
                               of_type("phi3"),
                               phi3,
                               with(of_type("phi3"), "sliding_window", 2047)}) {
        const ModelConfig first = read(config);
        const std::string text = to_hf_config(first, DType::F32, "{}");
        EXPECT_EQ(model_config_from_hf(text, kPath), first) << text;
        EXPECT_EQ(json::parse(text)["model_type"], config["model_type"]);
    }
}

TEST(HfConfig, WhatAFamilyCannotSayIsNotWritten) {
    const auto refused = [](ModelConfig config, const std::function<void(ModelConfig&)>& change) {
        change(config);
        return error_of([&] { to_hf_config(config, DType::F32, "{}"); });
    };
    EXPECT_TRUE(has(refused(read(llama()), [](auto& c) { c.window = 5; }), {"llama", "window is 5"}));
    EXPECT_TRUE(has(refused(read(gpt2()), [](auto& c) { c.features.qkv_bias = false; }), {"gpt2", "no biases"}));
    EXPECT_TRUE(has(refused(read(llama()), [](auto& c) { c.features.qk_norm = true; }), {"llama", "queries and keys"}));
    EXPECT_TRUE(has(refused(read(of_type("mistral")),
                            [](auto& c) {
                                c.window_layers = {true, false};
                            }),
                    {"mistral", "window_layers"}));
    EXPECT_TRUE(has(refused(read(llama()), [](auto& c) { c.rope_layers = {true, false}; }), {"llama", "rope_layers"}));
    EXPECT_TRUE(has(refused(read(of_type("qwen2")), [](auto& c) { c.rotary_size = 4; }), {"qwen2"}));
    // Ids that are no tokens of this vocabulary are not written either.
    const json written =
        json::parse(to_hf_config(read(llama()), DType::F32, R"({"eos_token_id":67,"bos_token_id":66})"));
    EXPECT_EQ(written["eos_token_id"], nullptr);
    EXPECT_EQ(written["bos_token_id"], 66);
}

TEST(HfConfig, NamesWhatItDoesNotHave) {
    EXPECT_TRUE(has(error_with(gpt2(), "model_type", "gemma"), {"model_type", "gemma", "gpt2, llama", "and phi3"}));
    EXPECT_TRUE(has(error_with(gpt2(), "model_type", nullptr), {"model_type", "architectures"}));
    json other = gpt2();
    other.erase("model_type");
    EXPECT_TRUE(has(error_with(other, "architectures", {"GemmaForCausalLM"}), {"architectures", "Gemma", "phi3"}));
    EXPECT_TRUE(has(error_with(gpt2(), "activation_function", "relu"), {"activation_function", "relu", "gelu_new"}));
    EXPECT_TRUE(has(error_with(gpt2(), "add_cross_attention", true), {"add_cross_attention"}));
    EXPECT_TRUE(has(error_with(llama(), "hidden_act", "gelu"), {"hidden_act", "gelu", "silu"}));
    EXPECT_TRUE(has(error_with(llama(), "quantization_config", {{"bits", 4}}), {"quantization_config", "quantized"}));
    EXPECT_TRUE(has(error_with(llama(), "final_logit_softcapping", 30.0), {"final_logit_softcapping", "30"}));
    EXPECT_EQ(read(with(llama(), "final_logit_softcapping", nullptr)).C, 48);
    EXPECT_TRUE(has(error_with(llama(), "partial_rotary_factor", 0.5), {"partial_rotary_factor", "0.5"}));
    for (const char* field : {"rope_type", "type"}) {
        const std::string message = error_with(llama(), "rope_scaling", {{field, "mrope"}, {"factor", 2}});
        EXPECT_TRUE(has(message, {field, "mrope", "yarn and longrope"}));
        EXPECT_TRUE(has(error_with(of_type("phi3"), "rope_scaling", {{field, "linear"}, {"factor", 2}}), {"linear"}));
    }
    EXPECT_TRUE(has(error_with(llama(), "rope_scaling", {{"type", "linear"}, {"factor", 2}, {"mrope_section", {1, 2}}}),
                    {"mrope_section"}));
    EXPECT_TRUE(has(error_with(llama(), "rope_parameters", {{"full_attention", {{"rope_theta", 1e4}}}}),
                    {"full_attention", "one RoPE"}));
    EXPECT_TRUE(has(error_with(llama(), "rope_scaling", {{"type", "linear"}}), {"factor"}));
    EXPECT_TRUE(has(error_with(llama(), "rope_scaling", {{"type", "linear"}, {"factor", 0}}), {"factor", "above 0"}));
    EXPECT_TRUE(
        has(error_with(llama(), "rope_scaling", {{"rope_type", "llama3"}, {"factor", 2}}), {"low_freq_factor"}));
    EXPECT_TRUE(has(error_with(llama(), "rope_scaling", 3), {"not a JSON object"}));
    const json uneven = {{"type", "longrope"}, {"short_factor", {1, 1}}, {"long_factor", {1, 1, 1, 1}}};
    EXPECT_TRUE(has(error_with(of_type("phi3"), "rope_scaling", uneven), {"longrope", "4 pairs", "not 2 and 4"}));
}

TEST(HfConfig, RefusesWhatWouldComputeSomethingElse) {
    for (const json& config : {gpt2(), llama()}) {
        EXPECT_TRUE(has(error_with(config, "is_causal", false), {"is_causal", "causal models"}));
        EXPECT_EQ(read(with(config, "is_causal", true)), read(config));
    }
    // transformers reads such a file as ministral's.
    const json mistral = with(llama(), "model_type", "mistral");
    EXPECT_TRUE(has(error_with(mistral, "layer_types", {"full_attention"}), {"layer_types", "leave layer_types out"}));
    EXPECT_NO_THROW(read(with(mistral, "layer_types", nullptr)));
    // Two names for one number.
    EXPECT_TRUE(has(error_with(gpt2(), "num_attention_heads", 1), {"num_attention_heads", "n_head", "leave one"}));
}

TEST(HfConfig, RefusesNumbersThatCannotBe) {
    for (const json& value : {json(INT64_MIN), json(INT64_MAX), json(UINT64_MAX), json(1LL << 40)}) {
        EXPECT_TRUE(has(error_with(gpt2(), "n_embd", value), {"n_embd", value.dump(), "a model can have"}));
        EXPECT_TRUE(has(error_with(llama(), "hidden_size", value), {"hidden_size", value.dump()}));
    }
    for (const json& value : {json(0), json(-1e-5), json(1), json(3.5)}) {
        EXPECT_TRUE(
            has(error_with(gpt2(), "layer_norm_epsilon", value), {"layer_norm_epsilon", "positive", "below 1"}));
        EXPECT_TRUE(has(error_with(llama(), "rms_norm_eps", value), {"rms_norm_eps", "positive", "below 1"}));
    }
    for (const char* field : {"bos_token_id", "eos_token_id"}) {
        for (const json& value : {json(61), json(50256), json(-1), json({3, 61})}) {
            EXPECT_TRUE(has(error_with(gpt2(), field, value), {field, value.dump(), "vocabulary of 61"}));
        }
        EXPECT_TRUE(has(error_with(gpt2(), field, "3"), {field}));
        EXPECT_EQ(read(with(gpt2(), field, 60)).V, 61);
        EXPECT_EQ(read(with(gpt2(), field, nullptr)).V, 61);
    }
    EXPECT_EQ(read(with(gpt2(), "eos_token_id", {1, 60})).V, 61);
}

TEST(HfConfig, RefusesWhatIsNoModel) {
    EXPECT_TRUE(has(error_with(gpt2(), "n_layer", nullptr), {"n_layer"}));
    EXPECT_TRUE(has(error_with(gpt2(), "n_layer", "two"), {"n_layer", "two"}));
    EXPECT_TRUE(has(error_with(gpt2(), "n_layer", 2.5), {"n_layer", "2.5"}));
    EXPECT_TRUE(has(error_with(gpt2(), "n_layer", 0), {"cannot be: n_layer is 0: must be at least 1"}));
    EXPECT_TRUE(has(error_with(gpt2(), "vocab_size", -3), {"cannot be: vocab_size is -3: must be at least 1"}));
    EXPECT_TRUE(has(error_with(gpt2(), "n_head", 0), {"n_head"}));
    EXPECT_TRUE(has(error_with(gpt2(), "n_head", 5), {"n_head"}));
    EXPECT_TRUE(has(error_with(llama(), "num_attention_heads", 5), {"num_attention_heads"}));
    EXPECT_TRUE(has(error_with(llama(), "num_hidden_layers", 5000), {"cannot be: num_hidden_layers is 5000: must"}));
    EXPECT_TRUE(has(error_with(llama(), "num_key_value_heads", 4), {"cannot be: num_key_value_heads is 4: must"}));
    EXPECT_TRUE(has(error_with(llama(), "intermediate_size", 0), {"cannot be: intermediate_size is 0: must"}));
    EXPECT_TRUE(has(error_with(llama(), "max_position_embeddings", 0), {"cannot be: max_position_embeddings is 0"}));
    EXPECT_TRUE(has(error_with(llama(), "head_dim", 7), {"cannot be: head_dim is 7: rotary"}));
    EXPECT_TRUE(has(error_with(llama(), "rms_norm_eps", "x"), {"rms_norm_eps"}));
    EXPECT_TRUE(has(error_with(llama(), "tie_word_embeddings", 1), {"tie_word_embeddings"}));
    EXPECT_TRUE(has(error_of([] { model_config_from_hf("{", kPath); }), {kPath, "JSON"}));
    EXPECT_TRUE(has(error_of([] { model_config_from_hf("[1]", kPath); }), {kPath, "JSON object"}));
}

}  // namespace
}  // namespace llmc
