// The classifier's chunk comes from the table, the model and the shape, and what plans make of it.
#include "llmc/plan/logits_chunk.h"

#include "llmc/plan/simulate.h"
#include "tests/plan/plan_cases.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

namespace llmc {
namespace {

using namespace plan_cases;

constexpr BatchShape kManyTokens = {1 << 20, 512};

const TokensByKind& row_of(std::string_view kind) {
    for (const TokensByKind& row : logits_chunk_table()) {
        if (row.kind == kind) return row;
    }
    ADD_FAILURE() << kind << " is not in the table";
    return logits_chunk_table()[0];
}

TEST(LogitsChunkTable, HasEachKindOnceWithMultiplesOf64) {
    std::set<std::string_view> kinds;
    for (const TokensByKind& row : logits_chunk_table()) {
        EXPECT_GT(row.tokens, 0) << row.kind;
        EXPECT_EQ(row.tokens % 64, 0) << row.kind;
        EXPECT_TRUE(kinds.insert(row.kind).second) << row.kind << " is in two places";
    }
    for (const char* kind : {"cpu", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120"}) {
        EXPECT_TRUE(kinds.contains(kind)) << kind;
    }
}

TEST(LogitsChunkTable, GpusStandByAge) {
    // The nearest older architecture is the last one passed on the way to a newer one.
    int before = 0;
    for (const TokensByKind& row : logits_chunk_table()) {
        if (!row.kind.starts_with("sm_")) continue;
        const int architecture = std::stoi(std::string(row.kind.substr(3)));
        EXPECT_GE(architecture, before);
        before = architecture;
    }
}

TEST(DefaultLogitsChunk, IsTheRowOfTheKindForModelsOfUsualSizes) {
    for (const char* name : {"gpt2", "gpt2-xl", "tinyllama-1.1b", "llama3-8b"}) {
        ModelConfig config = preset(name);
        config.maxT = std::max<int64_t>(config.maxT, 512);
        const Model model = make_model(config);
        for (const TokensByKind& row : logits_chunk_table()) {
            EXPECT_EQ(default_logits_chunk(model, kManyTokens, row.kind), row.tokens) << name << ", " << row.kind;
        }
    }
}

TEST(DefaultLogitsChunk, OfASmallClassifierIsWorthItsLaunches) {
    ModelConfig config = preset("gpt2-mini");
    config.V = 257, config.maxT = 512;
    const Model model = make_model(config);
    for (const TokensByKind& row : logits_chunk_table()) {
        const int64_t chunk = default_logits_chunk(model, kManyTokens, row.kind);
        EXPECT_EQ(chunk % 64, 0) << row.kind;
        EXPECT_GE(chunk * logits_work(config), row.least_work) << row.kind;
        if (row.least_work == 0) {
            EXPECT_EQ(chunk, row.tokens) << row.kind;
        } else {
            EXPECT_LT((chunk - 64) * logits_work(config), row.least_work) << row.kind;
        }
    }
}

TEST(DefaultLogitsChunk, OfAnotherKindIsThatOfTheNearest) {
    const Model model = small_model(Family::Gpt2, 1);
    const std::pair<const char*, const char*> nearest[] = {
        {"sm_87", "sm_86"},   {"sm_88", "sm_86"},   {"sm_70", "sm_80"},   {"sm_75", "sm_80"}, {"sm_103", "sm_100"},
        {"sm_101", "sm_100"}, {"sm_121", "sm_120"}, {"sm_999", "sm_120"}, {"sm_99", "sm_90"}, {"cpu-anything", "cpu"},
        {"", "cpu"},          {"tpu", "cpu"},       {"sm", "cpu"},
    };
    for (const auto& [kind, known] : nearest) {
        EXPECT_EQ(default_logits_chunk(model, kManyTokens, kind),
                  default_logits_chunk(model, kManyTokens, row_of(known).kind))
            << kind;
    }
}

TEST(DefaultLogitsChunk, IsAtMostAllTokens) {
    for (const Family family : kFamilies) {
        const Model model = small_model(family, 2);
        for (const TokensByKind& row : logits_chunk_table()) {
            const int64_t most = default_logits_chunk(model, {1 << 30, 1}, row.kind);
            for (const int64_t tokens : {int64_t{1}, int64_t{63}, most - 1, most, most + 1, 3 * most}) {
                const int64_t chunk = default_logits_chunk(model, {1, tokens}, row.kind);
                EXPECT_EQ(chunk, std::min(tokens, most)) << row.kind;
                EXPECT_TRUE(chunk == tokens || chunk % 64 == 0);
            }
            // How they are split into sequences does not matter.
            EXPECT_EQ(default_logits_chunk(model, {40, 300}, row.kind),
                      default_logits_chunk(model, {300, 40}, row.kind));
        }
    }
}

TEST(DefaultLogitsChunk, OfPlansDoesNotDependOnPolicyPlacesOrRanks) {
    // The numbers of a run on one kind of device are the same in all of these.
    for (const Family family : kFamilies) {
        const Model model = small_model(family, 3);
        for (const BatchShape& shape : {BatchShape{3, 7}, BatchShape{5, 500}}) {
            std::set<int64_t> chunks;
            for (const PolicyRow& policy : policies()) {
                for (const DType dtype : kTypes) {
                    for (const int ranks : {1, 2, 5}) {
                        for (int zero = 0; zero <= 3; ++zero) {
                            const PlanRequest request = request_of_ranks(model, shape, dtype, ranks, zero);
                            chunks.insert(make_training_plan(model, request, policy).logits_chunk_tokens);
                        }
                    }
                }
            }
            EXPECT_EQ(chunks, (std::set<int64_t>{default_logits_chunk(model, shape, "cpu")}));
        }
    }
}

TEST(LogitsChunk, EveryPolicyUsesTheOneItIsGiven) {
    const Model model = small_model(Family::Gpt2, 4);
    for (const PolicyRow& policy : policies()) {
        for (const int64_t chunk : {1, 7, 21, 1000}) {
            PlanRequest request = request_of(model, {3, 7}, DType::F32);
            request.logits_chunk_tokens = chunk;
            const Plan plan = make_training_plan(model, request, policy);
            EXPECT_EQ(plan.logits_chunk_tokens, std::min<int64_t>(chunk, 21));
            for (const PlanTensor& tensor : plan.tensors) {
                if (tensor.consumer != Consumer::Logits) continue;
                EXPECT_EQ(tensor.rows, plan.logits_chunk_tokens);
                EXPECT_EQ(tensor.cols, 128);
            }
        }
    }
}

TEST(LogitsChunk, TheHeadsMemoryIsThatOfOneChunkHoweverManyThereAre) {
    // Besides what is kept and as large as the batch, the head has its chunk of logits, and nothing that grows with the
    // number of chunks: with a chunk of the same size, twice the tokens need just the rows of those more.
    for (const Family family : kFamilies) {
        const Model model = small_model(family, 2);
        for (const DType dtype : kTypes) {
            const int64_t item = size_of(dtype), chunk = 64;
            for (const int64_t chunks : {1, 2, 3, 7}) {
                const BatchShape shape = {chunks, chunk};
                PlanRequest request = request_of(model, shape, dtype);
                request.logits_chunk_tokens = chunk;
                const Plan plan = make_training_plan(model, request, find_policy("layer"));
                EXPECT_EQ(std::count_if(plan.steps.begin(), plan.steps.end(),
                                        [](const Step& step) { return step.op == OpKind::CrossEntropy; }),
                          chunks);
                // Of the batch: boundaries (layer 1's internals are kept, too), the norm with its statistics, targets
                // and losses. The norm's output gives its place to its gradient.
                const auto tokens = [&](int64_t columns, int64_t size) { return tensor_bytes(shape, columns, size); };
                const bool gpt2 = family == Family::Gpt2;
                const int64_t kept = 3 * boundary_bytes(model.config, shape, dtype) +
                                     internal_bytes(model.config, shape, dtype) + tokens(1, 4);
                const int64_t norm = tokens(model.config.C, item) + (gpt2 ? 2 : 1) * tokens(1, 4);
                const int64_t logits = round_up(chunk * 128 * item, 256);
                int64_t peak = 0;
                const Simulation simulation = simulate(model, plan);
                for (size_t i = 0; i < plan.steps.size(); ++i) {
                    if (plan.steps[i].op == OpKind::CrossEntropy) peak = std::max(peak, simulation.live_bytes[i]);
                }
                EXPECT_EQ(peak, kept + norm + logits + 2 * tokens(1, 4)) << label(model, shape, dtype, "layer");
            }
        }
    }
}

}  // namespace
}  // namespace llmc
