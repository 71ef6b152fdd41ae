// The loss over the targets that count, and packed sequences, on whole models: against PyTorch, against rows of their
// own, under every policy, and with a head that runs for the rows that count alone.
#include "llmc/base/file.h"
#include "llmc/train/data_loader.h"
#include "tests/backend/null_backend.h"
#include "tests/run/family_cases.h"
#include "tests/run/golden.h"
#include "tests/train/marked_source.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <cmath>
#include <cstring>

namespace llmc {
namespace {

/// The sum of the losses of a micro-batch, or of the update so far.
double run_batch(TinyTrainer& trainer, const Batch& batch, double scored, Turn turn = TinyTrainer::kNoUpdate) {
    trainer.state().set_loss_scale(static_cast<float>(1 / scored));
    RunArguments arguments = {.turn = turn};
    arguments.scored = put_batch(trainer.executor(), trainer.backend(), batch);
    trainer.run(arguments);
    double sum = 0;
    trainer.backend().copy_to_host(&sum, trainer.state().loss_sum());
    return sum;
}

double norm_of(const std::vector<float>& values) {
    double sum = 0;
    for (const float value : values) sum += static_cast<double>(value) * value;
    return std::sqrt(sum);
}

double relative_distance(const std::vector<float>& a, const std::vector<float>& b) {
    std::vector<float> difference(a.size());
    for (size_t i = 0; i < a.size(); ++i) difference[i] = a[i] - b[i];
    return norm_of(difference) / norm_of(b);
}

// ---- Against PyTorch -----------------------------------------------------------------------------------------------

struct ScoredCase {
    std::string pack;
    int64_t B;
    bool knows;  ///< The plan has the rows that count alone.
};

/// Rows of unequal lengths and numbers of targets that count; one update of several micro-batches.
TEST(ScoredLoss, IsThatOfPyTorchHoweverTheRowsAreCut) {
    const auto cases = nlohmann::json::parse(read_text("tests/golden/scored_loss.json"));
    for (const auto& [name, expected] : cases.items()) {
        const Golden golden(name);
        std::vector<MarkedRow> rows;
        for (const auto& row : expected["rows"])
            rows.push_back({row["ids"].get<std::vector<int32_t>>(), row["scored"].get<std::vector<int>>()});
        const MarkedSource source(rows);
        const double loss = expected["loss"].get<double>(), wrong = expected["mean_of_means"].get<double>();
        for (const ScoredCase& c : {ScoredCase{"documents", 1, true},
                                    {"documents", 2, true},
                                    {"documents", 2, false},
                                    {"none", 1, true},
                                    {"none", 3, true},
                                    {"none", 8, false},
                                    {"none", 4, true}}) {
            const int64_t T = golden.shape().T;
            const auto sequences = training_sequences(
                TokenRange(source), {c.pack, T, static_cast<int32_t>(golden.config().V), 1, "--data"});
            const BatchShape shape = {c.B, T, sequences->packed(), c.knows};
            TinyTrainer trainer(golden.config(), shape, DType::F32, "layer", 2, /*logits_chunk=*/5);
            load_parameters(golden, trainer);
            const int64_t count = sequences->per_epoch();
            const int64_t scored = scored_in(*sequences, 0, count);
            EXPECT_EQ(scored, expected["scored"].get<int64_t>());
            DataLoader loader(*sequences, c.B);
            double sum = 0;
            for (int64_t first = 0; first < count; first += c.B) {
                Batch batch = loader.next();
                const int64_t counted = std::min(c.B, count - first);  // Behind the last the first comes again.
                std::fill(batch.targets.begin() + counted * T, batch.targets.end(), -1);
                sum = run_batch(trainer, batch, static_cast<double>(scored),
                                {.first = first == 0, .last = first + c.B >= count});
            }
            const double ours = sum / static_cast<double>(scored);
            EXPECT_NEAR(ours, loss, 1e-6 * loss) << name << ", " << c.pack << ", B = " << c.B;
            EXPECT_GT(std::fabs(ours - wrong), 1e-3 * loss);
            EXPECT_NEAR(trainer.norm(), expected["grad_norm"].get<double>(), 2e-6 * trainer.norm());
        }
    }
}

// ---- Policies, chunks and memory -----------------------------------------------------------------------------------

/// Sizes that divide nothing evenly.
ModelConfig tiny(Family family) {
    ModelConfig config = preset(family == Family::Gpt2 ? "gpt2-nano" : "llama-nano");
    config.family = family, config.features = row_of(family).features;
    config.L = 4, config.C = 40, config.NH = 5, config.HD = 8, config.V = 97, config.maxT = 23;
    config.NKV = family == Family::Gpt2 ? 5 : 1;
    config.F = family == Family::Gpt2 ? 160 : 52;
    config.tied = family == Family::Gpt2;
    return config;
}

constexpr BatchShape kShape = {3, 23, /*packed=*/true, /*partly_scored=*/true};

/// Documents of lengths that end nowhere in particular; about `share` of their targets count.
Batch random_batch(const BatchShape& shape, double share, uint64_t seed, int64_t V = 97) {
    Batch batch;
    uint64_t draw = 0;
    const auto below = [&](uint64_t limit) {
        return static_cast<int32_t>(philox(seed, RngStream::Test, 9, draw++)[0] % limit);
    };
    int32_t start = 0;
    for (int64_t n = 0; n < shape.N(); ++n) {
        const auto slot = static_cast<int32_t>(n % shape.T);
        if (slot == 0 || below(6) == 0) start = slot;
        batch.tokens.push_back(below(static_cast<uint64_t>(V)));
        batch.targets.push_back(below(1000) < 1000 * share ? below(static_cast<uint64_t>(V)) : -1);
        if (shape.packed) batch.documents.push_back(start);
    }
    return batch;
}

struct Result {
    double loss = 0;
    std::vector<float> gradients;
};

/// Two micro-batches of an update, of which the second has fewer targets that count.
Result run(TinyTrainer& trainer, double share = 0.4) {
    trainer.state().initialise(7);
    Result result;
    for (uint64_t micro = 0; micro < 2; ++micro) {
        const Batch batch = random_batch(trainer.plan().shape, micro == 0 ? share : share / 5, micro);
        result.loss = run_batch(trainer, batch, 30, {.first = micro == 0, .last = micro == 1});
    }
    result.gradients = trainer.gradients();
    return result;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

class ScoredLossTest : public testing::TestWithParam<FamilyCase> {
  protected:
    void SetUp() override {
        if (GetParam().dtype == DType::BF16 && !make_backend("cpu", 1)->info().supports_bf16) {
            GTEST_SKIP() << "this processor or build has no bf16";
        }
    }
    ModelConfig config() const { return tiny(GetParam().family); }
    DType dtype() const { return GetParam().dtype; }
};

TEST_P(ScoredLossTest, SameBitsUnderEveryPolicyAndThreadCount) {
    for (const int64_t chunk : {7, 23, 69}) {
        TinyTrainer reference(config(), kShape, dtype(), "none", 1, chunk);
        const Result expected = run(reference);
        ASSERT_TRUE(std::isfinite(expected.loss) && std::isfinite(norm_of(expected.gradients)));
        for (const PolicyRow& policy : policies()) {
            TinyTrainer trainer(config(), kShape, dtype(), policy.name, chunk == 7 ? 3 : 2, chunk);
            const Result result = run(trainer);
            EXPECT_EQ(result.loss, expected.loss) << policy.name << ", chunks of " << chunk;
            EXPECT_TRUE(same_bits(result.gradients, expected.gradients)) << policy.name << ", chunks of " << chunk;
            EXPECT_EQ(trainer.executor().high_water_bytes(), trainer.memory().layout.arena_bytes) << policy.name;
        }
    }
}

/// The rows that count are the same whether or not the rest is computed beside them; only sums of gradients over rows
/// are cut into other chunks.
TEST_P(ScoredLossTest, AHeadOfScoredRowsHasTheLossOfOneOfAll) {
    const BatchShape all = {kShape.B, kShape.T, /*packed=*/true, /*partly_scored=*/false};
    const double loss_error = dtype() == DType::F32 ? 1e-6 : 2e-3, gradient_error = dtype() == DType::F32 ? 2e-6 : 2e-2;
    for (const int64_t chunk : {1, 7, 64, 69}) {
        for (const double share : {0.0, 0.02, 0.3, 1.0}) {
            TinyTrainer of_all(config(), all, dtype(), "none", 2, chunk);
            TinyTrainer of_scored(config(), kShape, dtype(), "none", 2, chunk);
            const Result expected = run(of_all, share), result = run(of_scored, share);
            if (share == 0) {
                EXPECT_EQ(result.loss, 0);
                EXPECT_EQ(norm_of(result.gradients), 0);
                continue;
            }
            EXPECT_NEAR(result.loss / expected.loss, 1, loss_error) << chunk << ", " << share;
            EXPECT_LT(relative_distance(result.gradients, expected.gradients), gradient_error)
                << chunk << ", " << share;
        }
    }
}

/// What an earlier micro-batch left in rows and chunks that this one has not does not enter.
TEST_P(ScoredLossTest, NothingIsLeftOfAFullerMicroBatch) {
    const Batch full = random_batch(kShape, 1, 1), thin = random_batch(kShape, 0.05, 2);
    TinyTrainer fresh(config(), kShape, dtype(), "layer", 2, 9), used(config(), kShape, dtype(), "layer", 2, 9);
    fresh.state().initialise(7);
    used.state().initialise(7);
    const double expected = run_batch(fresh, thin, 5);
    run_batch(used, full, 5);
    EXPECT_EQ(run_batch(used, thin, 5), expected);
    EXPECT_TRUE(same_bits(used.gradients(), fresh.gradients()));
}

/// Documents in one sequence, and each in one of its own, padded behind.
TEST_P(ScoredLossTest, PackedIsAsInRowsOfTheirOwn) {
    if (dtype() == DType::BF16) GTEST_SKIP() << "bf16 rounds otherwise in other batches";
    const Batch packed = random_batch({2, 23, true, true}, 0.6, 3);
    Batch alone;
    int64_t rows = 0;
    for (size_t n = 0; n < packed.tokens.size(); ++n) {
        const auto slot = static_cast<int32_t>(n % 23);
        if (packed.documents[n] == slot) ++rows;
        alone.tokens.resize(static_cast<size_t>(rows * 23), 0);
        alone.targets.resize(static_cast<size_t>(rows * 23), -1);
        const auto to = static_cast<size_t>((rows - 1) * 23 + slot - packed.documents[n]);
        alone.tokens[to] = packed.tokens[n], alone.targets[to] = packed.targets[n];
    }
    ASSERT_GT(rows, 6);
    TinyTrainer of_packed(config(), {2, 23, true, true}, dtype(), "layer");
    TinyTrainer of_rows(config(), {rows, 23, false, true}, dtype(), "none");
    of_packed.state().initialise(7);
    of_rows.state().initialise(7);
    const double together = run_batch(of_packed, packed, 20), apart = run_batch(of_rows, alone, 20);
    EXPECT_NEAR(together / apart, 1, 1e-6);
    EXPECT_LT(relative_distance(of_packed.gradients(), of_rows.gradients()), 1e-6);
}

INSTANTIATE_TEST_SUITE_P(Families, ScoredLossTest, family_cases(), family_case_name);

// ---- What runs -----------------------------------------------------------------------------------------------------

/// Chunks behind the rows that count are not run.
TEST(ScoredLoss, ChunksWithoutRowsCostNothing) {
    NullBackend backend;
    const Model model = make_model(tiny(Family::Llama));
    const PlannedMemory memory = plan_memory(model, kShape, DType::F32, find_policy("layer"), 10, backend);
    State state(backend, model, DType::F32, kShape.T, memory.layout.arena_bytes, true);
    Executor executor(state, memory.plan, memory.layout);
    for (const auto& [scored, chunks] : {std::pair(0, 1), {1, 1}, {10, 1}, {11, 2}, {35, 4}, {69, 7}}) {
        const int64_t before = backend.count("cross_entropy"), products = backend.count("matmul_backward_input");
        RunArguments arguments = {.turn = {.first = true, .last = false}};
        arguments.scored = scored;
        executor.run(arguments);
        EXPECT_EQ(backend.count("cross_entropy") - before, chunks) << scored;
        const int64_t of_layers = 16;  // Four products in each of four layers.
        EXPECT_EQ(backend.count("matmul_backward_input") - products, of_layers + chunks) << scored;
    }
}

}  // namespace
}  // namespace llmc
