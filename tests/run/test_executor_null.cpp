// The executor and the state on a backend that computes nothing: bytes predicted, allocated and touched, and how often
// each operation of each layer is called.
#include "llmc/plan/simulate.h"
#include "llmc/plan/verify.h"
#include "llmc/run/executor.h"
#include "llmc/run/memory.h"
#include "llmc/run/state.h"
#include "tests/backend/null_backend.h"

#include <gtest/gtest.h>

#include <map>
#include <set>

namespace llmc {
namespace {

ModelConfig config_of(Family family, int64_t L, int64_t V = 97) {
    ModelConfig config = config_of(family);
    config.name = "tiny";
    config.L = L, config.C = 24, config.NH = 4, config.NKV = family == Family::Gpt2 ? 4 : 2, config.HD = 6;
    config.F = 56, config.V = V, config.maxT = 64;
    config.tied = family == Family::Gpt2;
    return config;
}

constexpr Family kBoth[] = {Family::Gpt2, Family::Llama};

/// Everything that a training run sets up, on the null backend.
struct NullRun {
    NullRun(const Model& model, const BatchShape& shape, DType dtype, const std::string& policy, int64_t chunk = 0,
            int64_t workspace = 0)
        : backend(workspace),
          memory(plan_memory(model, shape, dtype, find_policy(policy), chunk, backend)),
          state(backend, model, dtype, shape.T, memory.layout.arena_bytes, /*training=*/true),
          executor(state, memory.plan, memory.layout) {}

    NullBackend backend;
    PlannedMemory memory;
    State state;
    Executor executor;
};

// ---- Bytes ----

TEST(PlannedBytes, AreAllocatedAndTouchedExactly) {
    int runs = 0;
    for (const Family family : kBoth) {
        for (const int64_t L : {1, 2, 5}) {
            for (const int64_t V : {97, 300}) {
                const Model model = make_model(config_of(family, L, V));
                for (const BatchShape& shape : {BatchShape{1, 1}, BatchShape{3, 7}, BatchShape{2, 64}}) {
                    for (const PolicyRow& policy : policies()) {
                        for (const int64_t chunk : {int64_t{0}, int64_t{5}, shape.N()}) {
                            for (const int64_t workspace : {0, 4096}) {
                                const DType dtype = runs % 2 == 0 ? DType::F32 : DType::BF16;
                                NullRun run(model, shape, dtype, policy.name, chunk, workspace);
                                const int64_t total = run.memory.total_bytes();
                                EXPECT_EQ(run.state.allocated_bytes(), total);
                                EXPECT_EQ(run.backend.allocated_bytes(), total);
                                EXPECT_EQ(run.backend.peak_allocated_bytes(), total);
                                EXPECT_EQ(run.backend.host_bytes(), run.memory.host_bytes());
                                EXPECT_EQ(run.executor.high_water_bytes(), 0);
                                run.executor.run({});
                                EXPECT_EQ(run.executor.high_water_bytes(), run.memory.layout.arena_bytes);
                                EXPECT_EQ(run.backend.peak_allocated_bytes(), total) << "a step allocates nothing";
                                int64_t sum = 0;
                                for (const MemoryRow& row : run.memory.rows()) {
                                    EXPECT_GT(row.bytes, 0) << row.name;
                                    sum += row.bytes;
                                }
                                EXPECT_EQ(sum, total);
                                ++runs;
                            }
                        }
                    }
                }
            }
        }
    }
    EXPECT_EQ(runs, 2 * 3 * 2 * 3 * 6 * 3 * 2);
}

TEST(PlannedBytes, AreReturnedWithTheState) {
    const Model model = make_model(config_of(Family::Llama, 2));
    NullBackend backend(4096);
    {
        const State state(backend, model, DType::BF16, 32, 1 << 20, true);
        EXPECT_GT(backend.allocated_bytes(), 1 << 20);
    }
    EXPECT_EQ(backend.allocated_bytes(), 0);
}

TEST(PlannedBytes, HoldForModelsOfAnySize) {
    const Model model = make_model(preset("gpt2-xl"));
    NullRun run(model, {8, 1024}, DType::BF16, "layer");
    EXPECT_EQ(run.backend.allocated_bytes(), run.memory.total_bytes());
    run.executor.run({});
    EXPECT_EQ(run.executor.high_water_bytes(), run.memory.layout.arena_bytes);
}

TEST(PlannedBytes, OfTheHostAreNoneOfTheDevices) {
    const Model model = make_model(preset("gpt2-xl"));
    NullBackend backend;
    {
        const PlannedMemory memory = plan_memory(model, {8, 1024}, DType::BF16, find_policy("offload"), 0, backend);
        const PlannedMemory level1 = plan_memory(model, {8, 1024}, DType::BF16, find_policy("layer"), 0, backend);
        const int64_t X = int64_t{8} * 1024 * 1600 * 2;
        EXPECT_EQ(memory.host_bytes(), 46 * X);
        EXPECT_EQ(level1.host_bytes(), 0);
        EXPECT_EQ(level1.total_bytes() - memory.total_bytes(), 46 * X) << "what the host holds, the device does not";
        State state(backend, model, DType::BF16, 1024, memory.layout.arena_bytes, true);
        EXPECT_EQ(backend.host_bytes(), 0);
        EXPECT_EQ(state.host(), nullptr);
        const Executor first(state, level1.plan, level1.layout);
        EXPECT_EQ(backend.host_bytes(), 0);
        const Executor second(state, memory.plan, memory.layout), third(state, memory.plan, memory.layout);
        EXPECT_EQ(backend.host_bytes(), 46 * X) << "plans share it";
        EXPECT_EQ(state.allocated_bytes(), memory.total_bytes());
    }
    EXPECT_EQ(backend.host_bytes(), 0);
}

// ---- Calls ----

TEST(ExecutorCalls, MatmulsPerWeight) {
    for (const Family family : kBoth) {
        const int64_t L = 7;  // k = 2: segments 0-1, 2-3, 4-5, 6.
        const Model model = make_model(config_of(family, L));
        ASSERT_EQ(sqrt_segment(L), 2);
        for (const PolicyRow& policy : policies()) {
            NullRun run(model, {3, 7}, DType::F32, policy.name, /*chunk=*/5);
            run.executor.run({});
            for (int layer = 0; layer < L; ++layer) {
                for (const OpRow& row : model.block) {
                    if (row.kind != OpKind::Matmul) continue;
                    const int64_t times =
                        run.backend.matmuls_with(run.state.parameter(model.parameter_index(layer, row.weight)).data);
                    const std::string name = policy.name;
                    const bool last_row = row.out == kLayerOutput;
                    const bool top = layer == L - 1;
                    int64_t expected = 1;
                    if ((name == "layer" || name == "offload") && !last_row && !top) expected = 2;
                    if (name == "attn" && !last_row && row.name != "att_proj" && !top) expected = 2;
                    if (name == "sqrt" && !top) expected = (last_row ? 1 : 2) + (layer % 2 == 0 ? 1 : 0);
                    EXPECT_EQ(times, expected) << name << ", layer " << layer << ", " << row.name;
                }
            }
            EXPECT_EQ(run.backend.matmuls_with(run.state.parameter(model.head).data), 5) << "21 tokens in chunks of 5";
            EXPECT_EQ(run.backend.count("cross_entropy"), 5);
        }
    }
}

TEST(ExecutorCalls, BackwardsAreTheSameForEveryPolicy) {
    for (const Family family : kBoth) {
        const Model model = make_model(config_of(family, 5));
        for (const PolicyRow& policy : policies()) {
            NullRun run(model, {3, 7}, DType::F32, policy.name, /*chunk=*/21);
            run.executor.run({});
            const NullBackend& backend = run.backend;
            const bool gpt2 = family == Family::Gpt2;
            EXPECT_EQ(backend.count("matmul_backward_weight"), 5 * 4 + 1);
            EXPECT_EQ(backend.count("matmul_backward_input"), 5 * 4 + 1);
            EXPECT_EQ(backend.count("attention_backward"), 5);
            EXPECT_EQ(backend.count("norm_backward"), 5 * 2 + 1);
            EXPECT_EQ(backend.count("gelu_backward"), gpt2 ? 5 : 0);
            EXPECT_EQ(backend.count("swiglu_backward"), gpt2 ? 0 : 5);
            EXPECT_EQ(backend.count("rope_backward"), gpt2 ? 0 : 5);
            EXPECT_EQ(backend.count("embedding_forward"), 1);
            EXPECT_EQ(backend.count("embedding_backward"), 1);
            EXPECT_EQ(backend.count("update"), 5 + 2);
        }
    }
}

TEST(ExecutorCalls, RopeFollowsEveryQkvMatmul) {
    const Model model = make_model(config_of(Family::Llama, 5));
    const std::map<std::string, int64_t> expected = {{"none", 5}, {"act", 5},     {"layer", 9},
                                                     {"attn", 9}, {"offload", 9}, {"sqrt", 11}};
    for (const auto& [policy, times] : expected) {
        NullRun run(model, {3, 7}, DType::F32, policy);
        run.executor.run({});
        EXPECT_EQ(run.backend.count("rope_forward"), times) << policy;
        const int64_t attentions = policy == "attn" ? 5 : times;
        EXPECT_EQ(run.backend.count("attention_forward"), attentions) << policy;
    }
}

TEST(ExecutorCalls, InputsGoToTheHostAndComeBackFromTheSamePlace) {
    for (const Family family : kBoth) {
        const int64_t L = 6;
        const Model model = make_model(config_of(family, L));
        NullRun run(model, {3, 7}, DType::BF16, "offload");
        for (int turn = 1; turn <= 2; ++turn) {
            run.executor.run({});
            const std::vector<NullBackend::Copy>& copies = run.backend.copies();
            ASSERT_EQ(copies.size(), static_cast<size_t>(turn * 2 * (L - 2)));
            const size_t first = copies.size() - 2 * (L - 2);
            for (int64_t layer = 0; layer < L - 2; ++layer) {
                const NullBackend::Copy& out = copies[first + static_cast<size_t>(layer)];
                const NullBackend::Copy& in = copies[copies.size() - 1 - static_cast<size_t>(layer)];
                EXPECT_TRUE(out.out && !in.out);
                EXPECT_EQ(out.host, run.state.host() + layer * 1024) << "21 rows of 24 bf16, padded";
                EXPECT_EQ(in.host, out.host);
                EXPECT_EQ(out.bytes, 21 * 24 * 2);
                EXPECT_EQ(in.bytes, out.bytes);
                EXPECT_EQ(out.waits, 1);
                EXPECT_EQ(in.waits, 1);
            }
        }
        EXPECT_EQ(run.backend.count("synchronize"), 0);
    }
}

/// The update comes with the last micro-batch, bucket by bucket; what nobody writes whole is zeroed in the first.
TEST(ExecutorCalls, TheUpdateFollowsTheLastMicroBatch) {
    for (const Family family : kBoth) {
        const Model model = make_model(config_of(family, 2));
        NullRun run(model, {3, 7}, DType::F32, "layer");
        int64_t updates = 0, zeroed = 0;
        for (const bool last : {false, false, true}) {
            run.executor.run({.turn = {.first = !last && updates == 0 && zeroed == 0, .last = last}});
            updates += last ? 4 : 0;
            if (zeroed == 0) zeroed = run.backend.count("zero");
            EXPECT_EQ(run.backend.count("update"), updates);
            EXPECT_EQ(run.backend.count("square_sums"), updates);
            EXPECT_EQ(run.backend.count("global_norm"), last ? 1 : 0);
            EXPECT_EQ(run.backend.count("begin_update"), last ? 1 : 0);
            EXPECT_EQ(run.backend.count("zero"), zeroed) << "only the first time";
        }
        EXPECT_GT(zeroed, 0);
        EXPECT_EQ(run.backend.count("accumulate_loss"), 3);
    }
}

/// Held back, the update is the same calls at another time; without it nothing is updated.
TEST(ExecutorCalls, AHeldUpdateComesWhenItIsReleased) {
    for (const Family family : kBoth) {
        const Model model = make_model(config_of(family, 2));
        NullRun at_once(model, {3, 7}, DType::F32, "layer"), held(model, {3, 7}, DType::F32, "layer");
        const auto expect_the_same_calls = [&] {
            for (const char* call :
                 {"accumulate_loss", "zero", "square_sums", "global_norm", "begin_update", "update"}) {
                EXPECT_EQ(held.backend.count(call), at_once.backend.count(call)) << call;
            }
        };
        for (const bool last : {false, true, true}) {
            at_once.executor.run({.turn = {.first = false, .last = last}});
            const int64_t updates = held.backend.count("update"), norms = held.backend.count("global_norm");
            held.executor.run({.turn = {.first = false, .last = last}, .holds_update = true});
            EXPECT_EQ(held.backend.count("accumulate_loss"), at_once.backend.count("accumulate_loss"));
            EXPECT_EQ(held.backend.count("update"), updates);
            EXPECT_EQ(held.backend.count("global_norm"), norms);
            held.executor.release_update();
            expect_the_same_calls();
            held.executor.release_update();
            expect_the_same_calls();
        }
        EXPECT_EQ(held.executor.high_water_bytes(), at_once.executor.high_water_bytes());
        EXPECT_EQ(held.backend.count("update"), 2 * 4);
    }
}

TEST(ExecutorCalls, EvaluationRunsForwardOnlyWithoutGradients) {
    for (const Family family : kBoth) {
        const Model model = make_model(config_of(family, 3));
        NullBackend backend;
        PlanRequest request;
        request.shape = {3, 7};
        request.logits_chunk_tokens = 8;
        const Plan plan = make_evaluation_plan(model, request);
        const Layout layout = make_layout(plan);
        State state(backend, model, DType::F32, 7, layout.arena_bytes, /*training=*/false);
        Executor executor(state, plan, layout);
        executor.run({});
        EXPECT_EQ(executor.high_water_bytes(), layout.arena_bytes);
        EXPECT_EQ(backend.count("matmul_backward_weight"), 0);
        EXPECT_EQ(backend.count("matmul_backward_input"), 0);
        EXPECT_EQ(backend.count("cross_entropy"), 3);
        EXPECT_EQ(executor.losses().shape[0], 21);
        EXPECT_EQ(executor.targets().dtype, DType::I32);
    }
}

/// Generation over a cache of 64 positions, up to 16 tokens at a time.
struct Generating {
    Generating(NullBackend& backend, const Model& model)
        : plan(plan_of(model)),
          layout(make_layout(plan)),
          state(backend, model, DType::F32, 64, layout.arena_bytes, /*training=*/false),
          executor(state, plan, layout) {}
    static Plan plan_of(const Model& model) {
        PlanRequest request;
        request.shape = {1, 16};
        return make_generation_plan(model, request, 64);
    }
    const Plan plan;
    const Layout layout;
    State state;
    Executor executor;
};

TEST(ExecutorCalls, GenerationUsesTheCacheAndOneRowOfLogits) {
    for (const Family family : kBoth) {
        const Model model = make_model(config_of(family, 3));
        NullBackend backend;
        Generating generating(backend, model);
        Executor& executor = generating.executor;
        executor.run({.rows = 16, .first_position = 0});
        executor.run({.rows = 1, .first_position = 16});
        EXPECT_EQ(executor.high_water_bytes(), generating.layout.arena_bytes);
        EXPECT_EQ(backend.count("attention_cached"), 2 * 3);
        EXPECT_EQ(backend.count("attention_forward"), 0);
        EXPECT_EQ(backend.count("cross_entropy"), 0);
        EXPECT_EQ(backend.matmuls_with(generating.state.parameter(model.head).data), 2);
        EXPECT_EQ(executor.tokens().shape[0], 1) << "a view of this run's rows";
        EXPECT_EQ(executor.logits().shape[0], 1);
        EXPECT_EQ(executor.logits().shape[1], 128);
    }
}

/// Counts what would be recorded.
class Recorder : public NullBackend {
  public:
    void repeat(const void* key, const std::function<void()>& work) override {
        ++repeats;
        if (keys.insert(key).second) work();
    }
    void forget(const void* key) override { forgotten += keys.contains(key) ? 1 : 0; }
    std::set<const void*> keys;
    int repeats = 0, forgotten = 0;
};

TEST(ExecutorCalls, OneRecordingServesAllPositions) {
    const Model model = make_model(config_of(Family::Gpt2, 3));
    Recorder backend;
    Generating generating(backend, model);
    Executor& executor = generating.executor;
    int64_t position = 0;
    for (const int64_t rows : {16, 16, 5, 1, 1, 16, 1, 1, 1}) {
        executor.run({.rows = rows, .first_position = position});
        position += rows;
    }
    EXPECT_EQ(backend.keys.size(), 2u) << "a prompt's pieces, and one token";
    EXPECT_EQ(backend.repeats, 2 + 4);
    EXPECT_EQ(backend.forgotten, 0);
    EXPECT_DEATH(executor.run({.rows = 1, .first_position = 64}), "first_position");
}

}  // namespace
}  // namespace llmc
