#include "llmc/model/model.h"

#include "llmc/base/error.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

namespace llmc {
namespace {

Model model_of(const std::string& name) {
    ModelConfig config = preset(name);
    if (config.maxT == 0) config.maxT = 100;
    return make_model(config);
}

std::vector<Model> every_preset() {
    std::vector<Model> models;
    for (const std::string& name : preset_names()) models.push_back(model_of(name));
    return models;
}

TEST(ParameterCount, IsThePublishedOne) {
    const struct {
        const char* name;
        int64_t count;
    } published[] = {
        {"gpt2", 124'439'808},          {"gpt2-medium", 354'823'168},      {"gpt2-large", 774'030'080},
        {"gpt2-xl", 1'557'611'200},     {"tinyllama-1.1b", 1'100'048'384}, {"llama3.2-1b", 1'235'814'400},
        {"llama2-7b", 6'738'415'616},   {"llama3-8b", 8'030'261'248},      {"llama3-70b", 70'553'706'496},
        {"smollm2-135m", 134'515'008},  {"smollm2-360m", 361'821'120},     {"smollm2-1.7b", 1'711'376'384},
        {"llama3.2-3b", 3'212'749'824}, {"llama3.1-8b", 8'030'261'248},    {"mistral-7b", 7'248'023'552},
        {"d12", 124'439'808},           {"qwen2.5-0.5b", 494'032'768},     {"qwen2.5-1.5b", 1'543'714'304},
        {"qwen2.5-3b", 3'085'938'688},  {"qwen2.5-7b", 7'615'616'512},     {"qwen3-0.6b", 596'049'920},
        {"qwen3-1.7b", 1'720'574'976},  {"qwen3-4b", 4'022'468'096},       {"qwen3-8b", 8'190'735'360},
        {"phi-3-mini", 3'821'079'552},  {"smollm3-3b", 3'075'098'624},
    };
    for (const auto& row : published) EXPECT_EQ(model_of(row.name).parameter_count(), row.count) << row.name;
}

TEST(MakeModel, RefusesWhatValidateRefuses) {
    ModelConfig config = preset("gpt2");
    config.NKV = 5;
    EXPECT_THROW(make_model(config), Error);
}

TEST(ParameterTable, OffsetsAreOrderedAlignedAndDisjoint) {
    ModelConfig odd = preset("llama-nano");  // Sizes that are no multiples of anything.
    odd.C = 37, odd.NH = 3, odd.NKV = 1, odd.HD = 10, odd.F = 29, odd.V = 83, odd.maxT = 11, odd.tied = false;
    ModelConfig odd_gpt2 = odd;
    odd_gpt2.family = Family::Gpt2, odd_gpt2.NKV = 3, odd_gpt2.tied = true;
    odd_gpt2.features = row_of(Family::Gpt2).features;
    std::vector<Model> models = every_preset();
    models.push_back(make_model(odd));
    models.push_back(make_model(odd_gpt2));
    for (const Model& model : models) {
        int64_t end = 0, largest_gap = 0;
        std::set<std::string> names;
        for (const ParameterRow& row : model.parameters) {
            ASSERT_GE(row.offset, end) << row.name;
            ASSERT_EQ(row.offset * 2 % 128, 0) << row.name << ": a multiple of 64 elements, a cache line in bf16";
            ASSERT_GT(row.count(), 0);
            largest_gap = std::max(largest_gap, row.offset - end);
            end = row.offset + row.count();
            names.insert(row.name);
        }
        EXPECT_GE(model.parameter_elements, end);
        EXPECT_LT(model.parameter_elements - end, 64);
        EXPECT_LT(largest_gap, 64);
        EXPECT_EQ(names.size(), model.parameters.size()) << "names are unique";
    }
}

TEST(ParameterTable, OnlyEmbeddingAndHeadArePadded) {
    for (const Model& model : every_preset()) {
        for (size_t i = 0; i < model.parameters.size(); ++i) {
            const ParameterRow& row = model.parameters[i];
            const bool vocabulary = static_cast<int>(i) == model.wte || static_cast<int>(i) == model.head;
            EXPECT_EQ(row.rows, vocabulary ? model.config.Vp() : row.used_rows) << row.name;
            EXPECT_EQ(row.used_rows, vocabulary ? model.config.V : row.rows) << row.name;
        }
    }
}

TEST(ParameterTable, MatricesDecayAndVectorsDoNot) {
    for (const Model& model : every_preset()) {
        for (const ParameterRow& row : model.parameters) EXPECT_EQ(row.decay, row.cols > 1) << row.name;
    }
}

TEST(ParameterTable, InitialisationFollowsGpt2) {
    for (const Model& model : {model_of("gpt2"), model_of("llama3-8b")}) {
        const double residual = 0.02 / std::sqrt(2.0 * static_cast<double>(model.config.L));
        for (const ParameterRow& row : model.parameters) {
            const bool into_residual = row.name.find("_proj_weight") != std::string::npos;
            if (row.cols > 1) {
                EXPECT_EQ(row.init, Init::Normal) << row.name;
                EXPECT_FLOAT_EQ(row.stddev, static_cast<float>(into_residual ? residual : 0.02)) << row.name;
            } else {
                const bool bias = row.name.find("bias") != std::string::npos;
                EXPECT_EQ(row.init, bias ? Init::Zeros : Init::Ones) << row.name;
            }
        }
    }
}

TEST(ParameterTable, IndicesPointWhereTheNamesSay) {
    for (const Model& model : every_preset()) {
        const auto name = [&](int index) { return model.parameters[static_cast<size_t>(index)].name; };
        EXPECT_EQ(name(model.wte), "wte");
        EXPECT_EQ(name(model.lnf_weight), "lnf_weight");
        EXPECT_EQ(model.wpe == kNone, model.config.features.positions != Positions::Learned);
        EXPECT_EQ(model.lnf_bias == kNone, model.config.features.norm != NormKind::LayerNorm);
        EXPECT_EQ(name(model.head), model.config.tied ? "wte" : "lm_head");
        EXPECT_EQ(model.find_parameter("no_such"), kNone);
        for (const int layer : {0, static_cast<int>(model.config.L) - 1}) {
            for (const OpRow& row : model.block) {
                const int weight = model.parameter_index(layer, row.weight);
                if (weight == kNone) continue;
                const std::string tensor = row.kind == OpKind::HeadNorm ? "q_norm" : row.name;
                EXPECT_EQ(name(weight), "layers." + std::to_string(layer) + "." + tensor + "_weight");
                EXPECT_EQ(model.find_parameter(name(weight)), weight);
            }
        }
    }
}

TEST(BlockTable, OperandsAreWrittenBeforeTheyAreReadAndOnlyOnce) {
    for (const Model& model : every_preset()) {
        std::set<int> written = {kLayerInput};
        for (const OpRow& row : model.block) {
            for (const int slot : {row.in, row.residual}) {
                EXPECT_TRUE(slot == kNone || written.contains(slot)) << row.name;
            }
            for (const int slot : {row.out, row.stat0, row.stat1}) {
                if (slot == kNone) continue;
                EXPECT_TRUE(written.insert(slot).second) << row.name << " writes a slot again";
                if (slot != kLayerOutput) {
                    EXPECT_EQ(&model.block[static_cast<size_t>(model.producer(slot))], &row);
                }
            }
        }
        EXPECT_EQ(written.size(), model.activations.size() + 1) << "every slot and the block's output";
        EXPECT_EQ(model.producer(kLayerInput), kNone);
        EXPECT_EQ(model.block.back().out, kLayerOutput);
    }
}

TEST(BlockTable, MatmulWeightsFitTheirOperands) {
    for (const Model& model : every_preset()) {
        for (const OpRow& row : model.block) {
            if (row.kind != OpKind::Matmul) continue;
            const ParameterRow& weight = model.parameters[static_cast<size_t>(model.parameter_index(0, row.weight))];
            const auto columns = [&](int slot) {
                return slot == kLayerOutput ? model.config.C : model.activations[static_cast<size_t>(slot)].columns;
            };
            EXPECT_EQ(weight.cols, columns(row.in)) << row.name;
            EXPECT_EQ(weight.rows, columns(row.out)) << row.name;
            EXPECT_TRUE(row.residual == kNone || columns(row.residual) == weight.rows) << row.name;
        }
    }
}

// ---- FLOPs ----

TEST(ModelFlops, ByHand) {
    // GPT-2: per layer 12 C^2 in matrices and 13 C in vectors, the final norm 2 C, the tied embedding once, no
    // positions.
    constexpr double C = 768, L = 12, V = 50257, T = 1024;
    constexpr double gpt2_parameters = L * (12 * C * C + 13 * C) + 2 * C + V * C;
    EXPECT_DOUBLE_EQ(model_flops_per_token(model_of("gpt2"), 1024), 6 * gpt2_parameters + 6 * L * C * T);

    // Llama 3 8B: the lookup in the untied embedding multiplies nothing, the head does.
    constexpr double C8 = 4096, L8 = 32, V8 = 128256, F8 = 14336, KV8 = 1024;
    constexpr double llama_parameters = L8 * (C8 * C8 + 2 * C8 * KV8 + C8 * C8 + 3 * C8 * F8 + 2 * C8) + C8 + V8 * C8;
    EXPECT_DOUBLE_EQ(model_flops_per_token(model_of("llama3-8b"), 8192), 6 * llama_parameters + 6 * L8 * C8 * 8192);

    // Llama 3.2 1B: tied, so the embedding counts once as the head.
    const Model tied = model_of("llama3.2-1b");
    EXPECT_DOUBLE_EQ(model_flops_per_token(tied, 1), 6 * 1'235'814'400.0 + 6.0 * 16 * 2048);
}

OpCost cost_of(const Model& model, const OpRow& row, Pass pass, const BatchShape& shape, int64_t item) {
    return op_cost(model, {.kind = row.kind, .pass = pass, .row = &row, .tokens = shape.N()}, shape.T, item);
}

/// Both parts, where it is split.
OpCost backward_cost(const Model& model, const OpRow& row, const BatchShape& shape, int64_t item) {
    if (!facts_of(row.kind).splits_backward) return cost_of(model, row, Pass::Backward, shape, item);
    const OpCost weight = cost_of(model, row, Pass::BackwardWeight, shape, item);
    const OpCost input = cost_of(model, row, Pass::BackwardInput, shape, item);
    return {weight.flops + input.flops, weight.bytes + input.bytes};
}

TEST(OpCosts, AddUpToTheModelsFlops) {
    // Forward and twice that for the backward: 6 FLOPs per matrix element and token; attention, causal as half, has two
    // products forward and five backward (its scores once more).
    const BatchShape shape = {3, 512};
    const double N = 3 * 512;
    for (const Model& model : every_preset()) {
        double forward = 0, backward = 0, matrices = 0;
        for (const OpRow& row : model.block) {
            forward += cost_of(model, row, Pass::Forward, shape, 2).flops;
            backward += backward_cost(model, row, shape, 2).flops;
            if (row.kind == OpKind::Matmul) {
                matrices += static_cast<double>(
                    model.parameters[static_cast<size_t>(model.parameter_index(0, row.weight))].count());
            }
        }
        const double product = N * 512 * static_cast<double>(model.config.attention_columns());
        EXPECT_DOUBLE_EQ(forward, 2 * N * matrices + 2 * product) << model.config.name;
        EXPECT_DOUBLE_EQ(backward, 4 * N * matrices + 5 * product) << model.config.name;
        // The head's chunks have the work of their tokens.
        for (const int64_t tokens : {int64_t{1}, int64_t{100}, shape.N()}) {
            const double head = 2.0 * static_cast<double>(tokens * model.config.Vp() * model.config.C);
            const auto flops = [&](OpKind kind, Pass pass) {
                return op_cost(model, {.kind = kind, .pass = pass, .tokens = tokens}, shape.T, 2).flops;
            };
            EXPECT_DOUBLE_EQ(flops(OpKind::Classifier, Pass::Forward), head);
            EXPECT_DOUBLE_EQ(flops(OpKind::Classifier, Pass::BackwardWeight), head);
            EXPECT_DOUBLE_EQ(flops(OpKind::Classifier, Pass::BackwardInput), head);
            EXPECT_EQ(flops(OpKind::CrossEntropy, Pass::Backward), 0);
            EXPECT_EQ(flops(OpKind::LossSum, Pass::Forward), 0);
            EXPECT_EQ(flops(OpKind::Embedding, Pass::Forward), 0);
        }
    }
}

TEST(OpCosts, AttentionsBackwardCountsTheProductsThatRun) {
    const Model model = model_of("llama3.2-1b");
    for (const OpRow& row : model.block) {
        OpCall call = {.kind = row.kind, .pass = Pass::Backward, .row = &row, .tokens = 640};
        const double five = op_cost(model, call, 64, 2).flops;
        call.attention_backward_products = 7;
        EXPECT_DOUBLE_EQ(op_cost(model, call, 64, 2).flops, row.kind == OpKind::Attention ? 7 * five / 5 : five);
        call.pass = Pass::Forward;
        const double forward = op_cost(model, call, 64, 2).flops;
        call.attention_backward_products = 5;
        EXPECT_EQ(op_cost(model, call, 64, 2).flops, forward) << row.name;
    }
}

TEST(OpCosts, BytesByHand) {
    // GPT-2, 10 tokens, bf16: what moves at least, by operation.
    const Model model = model_of("gpt2");
    constexpr double N = 10, C = 768, F = 3072, QKV = 3 * 768;
    const BatchShape shape = {1, 10};
    const auto bytes = [&](const std::string& name, Pass pass) {
        const auto row = std::find_if(model.block.begin(), model.block.end(),
                                      [&](const OpRow& candidate) { return candidate.name == name; });
        return cost_of(model, *row, pass, shape, 2).bytes;
    };
    EXPECT_EQ(bytes("qkv", Pass::Forward), 2 * (N * (C + QKV) + C * QKV));
    EXPECT_EQ(bytes("qkv", Pass::BackwardWeight), 2 * N * (C + QKV) + 2 * 4 * C * QKV) << "fp32 sums, both ways";
    EXPECT_EQ(bytes("qkv", Pass::BackwardInput), 2 * (N * (C + QKV) + C * QKV));
    EXPECT_EQ(bytes("fc_proj", Pass::Forward), 2 * (N * (F + C + C) + F * C)) << "with the residual";
    const auto gelu =
        std::find_if(model.block.begin(), model.block.end(), [](const OpRow& row) { return row.kind == OpKind::Gelu; });
    EXPECT_EQ(cost_of(model, *gelu, Pass::Forward, shape, 2).bytes, 2 * N * 2 * F);
    EXPECT_EQ(cost_of(model, *gelu, Pass::Backward, shape, 2).bytes, 2 * N * 3 * F);
    EXPECT_EQ(bytes("ln1", Pass::Forward), 2 * N * 2 * C);
    EXPECT_EQ(bytes("ln1", Pass::Backward), 2 * N * 4 * C);
}

TEST(OpCosts, EveryOperationMovesBytesInProportionToTheType) {
    const BatchShape shape = {2, 64};
    for (const Model& model : every_preset()) {
        for (const OpRow& row : model.block) {
            const OpCost half = cost_of(model, row, Pass::Forward, shape, 2);
            const OpCost full = cost_of(model, row, Pass::Forward, shape, 4);
            EXPECT_GT(half.bytes, 0) << row.name;
            EXPECT_DOUBLE_EQ(full.bytes, 2 * half.bytes) << row.name;
            EXPECT_GT(backward_cost(model, row, shape, 2).bytes, half.bytes) << row.name;
        }
    }
}

// ---- Features ----

std::vector<std::string> row_names(const Model& model) {
    std::vector<std::string> names;
    for (const OpRow& row : model.block) names.push_back(row.name);
    return names;
}

TEST(Features, MakeTheBlock) {
    ModelConfig config = preset("llama-nano");
    config.maxT = 32;
    const Model llama = make_model(config);
    EXPECT_EQ(llama.find_parameter("layers.0.qkv_bias"), kNone);
    config.features.qk_norm = config.features.qkv_bias = config.features.mlp_bias = true;
    const Model normed = make_model(config);
    EXPECT_EQ(row_names(normed), (std::vector<std::string>{"ln1", "qkv", "qk_norm", "att", "att_proj", "ln2", "gate_up",
                                                           "swiglu", "fc_proj"}));
    const auto row = [&](const char* name) {
        const int index = normed.find_parameter(name);
        return index == kNone ? ParameterRow() : normed.parameters[static_cast<size_t>(index)];
    };
    EXPECT_EQ(row("layers.1.q_norm_weight").rows, config.HD);
    EXPECT_EQ(row("layers.1.k_norm_weight").init, Init::Ones);
    EXPECT_EQ(row("layers.1.qkv_bias").rows, config.QKV());
    EXPECT_EQ(row("layers.1.gate_up_bias").rows, 2 * config.F);
    EXPECT_EQ(row("layers.1.fc_proj_bias").rows, config.C);
    EXPECT_EQ(normed.find_parameter("layers.1.att_proj_bias"), kNone);
    // Rotated after the norm, not before.
    EXPECT_FALSE(normed.block[1].rope);
    EXPECT_TRUE(normed.block[2].rope);
    EXPECT_TRUE(llama.block[1].rope);
    ModelConfig gpt2 = preset("gpt2-nano");
    gpt2.maxT = 32;
    gpt2.features.activation = Activation::GeluExact;
    EXPECT_EQ(make_model(gpt2).block[6].kind, OpKind::GeluExact);
    gpt2.tied = false;
    const Model untied = make_model(gpt2);
    EXPECT_EQ(untied.parameters[static_cast<size_t>(untied.head)].name, "lm_head");
}

/// Counted pair by pair, as twice the average over queries: without a window T + 1, which is taken as T.
TEST(Features, TheSpanOfAttentionIsTheWindows) {
    ModelConfig config = preset("llama-nano");
    config.maxT = 4096, config.window = 512;
    const auto counted = [](int64_t T, int64_t window) {
        double pairs = 0;
        for (int64_t query = 0; query < T; ++query) pairs += static_cast<double>(std::min(query + 1, window));
        return 2 * pairs / static_cast<double>(T);
    };
    EXPECT_EQ(attention_span(config, 400), 400);
    EXPECT_EQ(attention_span(config, 512), 512);
    EXPECT_NEAR(attention_span(config, 4096), counted(4096, 512), 2);
    config.window_layers = {true, false, false, false};
    EXPECT_NEAR(attention_span(config, 4096), (counted(4096, 512) + 3 * 4096) / 4, 2);
    EXPECT_EQ(attention_span(config, 4096, 1), 4096);
    const Model model = make_model(config);
    ModelConfig without = config;
    without.window = 0;
    const OpRow& attention = model.block[2];
    ASSERT_EQ(attention.kind, OpKind::Attention);
    const OpCall call = {.kind = OpKind::Attention, .row = &attention, .tokens = 4096};
    const double share = op_cost(model, call, 4096, 2).flops / op_cost(make_model(without), call, 4096, 2).flops;
    EXPECT_NEAR(share, attention_span(config, 4096) / 4096, 1e-12);
    EXPECT_LT(model_flops_per_token(model, 4096), model_flops_per_token(make_model(without), 4096));
}

TEST(Features, LayersAreCutWithTheModel) {
    ModelConfig config = preset("llama-nano");
    config.window = 5, config.window_layers = {false, true, true, true}, config.rope_layers = {true, false, true, true};
    const ModelConfig two = with_layers(config, 2);
    EXPECT_EQ(two.L, 2);
    EXPECT_EQ(two.window_of(1), 5);
    EXPECT_EQ(two.window_of(0), 0);
    EXPECT_FALSE(two.rotates(1));
    EXPECT_EQ(with_layers(config, 4), config);
}

}  // namespace
}  // namespace llmc
