// Plans in tiles: that they are right by the verifier, that the verifier sees what is wrong with others, and what tiles
// do to memory and time.
#include "llmc/plan/tiles.h"

#include "llmc/model/lora.h"
#include "llmc/plan/cost.h"
#include "llmc/plan/policy.h"
#include "llmc/plan/simulate.h"
#include "llmc/plan/token_blocks.h"
#include "llmc/plan/verify.h"
#include "tests/plan/plan_cases.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <map>
#include <set>
#include <tuple>

namespace llmc {
namespace {

using namespace plan_cases;

PlanRequest tiled_request(const Model& model, const BatchShape& shape, int64_t block, int64_t tile) {
    PlanRequest request = request_of(model, shape, DType::F32, /*workspace=*/1000);
    request.block_tokens = block, request.tile_tokens = tile;
    return request;
}

std::string fault_of(const Model& model, const Plan& plan) { return find_fault(model, plan, make_layout(plan)); }

/// Ranks, places and depths that tiles have to get on with.
TEST(TilePlans, AreRightUnderEveryPolicy) {
    for (const Model& model : small_models(5)) {
        for (const auto& [block, tile] : {std::pair<int64_t, int64_t>{16, 16}, {16, 48}, {64, 128}, {512, 512}}) {
            for (const PolicyRow& policy : policies()) {
                const Plan plan = make_training_plan(model, tiled_request(model, {3, 67}, block, tile), policy);
                EXPECT_EQ(plan.tile_tokens, tile < 201 ? tile : 0);
                EXPECT_EQ(fault_of(model, plan), "")
                    << label(model, plan.shape, DType::F32, policy.name) << " " << tile;
            }
            PlanRequest request = tiled_request(model, {3, 67}, block, tile);
            EXPECT_EQ(fault_of(model, make_evaluation_plan(model, request)), "");
            request.parallel.ranks = 4;
            for (const int zero : {0, 1, 2, 3}) {
                request.places = places_of_zero(zero, 4, DType::F32);
                EXPECT_EQ(fault_of(model, make_training_plan(model, request, find_policy("sqrt"))), "") << zero;
            }
        }
    }
}

TEST(TilePlans, AreRightUnderRandomKeepSets) {
    Dice dice(3);
    for (int i = 0; i < 60; ++i) {
        const Model model = small_models(4)[static_cast<size_t>(i % 4)];
        const KeepSet keep = random_keep_set(model, dice);
        const Plan plan = make_training_plan(model, tiled_request(model, {1, 101}, 16, 32), keep, "random");
        EXPECT_EQ(fault_of(model, plan), "") << i;
    }
}

/// The work of a plan with tiles is that of the plan without, but for norms before attention's products, which run once
/// more where they would still have been there.
TEST(TilePlans, DoTheSameWorkInPieces) {
    using Key = std::tuple<int, int, Pass, bool>;
    const auto tokens_of = [](const Plan& plan) {
        std::map<Key, int64_t> tokens;
        for (const Step& step : plan.steps) {
            if (step.kind != StepKind::Compute || step.row < 0) continue;
            tokens[{step.layer, step.row, step.pass, step.phase == Phase::Recompute}] +=
                step.is_of_tile() ? step.tokens : plan.shape.N();
        }
        return tokens;
    };
    const Model model = small_model(Family::Llama, 4);
    const Plan whole = make_training_plan(model, tiled_request(model, {2, 100}, 32, 0), find_policy("layer"));
    const Plan tiled = make_training_plan(model, tiled_request(model, {2, 100}, 32, 32), find_policy("layer"));
    const auto of_whole = tokens_of(whole), of_tiled = tokens_of(tiled);
    for (const auto& [key, tokens] : of_tiled) {
        const auto [layer, row, pass, repeated] = key;
        const std::string& name = model.block[static_cast<size_t>(row)].name;
        const auto found = of_whole.find(key);
        const int64_t before = found == of_whole.end() ? 0 : found->second;
        if (repeated && (name == "ln1" || layer == 3)) {
            EXPECT_LE(tokens, before + whole.shape.N()) << name << " of layer " << layer;
        } else {
            EXPECT_EQ(tokens, before) << name << " of layer " << layer;
        }
    }
    const OpTimes times = analytic_times(model, whole.shape, DType::F32, find_device_profile("h100"), {64, 32});
    EXPECT_LT(plan_seconds(times, tiled), 1.25 * plan_seconds(times, whole));
}

/// The first step that a test likes.
Step& find_step(Plan& plan, const std::function<bool(const Step&)>& is_it) {
    return *std::find_if(plan.steps.begin(), plan.steps.end(), is_it);
}

TEST(TilePlans, FaultsAreSeen) {
    const Model model = small_model(Family::Gpt2, 3);
    const Plan right = make_training_plan(model, tiled_request(model, {1, 100}, 16, 32), find_policy("layer"));
    ASSERT_EQ(fault_of(model, right), "");
    const auto expect_fault = [&](const std::string& words, const std::function<void(Plan&)>& spoil) {
        Plan plan = right;
        spoil(plan);
        const std::string fault = fault_of(model, plan);
        EXPECT_NE(fault.find(words), std::string::npos) << "\"" << fault << "\" and not \"" << words << "\"";
    };
    const auto is_weight_gradient = [](const Step& step) {
        return step.is_of_tile() && step.first_token == 32 && step.pass == Pass::BackwardWeight;
    };
    // A tile's weight gradient left out, which no memory shows; twice; too long; in part of a block.
    expect_fault("begins at token 64 instead of 32", [&](Plan& plan) {
        plan.steps.erase(plan.steps.begin() + (&find_step(plan, is_weight_gradient) - plan.steps.data()));
    });
    expect_fault("begins at token 32 instead of 64", [&](Plan& plan) {
        const auto at = plan.steps.begin() + (&find_step(plan, is_weight_gradient) - plan.steps.data());
        plan.steps.insert(at, *at);
    });
    expect_fault("too many tokens", [&](Plan& plan) { find_step(plan, is_weight_gradient).tokens = 68; });
    expect_fault("too many tokens", [&](Plan& plan) { find_step(plan, is_weight_gradient).tokens = 24; });
    // What the last tile left, for the first of the next loop.
    expect_fault("of its own tokens", [&](Plan& plan) {
        const auto is_repeat = [](const Step& step) {
            return step.phase == Phase::Recompute && step.is_of_tile() && step.first_token == 64 &&
                   step.op == OpKind::Gelu;
        };
        plan.steps.erase(plan.steps.begin() + (&find_step(plan, is_repeat) - plan.steps.data()));
    });
    expect_fault("needs all of them", [&](Plan& plan) {
        find_step(plan, [](const Step& step) { return step.op == OpKind::Attention; }).tokens = 32;
    });
    expect_fault("a plan without tiles", [&](Plan& plan) { plan.tile_tokens = 0; });
    expect_fault("ends before", [&](Plan& plan) {
        for (size_t i = plan.steps.size(); i-- > 0;) {
            if (!plan.steps[i].is_of_tile() || plan.steps[i].first_token != 96) continue;
            if (plan.steps[i].pass != Pass::BackwardWeight) continue;
            plan.steps.erase(plan.steps.begin() + static_cast<int64_t>(i));
            return;
        }
    });
}

/// Attention's backward, of a layer.
bool is_attention_backward(const Step& step, int layer) {
    return step.op == OpKind::Attention && step.pass == Pass::Backward && step.layer == layer;
}

/// With tiles the gradient of queries, keys and values is in their place, whatever writes and reads them; and its step
/// has the workspace and the price of that.
TEST(TilePlans, AttentionsGradientTakesThePlaceOfItsInput) {
    std::vector<Model> models = small_models(3);
    LoraSpec lora;
    lora.rank = 3, lora.targets = {{"qkv_weight", "q", 0, 48, 2}, {"qkv_weight", "v", 64, 16, 2}};
    models.push_back(with_lora(small_model(Family::Llama, 3), lora));
    for (const Model& model : models) {
        const PlanRequest request = tiled_request(model, {2, 50}, 16, 32);
        PlanRequest whole_request = request;
        whole_request.tile_tokens = 0;
        const auto row = static_cast<size_t>(
            std::find_if(model.block.begin(), model.block.end(),
                         [](const OpRow& candidate) { return candidate.kind == OpKind::Attention; }) -
            model.block.begin());
        const WorkspaceBytes::Row& bytes = request.workspace.block[row];
        for (const PolicyRow& policy : policies()) {
            Plan tiled = make_training_plan(model, request, policy);
            Plan whole = make_training_plan(model, whole_request, policy);
            for (int layer = 0; layer < 3; ++layer) {
                const auto is_it = [&](const Step& step) { return is_attention_backward(step, layer); };
                const Step &in_place = find_step(tiled, is_it), &apart = find_step(whole, is_it);
                const std::string where = model.config.name + ", " + policy.name;
                EXPECT_EQ(storage_of(tiled, in_place.operand(Slot::DIn)), storage_of(tiled, in_place.operand(Slot::In)))
                    << where;
                EXPECT_NE(storage_of(whole, apart.operand(Slot::DIn)), storage_of(whole, apart.operand(Slot::In)))
                    << where;
                EXPECT_EQ(tiled.tensor(in_place.operand(Slot::Workspace)).rows, bytes.backward_in_place) << where;
                EXPECT_EQ(whole.tensor(apart.operand(Slot::Workspace)).rows, bytes.backward) << where;
                const double copies = 2.0 * 100 * 2 * static_cast<double>(model.config.NKV * model.config.HD) * 4;
                EXPECT_EQ(step_cost(model, tiled, in_place, 5).bytes, step_cost(model, whole, apart, 5).bytes + copies);
                const OpTimes times = analytic_times(model, tiled.shape, DType::F32, find_device_profile("h100"));
                EXPECT_DOUBLE_EQ(step_seconds(times, in_place), step_seconds(times, apart) + copies * times.unpacking);
            }
        }
    }
}

/// What no byte of memory would show at once: queries, keys and values are read again although their gradient is there;
/// and a gradient in the place of an input that its operation still needs.
TEST(TilePlans, ReadsOfWhatWasReplacedAreSeen) {
    const Model model = small_model(Family::Gpt2, 3);
    for (const char* policy : {"none", "layer"}) {
        Plan plan = make_training_plan(model, tiled_request(model, {1, 100}, 16, 32), find_policy(policy));
        ASSERT_EQ(fault_of(model, plan), "");
        const Step backward = find_step(plan, [](const Step& step) { return is_attention_backward(step, 1); });
        const auto forward = std::find_if(plan.steps.begin(), plan.steps.end(), [](const Step& step) {
            return step.op == OpKind::Attention && step.pass == Pass::Forward && step.layer == 1;
        });
        Step again = *forward;
        again.phase = Phase::Recompute;
        again.operand(Slot::In) = backward.operand(Slot::In);
        const auto at = std::find_if(plan.steps.begin(), plan.steps.end(),
                                     [](const Step& step) { return is_attention_backward(step, 1); });
        plan.steps.insert(at + 1, again);
        EXPECT_NE(fault_of(model, plan).find("needs qkv of layer 1, which d_qkv of layer 1 has overwritten"),
                  std::string::npos)
            << fault_of(model, plan);
    }
    Plan plan = make_training_plan(model, tiled_request(model, {1, 100}, 16, 0), find_policy("none"));
    Step& gelu =
        find_step(plan, [](const Step& step) { return step.op == OpKind::Gelu && step.pass == Pass::Backward; });
    plan.tensors[static_cast<size_t>(gelu.operand(Slot::DIn))].alias = gelu.operand(Slot::In);
    EXPECT_NE(fault_of(model, plan).find("which d_fc_out of layer 2 has overwritten"), std::string::npos)
        << fault_of(model, plan);
}

TEST(TilePlans, SmallerTilesTakeLessMemory) {
    for (const Model& model : small_models(6)) {
        for (const char* policy : {"layer", "sqrt", "offload", "attn"}) {
            int64_t before =
                make_layout(make_training_plan(model, tiled_request(model, {1, 4096}, 128, 0), find_policy(policy)))
                    .arena_bytes;
            for (const int64_t tile : {2048, 512, 128}) {
                const Plan plan =
                    make_training_plan(model, tiled_request(model, {1, 4096}, 128, tile), find_policy(policy));
                const int64_t bytes = make_layout(plan).arena_bytes;
                EXPECT_LE(bytes, before) << model.config.name << ", " << policy << ", " << tile;
                before = bytes;
            }
        }
    }
}

/// llama3.2-1b at 131,072 tokens with its inputs on the host needed 15.3 GB. By plan, without the backend's scratch.
TEST(TilePlans, TakeAThirdOfALongContext) {
    const Model model = make_model(preset("llama3.2-1b"));
    PlanRequest request;
    request.shape = {1, 1 << 17};
    request.places = Places(DType::BF16);
    request.logits_chunk_tokens = default_logits_chunk(model, request.shape, "sm_90");
    request.block_tokens = default_block_tokens(model, request.shape, "sm_90");
    const Plan whole = make_training_plan(model, request, find_policy("offload"));
    request.tile_tokens = request.block_tokens;
    const Plan tiled = make_training_plan(model, request, find_policy("offload"));
    EXPECT_NEAR(static_cast<double>(make_layout(whole).arena_bytes), 15.3e9, 0.1e9);
    EXPECT_LT(static_cast<double>(make_layout(tiled).arena_bytes), 15.3e9 / 3);
    // Attention's backward has, of X = all tokens' channels: two layers' inputs and the stream's gradient, queries,
    // keys and values or their gradient (1.5 X), its output and the gradient of that; and a log-sum-exp for each head.
    const Simulation simulation = simulate(model, tiled);
    const double X = static_cast<double>(request.shape.N() * model.config.C * size_of(DType::BF16));
    int64_t most = 0;
    for (size_t i = 0; i < tiled.steps.size(); ++i) {
        const Step& step = tiled.steps[i];
        const bool is_it = step.op == OpKind::Attention && step.pass == Pass::Backward;
        if (is_it) most = std::max(most, simulation.live_bytes[i]);
    }
    EXPECT_NEAR(static_cast<double>(most), 6.5 * X, 0.05 * X);
    const OpTimes times = analytic_times(model, request.shape, request.places, find_device_profile("h100"),
                                         {request.logits_chunk_tokens, request.block_tokens});
    EXPECT_LT(plan_seconds(times, tiled), 1.1 * plan_seconds(times, whole));
}

TEST(TilePlans, ChoicesGoFromAllTokensToABlock) {
    EXPECT_EQ(tile_choices(128, 100), (std::vector<int64_t>{0}));
    EXPECT_EQ(tile_choices(128, 129), (std::vector<int64_t>{0, 128}));
    EXPECT_EQ(tile_choices(128, 4096), (std::vector<int64_t>{0, 1024, 256, 128}));
    EXPECT_EQ(tile_choices(0, 4096), (std::vector<int64_t>{0}));
    EXPECT_EQ(tile_tokens_of(129, 128, 4096), 256);
    EXPECT_EQ(tile_tokens_of(4000, 128, 4096), 0) << "as many as there are: no tiles";
    EXPECT_EQ(tile_tokens_of(0, 128, 4096), 0);
}

TEST(TokenBlocks, AreAMultipleAndDependOnModelShapeAndKindAlone) {
    for (const std::string& name : {std::string("gpt2"), std::string("llama3.2-1b"), std::string("llama3-8b")}) {
        const Model model = make_model(preset(name));
        for (const TokensByKind& row : token_blocks_table()) {
            EXPECT_EQ(row.tokens % kBlockMultiple, 0);
            const int64_t block = default_block_tokens(model, {1, 1 << 20}, row.kind);
            EXPECT_EQ(block % kBlockMultiple, 0) << name << ", " << row.kind;
            EXPECT_GE(block, row.tokens);
            EXPECT_EQ(default_block_tokens(model, {1, 100}, row.kind), 100) << "one block is no block";
            EXPECT_EQ(default_block_tokens(model, {8, 1 << 17}, row.kind), block);
        }
    }
}

/// What a block costs by the cost model: at most 2 % of a layer, forward and backward, where attention takes little.
TEST(TokenBlocks, CostAtMostTwoPercentByTheCostModel) {
    for (const std::string& name : {std::string("gpt2"), std::string("llama3.2-1b"), std::string("llama3-8b")}) {
        const Model model = make_model(preset(name));
        const BatchShape shape = {128, 1024};
        for (const DeviceProfile& profile : device_profiles()) {
            const int64_t block = default_block_tokens(model, shape, profile.kind);
            const auto seconds = [&](int64_t tokens) {
                const OpTimes times = analytic_times(model, shape, DType::BF16, profile, {0, tokens});
                double sum = 0;
                for (const OpTimes::Row& row : times.block) sum += row.forward + row.backward + row.backward_weight;
                return sum;
            };
            EXPECT_LT(seconds(block), 1.02 * seconds(0)) << name << ", " << profile.name;
        }
    }
}

}  // namespace
}  // namespace llmc
