// Patterns for parameter rows, what they leave to train, and where the backward has to reach then.
#include "llmc/model/trainable.h"

#include "llmc/base/error.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <set>

namespace llmc {
namespace {

Model gpt2(int64_t L = 12) {
    ModelConfig config = with_layers(preset("gpt2-nano"), L);
    config.V = 97, config.maxT = 50;
    return make_model(config);
}
Model llama(int64_t L = 4) {
    ModelConfig config = with_layers(preset("llama-nano"), L);
    config.V = 97, config.maxT = 50, config.tied = false;
    return make_model(config);
}

std::vector<TrainablePattern> parse(const std::string& text) { return parse_patterns("--freeze", text, false); }

std::set<std::string> frozen_names(const Model& model, const std::string& patterns) {
    std::set<std::string> names;
    for (const ParameterRow& row : with_trainable(model, parse(patterns)).parameters) {
        if (!row.trainable) names.insert(row.name);
    }
    return names;
}

std::string refusal(const std::function<void()>& work) {
    try {
        work();
    } catch (const Error& error) {
        EXPECT_EQ(error.exit_code(), kExitBadUsage);
        EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
        return error.what();
    }
    return "";
}

TEST(Glob, MatchesWholeNames) {
    const struct {
        const char *glob, *name;
        bool matches;
    } cases[] = {
        {"wte", "wte", true},
        {"wt", "wte", false},
        {"te", "wte", false},
        {"*", "", true},
        {"**", "wte", true},
        {"w?e", "wte", true},
        {"w?e", "we", false},
        {"layers.*", "layers.0.ln1_bias", true},
        {"layers.*.ln1_*", "layers.11.ln1_bias", true},
        {"layers.*.ln1_*", "layers.11.ln2_bias", false},
        {"*_bias", "lnf_bias", true},
        {"*ln[12]_*", "layers.3.ln2_weight", true},
        {"*ln[!2]_*", "layers.3.ln2_weight", false},
        {"*ln[1-2]_*", "layers.3.ln2_weight", true},
        {"[]x]y", "]y", true},
        {"*a*b*c", "xaybzc", true},
        {"*a*b*c", "xaybz", false},
        {"layers.1.*", "layers.11.ln1_bias", false},
        {"layers.2-10.*", "layers.2.x", true},
        {"layers.2-10.*", "layers.10.x", true},
        {"layers.2-10.*", "layers.11.x", false},
        {"layers.2-10.*", "layers.1.x", false},
        {"layers.2-10.*", "layers.22.x", false},
        {"*1-3.x", "layers.12.x", false},  // A number is all its digits.
        {"*1-3.x", "layers.2.x", true},
        {"*?*?*?*?*?*?*?*?*?*?*?*z", "layers.11.att_proj_weight", false},
    };
    for (const auto& test : cases)
        EXPECT_EQ(matches(test.glob, test.name), test.matches) << test.glob << " " << test.name;
}

TEST(Patterns, AreReadFromAListAndWrittenAsOne) {
    const std::vector<TrainablePattern> patterns = parse("layers.*, !*_bias,wte");
    const std::vector<TrainablePattern> expected = {{false, "layers.*"}, {true, "*_bias"}, {false, "wte"}};
    EXPECT_EQ(patterns, expected);
    EXPECT_EQ(text_of(patterns), "layers.*,!*_bias,wte");
    EXPECT_EQ(parse(text_of(patterns)), patterns);
    EXPECT_TRUE(parse_patterns("--trainable", "wte", true).front().trainable);
    EXPECT_FALSE(parse_patterns("--trainable", "!wte", true).front().trainable);
}

TEST(Patterns, MalformedOnesAreRefused) {
    for (const char* text : {"", ",", "wte,", ",wte", "wte,,wpe", " ", "!", "wte,!"}) {
        EXPECT_NE(refusal([&] { parse(text); }).find("--freeze: an empty pattern; give"), std::string::npos) << text;
    }
    EXPECT_NE(refusal([] { parse("layers.[01.*"); }).find("--freeze=layers.[01.*: '[' without ']'"), std::string::npos);
    EXPECT_NE(refusal([] { parse("layers.5-2.*"); }).find("the range 5-2 is empty"), std::string::npos);
    parse("99999999999999999999999-3");  // No number at all: it matches nothing, and that is said there.
}

TEST(Trainable, TheMoreSpecificPatternCountsThenTheLater) {
    const Model model = gpt2(2);
    EXPECT_EQ(frozen_names(model, "wte,wpe"), (std::set<std::string>{"wte", "wpe"}));
    EXPECT_EQ(frozen_names(model, "wte,!wte"), std::set<std::string>());
    EXPECT_EQ(frozen_names(model, "!wte,wte"), std::set<std::string>{"wte"});
    EXPECT_EQ(frozen_names(model, "layers.0.qkv_weight,!layers.*"), std::set<std::string>{"layers.0.qkv_weight"});
    EXPECT_EQ(frozen_names(model, "!layers.*,layers.0.qkv_weight"), std::set<std::string>{"layers.0.qkv_weight"});
    EXPECT_EQ(frozen_names(model, "layers.0.qkv_weight,!layers.?.qkv_weight"),
              std::set<std::string>{"layers.0.qkv_weight"});
    EXPECT_EQ(frozen_names(model, "layers.0-1.qkv_weight,!layers.[01].qkv_weight"), std::set<std::string>());
    for (const std::string& name : frozen_names(model, "*,!layers.1.*")) EXPECT_NE(name.rfind("layers.1.", 0), 0u);
}

TEST(Trainable, NoMatchListsTheNamesAndNothingLeftIsRefused) {
    const Model model = gpt2(3);
    EXPECT_EQ(refusal([&] { with_trainable(model, parse("transformer.h.*")); }),
              "--freeze=transformer.h.*: no parameter has such a name; there are wte, wpe, layers.*.ln1_weight, "
              "layers.*.ln1_bias, layers.*.qkv_weight, layers.*.qkv_bias, layers.*.att_proj_weight, "
              "layers.*.att_proj_bias, layers.*.ln2_weight, layers.*.ln2_bias, layers.*.fc_weight, layers.*.fc_bias, "
              "layers.*.fc_proj_weight, layers.*.fc_proj_bias, lnf_weight, lnf_bias (layers 0-2)");
    EXPECT_NE(refusal([&] { with_trainable(model, parse("layers.3.*")); }).find("(layers 0-2)"), std::string::npos);
    EXPECT_NE(refusal([&] { with_trainable(model, parse("*,!lm_head")); }).find("--trainable=lm_head: no parameter"),
              std::string::npos)
        << "a tied head has no row of its own";
    EXPECT_NE(refusal([&] { with_trainable(model, parse("*")); }).find("--freeze=*: every parameter is frozen"),
              std::string::npos);
}

TEST(Trainable, RowsOfAKindLieOneAfterTheOther) {
    const Model whole = llama();
    const Model model = with_trainable(whole, parse("layers.*.qkv_weight,layers.2.*,wte"));
    EXPECT_EQ(model.parameter_elements + model.frozen_elements, whole.parameter_elements);
    EXPECT_EQ(model.parameter_count(), whole.parameter_count());
    int64_t end[2] = {0, 0};
    for (const ParameterRow& row : model.parameters) {
        EXPECT_EQ(row.offset, end[row.trainable ? 1 : 0]) << row.name;
        end[row.trainable ? 1 : 0] += (row.count() + 63) / 64 * 64;
    }
    EXPECT_EQ(end[1], model.parameter_elements);
    EXPECT_EQ(end[0], model.frozen_elements);
    for (size_t i = 0; i < whole.parameters.size(); ++i) {
        EXPECT_EQ(with_trainable(whole, {}).parameters[i].offset, whole.parameters[i].offset);
    }
}

TEST(GradientPath, ReachesWhatATrainableParameterLiesBefore) {
    const Model model = gpt2(4);
    const auto slot = [&](const std::string& name) {
        for (size_t i = 0; i < model.activations.size(); ++i) {
            if (model.activations[i].name == name) return static_cast<int>(i);
        }
        return kNone;
    };
    const struct {
        const char* freeze;
        int lowest;
        std::vector<std::string> reached;  ///< Slots of the lowest layer.
    } cases[] = {
        {"*,!wte", 0, {"x", "ln1_out", "qkv", "att_out", "x_mid", "ln2_out", "fc_out", "act_out"}},
        {"*,!wpe", 0, {"x", "ln1_out", "qkv", "att_out", "x_mid", "ln2_out", "fc_out", "act_out"}},
        {"wte,wpe", 0, {"ln1_out", "qkv", "att_out", "x_mid", "ln2_out", "fc_out", "act_out"}},
        {"*,!layers.2.ln1_bias", 2, {"ln1_out", "qkv", "att_out", "x_mid", "ln2_out", "fc_out", "act_out"}},
        {"*,!layers.2.qkv_bias", 2, {"qkv", "att_out", "x_mid", "ln2_out", "fc_out", "act_out"}},
        {"*,!layers.1.att_proj_weight", 1, {"x_mid", "ln2_out", "fc_out", "act_out"}},
        {"*,!layers.3.fc_weight", 3, {"fc_out", "act_out"}},
        {"*,!layers.3.fc_proj_weight", 3, {}},
        {"*,!lnf_bias", 4, {}},
    };
    for (const auto& test : cases) {
        const Model frozen = with_trainable(model, parse(test.freeze));
        const GradientPath path(frozen);
        EXPECT_EQ(path.lowest_layer(), test.lowest) << test.freeze;
        for (int layer = 0; layer < 4; ++layer) {
            for (const char* name : {"x", "ln1_out", "qkv", "att_out", "x_mid", "ln2_out", "fc_out", "act_out"}) {
                const bool in_lowest = std::find(test.reached.begin(), test.reached.end(), name) != test.reached.end();
                EXPECT_EQ(path.reaches(layer, slot(name)), layer > test.lowest || (layer == test.lowest && in_lowest))
                    << test.freeze << ": " << name << " of layer " << layer;
            }
        }
        EXPECT_EQ(path.reaches(4), test.lowest < 4) << test.freeze;
    }
}

TEST(ModelFlops, CountWhatTheBackwardHasToDo) {
    const Model model = gpt2(4);
    const double all = model_flops_per_token(model, 50);
    const auto flops = [&](const char* freeze) {
        return model_flops_per_token(with_trainable(model, parse(freeze)), 50);
    };
    const double span = attention_span(model.config, 50),
                 attention = 6.0 * 4 * static_cast<double>(model.config.C) * span;
    const auto count_of = [&](const std::string& name) {
        const ParameterRow& row = model.parameters[static_cast<size_t>(model.find_parameter(name))];
        return static_cast<double>(row.used_rows * row.cols);
    };
    const auto P = static_cast<double>(model.parameter_count()) - count_of("wpe");
    EXPECT_DOUBLE_EQ(all, 6 * P + attention);
    EXPECT_DOUBLE_EQ(flops("layers.1.fc_weight"), all - 2 * count_of("layers.1.fc_weight"));
    EXPECT_DOUBLE_EQ(flops("*,!lnf_bias"), 2 * P + attention / 3 + 2 * count_of("wte") + 2 * count_of("lnf_bias"));
    EXPECT_LT(flops("wte,wpe,layers.0-1.*"), 0.75 * all);
}

TEST(FewLayers, TrainWhatAnyLayerWithABackwardTrains) {
    const Model model = with_trainable(gpt2(6), parse("*,!layers.3.qkv_weight,!layers.5.*_bias,!lnf_bias"));
    const Model few = with_layers(model, 3);
    ASSERT_EQ(few.config.L, 3);
    for (const ParameterRow& row : few.parameters) {
        const bool bias = row.name.ends_with("_bias"), qkv = row.name.ends_with("qkv_weight");
        EXPECT_EQ(row.trainable, bias || qkv) << row.name;
    }
    EXPECT_EQ(with_layers(gpt2(6), 3).parameter_count(), gpt2(3).parameter_count());
}

}  // namespace
}  // namespace llmc
