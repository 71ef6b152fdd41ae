// Training with dropout: its gradient is that of the loss it has, to the same bits under every policy, place and stage,
// in the memory predicted; packing changes no token's loss, and nothing is dropped but in training.
#include "llmc/plan/search.h"
#include "llmc/train/evaluation.h"
#include "tests/plan/plan_cases.h"
#include "tests/run/frozen_cases.h"
#include "tests/run/rank_team.h"

#include <gtest/gtest.h>

#include <cmath>

namespace llmc {
namespace {

using plan_cases::small_config;

/// All weights train with dropout of the stream, or adapters with both kinds.
Model dropped_model(Family family, int layers, bool adapters) {
    Model model = with_dropout(make_model(small_config(family, layers)), 0.15);
    if (!adapters) return model;
    PeftConfig config;
    config.rank = 3, config.dropout = 0.25, config.target_modules = adaptable_modules(model);
    return with_adapters(std::move(model), config);
}

/// `test` for every such model.
template <typename Test>
void for_each_model(int layers, const Test& test) {
    for (const Family family : {Family::Gpt2, Family::Llama}) {
        for (const bool adapters : {false, true}) {
            SCOPED_TRACE(fmt::format("{}{}", row_of(family).key, adapters ? ", adapters" : ""));
            test(dropped_model(family, layers, adapters));
        }
    }
}

constexpr BatchShape kShape = {3, 24};

TEST(DropoutGradient, MatchesFiniteDifferences) {
    for_each_model(2, [](const Model& model) {
        TinyTrainer trainer(model, kShape, DType::F32, nullptr, "layer");
        State& state = trainer.state();
        state.initialise(3);
        const Tensor parameters = state.all(Buffer::Parameters);
        const auto count = static_cast<size_t>(parameters.count());
        std::vector<float> start(count);
        trainer.backend().copy_to_host(start.data(), parameters);
        for (size_t i = 0; model.lora && i < count; ++i) {  // Both factors count.
            start[i] += 0.1f * (uniform_from_bits(philox(5, RngStream::Test, 0, i)[0]) - 0.5f);
        }
        trainer.backend().copy_to_device(parameters, start.data());
        const auto tokens = trainer.random_tokens(1), targets = trainer.random_tokens(2);
        trainer.micro_batch(tokens.data(), targets.data(), 1.0f / static_cast<float>(kShape.N()));
        const std::vector<float> gradient = trainer.gradients();
        double norm = 0;
        for (const float g : gradient) norm += std::isfinite(g) ? static_cast<double>(g) * g : 0;
        norm = std::sqrt(norm);
        const auto loss_at = [&](double distance) {
            std::vector<float> moved = start;
            for (size_t i = 0; i < count; ++i) {
                if (std::isfinite(gradient[i])) moved[i] += static_cast<float>(distance * gradient[i] / norm);
            }
            trainer.backend().copy_to_device(parameters, moved.data());
            return trainer.micro_batch(tokens.data(), targets.data(), 0);
        };
        const auto slope = [&](double step) { return (loss_at(step) - loss_at(-step)) / (2 * step); };
        EXPECT_NEAR((4 * slope(0.01) - slope(0.02)) / 3, norm, 0.005 * norm);
    });
}

TEST(Dropout, SameBitsUnderEveryPolicyInTheMemoryPredicted) {
    for (const DType dtype : {DType::F32, DType::BF16}) {
        if (dtype == DType::BF16 && !make_backend("cpu", 1)->info().supports_bf16) continue;
        for_each_model(5, [&](const Model& model) {
            TinyTrainer reference(model, kShape, dtype, nullptr, "none", 1);
            const FrozenRun expected = run_frozen(reference);
            for (const PolicyRow& policy : policies()) {
                TinyTrainer trainer(model, kShape, dtype, nullptr, policy.name, 2);
                EXPECT_TRUE(run_frozen(trainer) == expected) << policy.name << " " << name_of(dtype);
                EXPECT_EQ(trainer.state().allocated_bytes(), trainer.memory().total_bytes()) << policy.name;
                EXPECT_EQ(trainer.executor().high_water_bytes(), trainer.memory().layout.arena_bytes) << policy.name;
            }
        });
    }
}

TEST(Dropout, SearchedPlansKeepTheBits) {
    for_each_model(5, [](const Model& model) {
        TinyTrainer reference(model, kShape, DType::F32, nullptr, "none", 1);
        const FrozenRun expected = run_frozen(reference);
        const Places places = model.lora ? for_adapters(DType::F32) : Places(DType::F32);
        const PlanRequest request = plan_request(model, kShape, places, 0, reference.backend());
        const OpTimes times = analytic_times(model, kShape, places, {"test", 1e12, 2e12, 1e11, 1e-7, 0.8});
        const int64_t least = search_plan(model, request, times, 1).smallest_bytes;
        const int64_t most = reference.memory().layout.arena_bytes;
        for (const int64_t budget : {least, (least + most) / 2, most}) {
            const SearchResult result = search_plan(model, request, times, budget);
            ASSERT_TRUE(result.found) << budget;
            EXPECT_LE(make_layout(result.plan).arena_bytes, budget);
            TinyTrainer trainer(model, kShape, DType::F32, &result.keep, "none", 1);
            EXPECT_TRUE(run_frozen(trainer) == expected) << result.summary;
        }
    });
}

TeamRun dropped_run(Family family, int64_t lora) {
    TeamRun run;
    run.config = small_config(family, 3);
    run.config.maxT = 16;
    run.dropout = 0.2, run.lora = lora, run.lora_dropout = lora > 0 ? 0.3 : 0;
    return run;
}

TEST(DropoutRanks, PlacesAndStagesGiveTheSameBits) {
    for (const Family family : {Family::Gpt2, Family::Llama}) {
        for (const int64_t lora : {0, 3}) {
            TeamRun run = dropped_run(family, lora);
            run.parallel.ranks = 2;
            const TeamResult expected = RankTeam(run).train();
            for (const auto& [zero, offload, policy, ahead] :
                 {std::tuple(3, "none", "sqrt", 0), std::tuple(2, "all", "act", 0),
                  std::tuple(1, "moments", "layer", 1), std::tuple(0, "boundaries", "none", 0)}) {
                run.zero = zero, run.offload = offload, run.policy = policy, run.update_ahead = ahead;
                const TeamResult team = RankTeam(run).train();
                EXPECT_EQ(team.losses, expected.losses) << "ZeRO " << zero << ", " << offload << ", " << policy;
                EXPECT_EQ(team.weights, expected.weights) << "ZeRO " << zero << ", " << offload << ", " << policy;
            }
        }
    }
}

TEST(DropoutRanks, FixedOrderGivesTheBitsOfOneRank) {
    for (const int64_t lora : {0, 3}) {
        TeamRun run = dropped_run(Family::Llama, lora);
        run.parallel.rank_invariant = true;
        run.parallel.micro_batches = 4;
        const TeamResult expected = RankTeam(run).train();
        for (const int ranks : {2, 4}) {
            run.parallel.ranks = ranks, run.parallel.micro_batches = 4 / ranks, run.zero = ranks == 2 ? 1 : 3;
            const TeamResult team = RankTeam(run).train();
            EXPECT_EQ(team.norms, expected.norms) << ranks;
            EXPECT_EQ(team.weights, expected.weights) << ranks;
        }
    }
}

std::vector<float> losses_of(TinyTrainer& trainer, const Batch& batch) {
    RunArguments arguments;
    arguments.turn = TinyTrainer::kNoUpdate;
    arguments.scored = put_batch(trainer.executor(), trainer.backend(), batch);
    trainer.state().initialise(3);
    trainer.state().set_loss_scale(1);
    trainer.run(arguments);
    std::vector<float> losses(batch.tokens.size());
    trainer.backend().copy_to_host(losses.data(), trainer.executor().losses());
    return losses;
}

/// Documents that begin at tiles of attention: packed in one sequence, or each in one of its own.
TEST(Dropout, PackedADocumentHasTheMasksThatItHasAlone) {
    constexpr int64_t kLength = kDocumentTile;
    for_each_model(2, [](const Model& model) {
        TinyTrainer alone(model, {2, kLength}, DType::F32, nullptr, "layer", 1);
        TinyTrainer packed(model, {1, 2 * kLength, /*packed=*/true}, DType::F32, nullptr, "none", 1);
        Batch batch;
        batch.tokens = alone.random_tokens(1), batch.targets = alone.random_tokens(2);
        for (const int32_t number : {70, 3}) batch.numbers.insert(batch.numbers.end(), kLength, number);
        const std::vector<float> expected = losses_of(alone, batch);
        batch.documents.assign(kLength, 0);
        batch.documents.insert(batch.documents.end(), kLength, kLength);
        EXPECT_EQ(losses_of(packed, batch), expected);
        batch.numbers[kLength] = 4;
        EXPECT_NE(losses_of(packed, batch), expected);
    });
}

/// Of a model with dropout an evaluation has the bits of the same one without.
TEST(Dropout, EvaluationDropsNothing) {
    for_each_model(3, [](const Model& model) {
        for (const DType dtype : {DType::F32, DType::BF16}) {
            if (dtype == DType::BF16 && !make_backend("cpu", 1)->info().supports_bf16) continue;
            Model plain = make_model(model.config);
            plain = with_lora(std::move(plain), {model.lora.rank, model.lora.targets});
            std::vector<std::vector<float>> losses;
            for (const Model& which : {model, plain}) {
                TinyTrainer trainer(which, kShape, dtype, nullptr, "none", 1);
                trainer.state().initialise(4);
                const Plan plan = plan_evaluation(which, trainer.plan(), trainer.backend());
                const Layout layout = make_layout(plan);
                Executor executor(trainer.state(), plan, layout);
                EXPECT_FALSE(executor.mask_rows());
                trainer.backend().copy_to_device(executor.tokens(), trainer.random_tokens(1).data());
                trainer.backend().copy_to_device(executor.targets(), trainer.random_tokens(2).data());
                executor.run({});
                losses.emplace_back(static_cast<size_t>(kShape.N()));
                trainer.backend().copy_to_host(losses.back().data(), executor.losses());
            }
            EXPECT_EQ(losses[0], losses[1]) << name_of(dtype);
        }
    });
}

}  // namespace
}  // namespace llmc
