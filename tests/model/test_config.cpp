#include "llmc/model/config.h"

#include "llmc/base/error.h"
#include "tests/io/temp_dir.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <functional>

namespace llmc {
namespace {

using Json = nlohmann::ordered_json;

ModelConfig llama_of_some_shape() {
    ModelConfig config = preset("llama-mini");
    config.maxT = 64;
    return config;
}

TEST(Presets, AreListedOnceAndFound) {
    const std::vector<std::string> names = preset_names();
    EXPECT_GE(names.size(), 19u);
    for (const std::string& name : names) {
        EXPECT_EQ(std::count(names.begin(), names.end(), name), 1) << name;
        EXPECT_EQ(preset(name).name, name);
    }
}

TEST(Presets, AreValidOnceTheSmallOnesHaveALength) {
    for (const std::string& name : preset_names()) {
        ModelConfig config = preset(name);
        if (config.maxT == 0) config.maxT = 256;
        EXPECT_NO_THROW(validate(config)) << name;
        const bool has_own_heads = config.family == Family::Qwen3;  // Of 128 channels, whatever the width.
        EXPECT_EQ(config.NH * config.HD, has_own_heads ? config.NH * 128 : config.C) << name;
    }
}

TEST(Presets, DepthNamesAreGpt2) {
    ModelConfig d12 = preset("d12");
    EXPECT_EQ(d12.name, "d12");
    d12.name = "gpt2";
    EXPECT_EQ(d12, preset("gpt2"));
    const struct {
        const char* depth;
        const char* same;
    } pairs[] = {{"d24", "gpt2-medium"}, {"d36", "gpt2-large"}, {"d48", "gpt2-xl"}};
    for (const auto& [depth, same] : pairs) {
        ModelConfig config = preset(depth);
        config.name = same;
        EXPECT_EQ(config, preset(same));
    }
}

TEST(Presets, AnUnknownNameIsAUsageErrorThatSaysWhereTheKnownOnesAre) {
    for (const char* name : {"gpt3", "", "d", "d13", "d12x", "D12", "d-12"}) {
        const std::string message = error_of([&] { preset(name); });
        EXPECT_TRUE(has(message, {"--model=", name, "no such preset", "explain presets lists them"})) << name;
    }
    EXPECT_TRUE(has(error_of([] { preset("gpt2-nan"); }), {"did you mean gpt2-nano?"}));
    try {
        preset("gpt3");
        FAIL();
    } catch (const Error& error) {
        EXPECT_EQ(error.exit_code(), kExitBadUsage);
    }
}

TEST(ModelConfig, PaddedVocabularyAndColumns) {
    ModelConfig config = preset("llama3-8b");
    EXPECT_EQ(config.Vp(), 128256);
    EXPECT_EQ(config.QKV(), 6144);
    EXPECT_EQ(config.attention_columns(), 4096);
    config.V = 50257;
    EXPECT_EQ(config.Vp(), 50304);
    config.V = 1;
    EXPECT_EQ(config.Vp(), 64);
}

TEST(Validate, RefusalsNameTheOptionAndTheValue) {
    const struct {
        std::function<void(ModelConfig&)> damage;
        std::vector<std::string_view> parts;
    } cases[] = {
        {[](ModelConfig& c) { c.L = 0; }, {"--layers=0"}},
        {[](ModelConfig& c) { c.C = -1; }, {"--channels=-1"}},
        {[](ModelConfig& c) { c.NH = 0; }, {"--heads=0"}},
        {[](ModelConfig& c) { c.NKV = 0; }, {"--kv-heads=0"}},
        {[](ModelConfig& c) { c.HD = 0; }, {"--head-size=0"}},
        {[](ModelConfig& c) { c.F = 0; }, {"--ffn-size=0"}},
        {[](ModelConfig& c) { c.V = 0; }, {"--vocab-size=0"}},
        {[](ModelConfig& c) { c.maxT = 0; }, {"--max-seq-len=0"}},
        {[](ModelConfig& c) { c.NKV = 4; }, {"--kv-heads=4", "divide", "6"}},
        {[](ModelConfig& c) { c.NKV = 12; }, {"--kv-heads=12", "divide"}},
        {[](ModelConfig& c) { c.HD = 63; }, {"--head-size=63", "even"}},
        {[](ModelConfig& c) { c.HD = 258; }, {"--head-size=258", "256"}},
        {[](ModelConfig& c) { c.family = Family::Gpt2; }, {"--kv-heads=2", "GPT-2"}},
        {[](ModelConfig& c) { c.rotary_size = 13; }, {"--head-size=64", "13", "even"}},
        {[](ModelConfig& c) { c.rotary_size = 66; }, {"--head-size=64", "66"}},
        {[](ModelConfig& c) { c.window = -1; }, {"window", "-1"}},
        {[](ModelConfig& c) {
             c.window_layers = {true, false};
         },
         {"--layers=6", "2 layers", "windows"}},
        {[](ModelConfig& c) {
             c.rope_layers = {true, false};
         },
         {"--layers=6", "2 layers", "rotary"}},
        {[](ModelConfig& c) { c.rope_scaling.kind = RopeScaling::Kind::LongRope; }, {"longrope", "32 pairs"}},
    };
    EXPECT_NO_THROW(validate(llama_of_some_shape()));
    for (const auto& row : cases) {
        ModelConfig config = llama_of_some_shape();
        row.damage(config);
        try {
            validate(config);
            ADD_FAILURE() << "accepted; expected a refusal with " << row.parts[0];
        } catch (const Error& error) {
            EXPECT_EQ(error.exit_code(), kExitBadUsage);
            for (const std::string_view part : row.parts) EXPECT_TRUE(has(error.what(), {part}));
        }
    }
}

TEST(Validate, AcceptsWhatOnlyLooksOdd) {
    ModelConfig config = llama_of_some_shape();
    config.HD = 256;  // Heads need not fill the channels.
    EXPECT_NO_THROW(validate(config));
    config.NKV = 1;
    EXPECT_NO_THROW(validate(config));
    config.features.positions = Positions::Learned, config.HD = 33;
    EXPECT_NO_THROW(validate(config)) << "only rotary embedding needs an even head size";
}

TEST(Describe, SaysTheSizes) {
    EXPECT_TRUE(has(describe(preset("gpt2")), {"GPT-2", "12 layers", "12 heads", "768 channels", "50257"}));
    EXPECT_TRUE(has(describe(preset("llama3-8b")), {"LLaMA", "32 heads (8 key/value)", "4096 channels"}));
}

// ---- JSON ----

TEST(ModelConfigJson, RoundTripOfEveryPreset) {
    for (const std::string& name : preset_names()) {
        const ModelConfig config = preset(name);
        EXPECT_EQ(model_config_from_json(to_json(config), "here"), config) << name;
    }
}

TEST(ModelConfigJson, RoundTripKeepsEveryBit) {
    ModelConfig config = llama_of_some_shape();
    config.name = "odd \"name\"\n";
    config.norm_epsilon = 1.0 / 3;
    config.rope_theta = 12345.678901234567;
    config.rope_scaling = {RopeScaling::Kind::Yarn, 0.1, 1e-300, 1.7e308, 3, 0.7, 31.9, 1.1, false, {0.1}, {0.3, 7}};
    config.features.qk_norm = true, config.features.scale_scores_by_layer = true;
    config.rotary_size = 10, config.window = 77;
    config.window_layers = {true, false, true, false, false, true}, config.rope_layers = {false, true};
    EXPECT_EQ(model_config_from_json(to_json(config), "here"), config);
}

TEST(ModelConfigJson, AMissingFieldIsNamed) {
    const Json whole = Json::parse(to_json(llama_of_some_shape()));
    for (const auto& [key, value] : whole.items()) {
        Json damaged = whole;
        damaged.erase(key);
        EXPECT_TRUE(
            has(error_of([&] { model_config_from_json(damaged.dump(), "'run/config'"); }), {"'run/config'", key}));
        if (!value.is_object()) continue;
        for (const auto& [inner, unused] : value.items()) {
            damaged = whole;
            damaged[key].erase(inner);
            EXPECT_TRUE(has(error_of([&] { model_config_from_json(damaged.dump(), "'run/config'"); }),
                            {"'run/config'", inner}));
        }
    }
}

TEST(ModelConfigJson, AFieldOfTheWrongTypeIsNamed) {
    const Json whole = Json::parse(to_json(llama_of_some_shape()));
    const auto refused = [](const Json& damaged, const std::string& key) {
        EXPECT_TRUE(
            has(error_of([&] { model_config_from_json(damaged.dump(), "'run/config'"); }), {"'run/config'", key}))
            << damaged.dump();
    };
    for (const auto& [key, value] : whole.items()) {
        std::vector<Json> wrong = {nullptr, Json::array({1})};
        if (!value.is_string()) wrong.push_back("12");
        if (!value.is_number()) wrong.push_back(12);
        if (!value.is_boolean()) wrong.push_back(true);
        if (value.is_number_integer()) wrong.push_back(12.5);  // Never cut down to 12.
        for (const Json& other : wrong) {
            Json damaged = whole;
            damaged[key] = other;
            if (value.is_array() && other == Json::array({1})) continue;
            refused(damaged, key);
        }
    }
    Json damaged = whole;
    damaged["rope_scaling"]["factor"] = "8";
    refused(damaged, "factor");
}

TEST(ModelConfigJson, UnknownNamesAreRefused) {
    Json damaged = Json::parse(to_json(llama_of_some_shape()));
    damaged["family"] = "mamba";
    EXPECT_TRUE(has(error_of([&] { model_config_from_json(damaged.dump(), "'f'"); }), {"'f'", "mamba"}));
    damaged["family"] = "llama";
    damaged["rope_scaling"]["kind"] = "stretched";
    EXPECT_TRUE(
        has(error_of([&] { model_config_from_json(damaged.dump(), "'f'"); }), {"'f'", "stretched", "yarn", "llama3"}));
}

TEST(ModelConfigJson, CutOffTextIsOneLineWithThePlace) {
    const std::string whole = to_json(llama_of_some_shape());
    for (size_t length = 0; length < whole.size(); ++length) {
        EXPECT_TRUE(has(error_of([&] { model_config_from_json(whole.substr(0, length), "'f'"); }), {"'f'", "damaged"}));
    }
    for (const char* text : {"[]", "3", "\"gpt2\"", "null"}) {
        EXPECT_TRUE(has(error_of([&] { model_config_from_json(text, "'f'"); }), {"'f'"})) << text;
    }
}

}  // namespace
}  // namespace llmc
