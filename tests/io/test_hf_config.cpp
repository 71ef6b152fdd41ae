#include "llmc/io/hf_config.h"
#include "tests/io/temp_dir.h"

#include <gtest/gtest.h>

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
    const llmc::RopeScaling expected = {llmc::RopeScaling::Kind::Llama3, 32, 1, 4, 8192};
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
    scaled.rope_scaling = {RopeScaling::Kind::Llama3, 8, 1, 4, 128};
    scaled.HD = 12;
    ModelConfig linear = read(llama());
    linear.rope_scaling.kind = RopeScaling::Kind::Linear;
    linear.rope_scaling.factor = 2.5;
    linear.tied = true;
    for (const ModelConfig& config : {read(gpt2()), read(with(gpt2(), "n_inner", 80)), read(llama()), scaled, linear}) {
        const std::string text = to_hf_config(config, DType::BF16, {{"eos_token_id", 5}});
        EXPECT_EQ(model_config_from_hf(text, kPath), config) << text;
        EXPECT_EQ(json::parse(text)["torch_dtype"], "bfloat16");
        EXPECT_EQ(json::parse(text)["eos_token_id"], 5);
        EXPECT_EQ(json::parse(text)["bos_token_id"], nullptr);
    }
    // transformers before 4.43 takes exactly these two fields, and later ones take them as well.
    EXPECT_EQ(json::parse(to_hf_config(linear, DType::F32, {}))["rope_scaling"],
              (json{{"type", "linear"}, {"factor", 2.5}}));
    ModelConfig odd = read(gpt2());
    odd.HD = 16;
    EXPECT_TRUE(has(error_of([&] { to_hf_config(odd, DType::F32, {}); }), {"GPT-2", "16"}));
}

TEST(HfConfig, NamesWhatItDoesNotHave) {
    EXPECT_TRUE(has(error_with(gpt2(), "model_type", "mistral"), {"model_type", "mistral", "gpt2 and llama"}));
    EXPECT_TRUE(has(error_with(gpt2(), "model_type", nullptr), {"model_type"}));
    EXPECT_TRUE(has(error_with(gpt2(), "activation_function", "relu"), {"activation_function", "relu", "gelu_new"}));
    EXPECT_TRUE(has(error_with(gpt2(), "activation_function", "gelu"), {"activation_function", "gelu_new"}));
    EXPECT_TRUE(has(error_with(gpt2(), "scale_attn_by_inverse_layer_idx", true), {"scale_attn_by_inverse_layer_idx"}));
    EXPECT_TRUE(has(error_with(gpt2(), "scale_attn_weights", false), {"scale_attn_weights"}));
    EXPECT_TRUE(has(error_with(gpt2(), "tie_word_embeddings", false), {"tie_word_embeddings"}));
    EXPECT_TRUE(has(error_with(llama(), "hidden_act", "gelu"), {"hidden_act", "gelu", "silu"}));
    EXPECT_TRUE(has(error_with(llama(), "attention_bias", true), {"attention_bias", "true"}));
    EXPECT_TRUE(has(error_with(llama(), "mlp_bias", true), {"mlp_bias"}));
    for (const char* field : {"rope_type", "type"}) {
        const std::string message = error_with(llama(), "rope_scaling", {{field, "yarn"}, {"factor", 2}});
        EXPECT_TRUE(has(message, {field, "yarn", "linear and llama3"}));
    }
    EXPECT_TRUE(
        has(error_with(llama(), "rope_scaling", {{"rope_type", "llama3"}, {"factor", 2}}), {"low_freq_factor"}));
    EXPECT_TRUE(has(error_with(llama(), "rope_scaling", 3), {"not a JSON object"}));
}

TEST(HfConfig, RefusesWhatIsNoModel) {
    EXPECT_TRUE(has(error_with(gpt2(), "n_layer", nullptr), {"n_layer"}));
    EXPECT_TRUE(has(error_with(gpt2(), "n_layer", "two"), {"n_layer", "two"}));
    EXPECT_TRUE(has(error_with(gpt2(), "n_layer", 2.5), {"n_layer", "2.5"}));
    EXPECT_TRUE(has(error_with(gpt2(), "n_layer", 0), {"cannot be"}));
    EXPECT_TRUE(has(error_with(gpt2(), "n_head", 0), {"n_head"}));
    EXPECT_TRUE(has(error_with(gpt2(), "n_head", 5), {"n_head"}));
    EXPECT_TRUE(has(error_with(llama(), "num_attention_heads", 5), {"num_attention_heads"}));
    EXPECT_TRUE(has(error_with(llama(), "num_key_value_heads", 4), {"cannot be"}));
    EXPECT_TRUE(has(error_with(llama(), "head_dim", 7), {"cannot be"}));
    EXPECT_TRUE(has(error_with(llama(), "rms_norm_eps", "x"), {"rms_norm_eps"}));
    EXPECT_TRUE(has(error_with(llama(), "tie_word_embeddings", 1), {"tie_word_embeddings"}));
    EXPECT_TRUE(has(error_of([] { model_config_from_hf("{", kPath); }), {kPath, "JSON"}));
    EXPECT_TRUE(has(error_of([] { model_config_from_hf("[1]", kPath); }), {kPath, "JSON object"}));
}

}  // namespace
}  // namespace llmc
