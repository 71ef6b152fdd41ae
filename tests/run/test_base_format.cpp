// Frozen matrices that are stored otherwise than they are read: the bits are those of the values that are stored, under
// every policy, at every place, in the memory predicted.
#include "llmc/io/peft/adapters.h"
#include "llmc/plan/search.h"
#include "llmc/plan/stored_row.h"
#include "llmc/train/checkpointing.h"
#include "tests/plan/plan_cases.h"
#include "tests/run/rank_team.h"

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

namespace llmc {
namespace {

constexpr WeightFormat kFormats[] = {WeightFormat::F32, WeightFormat::BF16, WeightFormat::Nf4, WeightFormat::Nf4Double};

/// Last blocks of matrices are short.
ModelConfig config_of_case(Family family, int L) {
    ModelConfig config = plan_cases::small_config(family, L);
    config.maxT = 16, config.F = 133;
    return config;
}

Model adapted(const ModelConfig& config, const std::string& bias = "none") {
    const Model base = make_model(config);
    PeftConfig adapters;
    adapters.rank = 3, adapters.target_modules = adaptable_modules(base), adapters.bias = bias;
    return with_adapters(base, adapters);
}

bool has_bf16() { return make_backend("cpu", 1)->info().supports_bf16; }

std::vector<DType> types() { return has_bf16() ? std::vector{DType::F32, DType::BF16} : std::vector{DType::F32}; }

/// The values of a row as operations compute with them in fp32.
std::vector<float> stored_values(const State& state, int index) {
    const ParameterRow& row = state.model().parameters[static_cast<size_t>(index)];
    std::vector<float> values(static_cast<size_t>(row.used_rows * row.cols));
    const ElementRange all = state.held(index);
    if (!is_nf4(state.format_of(index))) {
        state.read_kept(Kept::Weights, index, all, values.data());
        return values;
    }
    std::vector<std::byte> stored(static_cast<size_t>(all.count()));
    state.backend().copy_to_host(stored.data(), state.kept(Kept::Weights, index, all));
    unpack_row(row, state.format_of(index), stored, values);
    return values;
}

TinyTrainer trainer_of(const Model& model, DType dtype, WeightFormat base, const std::string& policy = "none",
                       const KeepSet* keep = nullptr) {
    return {model, {2, 9}, dtype, keep, policy, 1, 0, "cpu", true, base};
}

/// Losses, gradients and norms of three updates.
std::vector<float> train(TinyTrainer& trainer) {
    std::vector<float> result;
    trainer.set_optimizer({}, 1e-2f);
    for (uint64_t step = 1; step <= 3; ++step) {
        const std::vector<int32_t> tokens = trainer.random_tokens(step), targets = trainer.random_tokens(step + 100);
        result.push_back(
            static_cast<float>(trainer.micro_batch(tokens.data(), targets.data(), 1.0f / 18, TinyTrainer::kOnly)));
        const std::vector<float> gradients = trainer.gradients();
        result.insert(result.end(), gradients.begin(), gradients.end());
        result.push_back(static_cast<float>(trainer.norm()));
    }
    return result;
}

/// Of a micro-batch without an update.
double first_loss(TinyTrainer& trainer) {
    const std::vector<int32_t> tokens = trainer.random_tokens(1), targets = trainer.random_tokens(101);
    return trainer.micro_batch(tokens.data(), targets.data(), 1.0f / 18);
}

TEST(BaseFormat, BitsAreThoseOfTheValuesStored) {
    for (const Family family : {Family::Gpt2, Family::Llama}) {
        const Model model = adapted(config_of_case(family, 2));
        for (const DType dtype : types()) {
            for (const WeightFormat base : kFormats) {
                TinyTrainer stored = trainer_of(model, dtype, base),
                            plain = trainer_of(model, dtype, WeightFormat::F32);
                stored.state().initialise(7);
                for (int row = 0; row < static_cast<int>(model.parameters.size()); ++row) {
                    plain.state().write_row(row, [&] { return stored_values(stored.state(), row); });
                }
                EXPECT_EQ(train(stored), train(plain))
                    << row_of(family).key << " " << name_of(dtype) << " " << name_of(base);
            }
        }
    }
}

TEST(BaseFormat, QuantisedMatricesAreNearTheirValues) {
    const Model model = adapted(config_of_case(Family::Llama, 2));
    TinyTrainer exact = trainer_of(model, DType::F32, WeightFormat::F32);
    exact.state().initialise(7);
    double loss = 0;  ///< Of the exact values, once they have been compared.
    for (const WeightFormat base : {WeightFormat::Nf4, WeightFormat::Nf4Double}) {
        TinyTrainer trainer = trainer_of(model, DType::F32, base);
        trainer.state().initialise(7);
        int quantised = 0;
        for (int row = 0; row < static_cast<int>(model.parameters.size()); ++row) {
            const std::vector<float> ours = stored_values(trainer.state(), row),
                                     theirs = stored_values(exact.state(), row);
            const bool is_in_nf4 = is_nf4(trainer.state().format_of(row));
            quantised += is_in_nf4 ? 1 : 0;
            EXPECT_EQ(ours != theirs, is_in_nf4) << model.parameters[static_cast<size_t>(row)].name;
            // Half of the widest gap between neighbours, in units of the block's largest.
            for (size_t i = 0; i < ours.size() && is_in_nf4; ++i) ASSERT_NEAR(ours[i], theirs[i], 0.155 * 0.1) << row;
        }
        EXPECT_EQ(quantised, 2 * 4);
        if (loss == 0) loss = first_loss(exact);
        EXPECT_NEAR(first_loss(trainer), loss, 0.02);
    }
}

TEST(BaseFormat, SameBitsUnderEveryPolicyAndSearchInTheMemoryPredicted) {
    for (const DType dtype : types()) {
        const Model model = adapted(config_of_case(Family::Llama, 3));
        const WeightFormat base = WeightFormat::Nf4Double;
        TinyTrainer reference = trainer_of(model, dtype, base);
        reference.state().initialise(7);
        const std::vector<float> expected = train(reference);
        const auto expect_same = [&](TinyTrainer& trainer, const std::string& words) {
            EXPECT_EQ(trainer.state().allocated_bytes(),
                      trainer.memory().state.total() + trainer.memory().layout.arena_bytes);
            trainer.state().initialise(7);
            EXPECT_EQ(train(trainer), expected) << words;
            EXPECT_EQ(trainer.executor().high_water_bytes(), trainer.memory().layout.arena_bytes) << words;
        };
        for (const PolicyRow& policy : policies()) {
            TinyTrainer trainer = trainer_of(model, dtype, base, policy.name);
            expect_same(trainer, policy.name);
        }
        Places places = for_adapters(dtype);
        places.set_base(base);
        const auto backend = make_backend("cpu", 1);
        const BatchShape shape = {2, 9};
        const PlanRequest request = plan_request(model, shape, places, 0, *backend);
        const OpTimes times = analytic_times(model, shape, places, {"test", 1e12, 2e12, 1e11, 1e-7, 0.8});
        const int64_t least = search_plan(model, request, times, 1).smallest_bytes;
        for (const int64_t budget : {least, (least + reference.memory().layout.arena_bytes) / 2}) {
            const SearchResult found = search_plan(model, request, times, budget);
            ASSERT_TRUE(found.found) << budget;
            EXPECT_LE(make_layout(found.plan).arena_bytes, budget);
            TinyTrainer trainer = trainer_of(model, dtype, base, "none", &found.keep);
            expect_same(trainer, found.summary);
        }
    }
}

/// A base in host memory streams in as it is stored, and never out; pieces are cut anywhere in a row.
TEST(BaseFormat, PlacesRanksAndPoliciesGiveTheSameBits) {
    int mixtures = 0;
    for (const WeightFormat base : {WeightFormat::Nf4, WeightFormat::Nf4Double, WeightFormat::BF16}) {
        TeamRun run;
        run.config = config_of_case(base == WeightFormat::Nf4 ? Family::Gpt2 : Family::Llama, 3);
        run.lora = 3, run.base = base;
        for (const int ranks : {1, 2, 3}) {
            run.parallel.ranks = ranks, run.parallel.micro_batches = ranks == 1 ? 2 : 1;
            run.zero = 0, run.policy = "none", run.offload = "none";
            const TeamResult expected = RankTeam(run).train();
            for (int zero = 0; zero <= (ranks == 1 ? 0 : 3); zero += 3) {
                for (const char* offload : {"none", "parameters", "all"}) {
                    run.zero = zero, run.offload = offload, run.policy = zero == 0 ? "sqrt" : "act";
                    const TeamResult team = RankTeam(run).train();
                    const std::string words =
                        fmt::format("{}, {} ranks, ZeRO {}, {}", name_of(base), ranks, zero, offload);
                    EXPECT_EQ(team.losses, expected.losses) << words;
                    EXPECT_EQ(team.norms, expected.norms) << words;
                    EXPECT_EQ(team.weights, expected.weights) << words;
                    ++mixtures;
                }
            }
        }
    }
    EXPECT_EQ(mixtures, 3 * (3 + 6 + 6));
}

/// What trains is kept in fp32 beside adapters, and the base's operations read it in the type of activations.
TEST(BaseFormat, BiasesTrainBesideAdaptersInAnyType) {
    for (const DType dtype : types()) {
        const Model model = adapted(config_of_case(Family::Gpt2, 2), "all");
        std::vector<float> expected;
        for (const char* policy : {"none", "layer", "sqrt"}) {
            TinyTrainer trainer = trainer_of(model, dtype, WeightFormat::Nf4, policy);
            trainer.state().initialise(7);
            const int bias = model.find_parameter("layers.1.fc_bias");
            EXPECT_EQ(trainer.state().format_of(bias), WeightFormat::F32);
            const std::vector<float> run = train(trainer);
            if (expected.empty()) expected = run;
            EXPECT_EQ(run, expected) << name_of(dtype) << " " << policy;
            const std::vector<float> after = stored_values(trainer.state(), bias);
            EXPECT_TRUE(std::any_of(after.begin(), after.end(), [](float value) { return value != 0; }));
        }
    }
}

}  // namespace
}  // namespace llmc
