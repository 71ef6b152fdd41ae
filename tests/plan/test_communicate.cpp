// Communication in plans of every policy, number of ranks and ZeRO stage: what it adds, and that it changes nothing.
#include "llmc/plan/communicate.h"

#include "llmc/plan/simulate.h"
#include "llmc/plan/verify.h"
#include "tests/plan/plan_cases.h"

#include <gtest/gtest.h>
#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <map>
#include <vector>

namespace llmc {
namespace {

using namespace plan_cases;

constexpr BatchShape kShape = {2, 5};

/// The buckets an operation reads, and adds to the gradients of; written down apart from what the plans are made by.
struct Uses {
    int parameters = kNone, gradients = kNone;
};
Uses uses_of(const Model& model, const Step& step) {
    if (step.kind != StepKind::Compute) return {};
    const int layer = 1 + step.layer, last = 1 + static_cast<int>(model.config.L);
    const int head = model.config.tied ? 0 : last;
    const bool forward = step.pass == Pass::Forward;
    switch (step.op) {
        case OpKind::Embedding: return {forward ? 0 : kNone, forward ? kNone : 0};
        case OpKind::LayerNorm:
        case OpKind::RmsNorm:
        case OpKind::HeadNorm: return {step.row < 0 ? last : layer, forward ? kNone : step.row < 0 ? last : layer};
        case OpKind::Matmul:
        case OpKind::AdapterDown:
        case OpKind::AdapterUp:
            if (step.pass == Pass::BackwardWeight) return {kNone, layer};
            return {layer, kNone};
        case OpKind::Classifier:
            if (step.pass == Pass::BackwardWeight) return {kNone, head};
            return {head, kNone};
        case OpKind::Attention:
        case OpKind::Gelu:
        case OpKind::GeluExact:
        case OpKind::Swiglu:
        case OpKind::ScoredRows:
        case OpKind::Dropout:
        case OpKind::CrossEntropy:
        case OpKind::LossSum: return {};
    }
    return {};
}

bool same_step(const Step& a, const Step& b) {
    return a.kind == b.kind && a.op == b.op && a.pass == b.pass && a.phase == b.phase && a.layer == b.layer &&
           a.row == b.row && a.accumulate == b.accumulate && a.rope == b.rope && a.host_offset == b.host_offset &&
           a.first_token == b.first_token && a.tokens == b.tokens && a.operands == b.operands;
}

bool same_tensor(const PlanTensor& a, const PlanTensor& b) {
    return a.name == b.name && a.layer == b.layer && a.dtype == b.dtype && a.rows == b.rows && a.cols == b.cols &&
           a.bytes == b.bytes && a.consumer == b.consumer && a.alias == b.alias && a.external == b.external &&
           a.output == b.output;
}

/// Operations and copies. What is zeroed and updated is counted by test_gradients.cpp and test_update.cpp.
std::vector<Step> work_of(const Plan& plan) {
    std::vector<Step> steps;
    for (Step step : plan.steps) {
        if (step.is_of_bucket()) continue;
        step.operand(Slot::Parameters) = step.operand(Slot::ParameterGradients) = kNone;
        steps.push_back(step);
    }
    return steps;
}

/// Without what communication has put into it, a plan is that of one rank.
void expect_same_work(const Plan& plan, const Plan& of_one_rank) {
    const std::vector<Step> steps = work_of(plan), of_one = work_of(of_one_rank);
    ASSERT_EQ(steps.size(), of_one.size());
    for (size_t i = 0; i < steps.size(); ++i) ASSERT_TRUE(same_step(steps[i], of_one[i])) << "step " << i;
    ASSERT_GE(plan.tensors.size(), of_one_rank.tensors.size());
    for (size_t i = 0; i < plan.tensors.size(); ++i) {
        const Consumer consumer = plan.tensors[i].consumer;
        const bool added = consumer == Consumer::GatheredParameters || consumer == Consumer::BucketGradients ||
                           consumer == Consumer::Communication;
        ASSERT_EQ(added, i >= of_one_rank.tensors.size()) << plan.tensors[i].name;
        if (added) continue;
        ASSERT_TRUE(same_tensor(plan.tensors[i], of_one_rank.tensors[i])) << plan.tensors[i].name;
    }
    EXPECT_EQ(plan.host_bytes, of_one_rank.host_bytes);
    EXPECT_EQ(plan.logits_chunk_tokens, of_one_rank.logits_chunk_tokens);
}

/// Steps that read parameters have those of their bucket, steps that write gradients those of theirs, others neither;
/// a bucket's gradients have one tensor, from where they are zeroed to where they are reduced, and no other bucket has.
void expect_right_buckets(const Model& model, const Plan& plan) {
    const bool pieces_of_gradients = plan.places.in_pieces(Buffer::Gradients);
    std::map<int32_t, int> gathered, written;
    for (const Step& step : plan.steps) {
        const int32_t parameters = step.operand(Slot::Parameters), gradients = step.operand(Slot::ParameterGradients);
        if (step.kind == StepKind::WaitGather) gathered[parameters] = step.bucket;
        const bool of_gradients =
            step.kind == StepKind::ZeroGradients || step.kind == StepKind::Reduce || step.kind == StepKind::WaitReduce;
        const Uses uses = uses_of(model, step);
        const int bucket = of_gradients ? step.bucket : uses.gradients;
        ASSERT_EQ(gradients >= 0, pieces_of_gradients && bucket != kNone && step.kind != StepKind::Share)
            << describe_step(model, step);
        if (gradients >= 0) {
            ASSERT_EQ(written.emplace(gradients, bucket).first->second, bucket) << describe_step(model, step);
        }
        if (step.is_of_bucket()) continue;
        ASSERT_EQ(parameters >= 0, plan.places.in_pieces(Buffer::Parameters) && uses.parameters != kNone)
            << describe_step(model, step);
        ASSERT_TRUE(parameters < 0 || gathered.at(parameters) == uses.parameters) << describe_step(model, step);
    }
    const size_t buckets = plan.trains() && pieces_of_gradients ? plan.partition.buckets.size() : 0;
    ASSERT_EQ(written.size(), buckets);
}

/// Bytes at every step of the tensors that `chosen` accepts.
template <typename Chosen>
std::vector<int64_t> live(const Plan& plan, Chosen chosen) {
    const std::vector<Lifetime> lives = lifetimes(plan);
    std::vector<int64_t> bytes(plan.steps.size(), 0);
    for (size_t i = 0; i < plan.tensors.size(); ++i) {
        if (!chosen(plan.tensors[i])) continue;
        for (int step = lives[i].first; step <= lives[i].last; ++step)
            bytes[static_cast<size_t>(step)] += plan.tensors[i].bytes;
    }
    return bytes;
}

int64_t most(const std::vector<int64_t>& bytes) { return *std::max_element(bytes.begin(), bytes.end()); }

/// Of a kind of tensor, those of layers: at most so many at a time.
void expect_layers_at_once(const Plan& plan, Consumer consumer, int64_t bytes_of_layer, int layers) {
    const auto of_layers = [&](const PlanTensor& tensor) { return tensor.consumer == consumer && tensor.layer >= 0; };
    EXPECT_LE(most(live(plan, of_layers)), layers * bytes_of_layer) << name_of(consumer);
}

void expect_right(const Model& model, const Plan& plan, const Plan& of_one_rank) {
    EXPECT_EQ(find_fault(model, plan, make_layout(plan)), "");
    expect_same_work(plan, of_one_rank);
    expect_right_buckets(model, plan);
    const int64_t layer = plan.partition.buckets.empty() ? 0 : plan.partition.bucket_elements(1);
    expect_layers_at_once(plan, Consumer::GatheredParameters, layer * size_of(plan.dtype), 2);
    expect_layers_at_once(plan, Consumer::BucketGradients, layer * 4, 2);
    expect_layers_at_once(plan, Consumer::Communication, layer * 4, 1);
}

std::string label(const Plan& plan, const Model& model) {
    return plan_cases::label(model, plan.shape, plan.dtype, plan.policy) +
           fmt::format(", {} ranks, ZeRO {}", plan.parallel.ranks, zero_of(plan.places));
}

TEST(WithCommunication, EveryPolicyStageAndNumberOfRanksGivesARightPlan) {
    for (const Family family : kFamilies) {
        for (const int L : {1, 2, 3, 5, 8}) {
            const Model model = small_model(family, L);
            const DType dtype = L % 2 == 0 ? DType::BF16 : DType::F32;
            for (const PolicyRow& policy : policies()) {
                const Plan one = make_training_plan(model, request_of(model, kShape, dtype), policy);
                for (const int ranks : {2, 3, 4, 8}) {
                    for (int zero = 0; zero <= 3; ++zero) {
                        const bool exchanges = (ranks + zero + L) % 3 != 0;
                        const Plan plan = make_training_plan(
                            model, request_of_ranks(model, kShape, dtype, ranks, zero, exchanges), policy);
                        expect_right(model, plan, one);
                        EXPECT_EQ(count(plan, StepKind::Reduce), L + 2);
                        if (HasFailure()) FAIL() << label(plan, model);
                    }
                }
            }
        }
    }
}

TEST(WithCommunication, RandomKeepSetsGiveRightPlans) {
    int several_gathers = 0;
    for (uint32_t trial = 0; trial < 400; ++trial) {
        Dice dice(trial);
        const Model model = small_model(kFamilies[trial % 2], 1 + static_cast<int>(dice.below(8)));
        const KeepSet keep = random_keep_set(model, dice);
        const Plan one = make_training_plan(model, request_of(model, kShape, DType::F32), keep, "random");
        const int ranks = 2 + static_cast<int>(dice.below(7)), zero = static_cast<int>(dice.below(4));
        const PlanRequest request = request_of_ranks(model, kShape, DType::F32, ranks, zero, dice.below(2) == 0);
        const Plan plan = make_training_plan(model, request, keep, "random");
        expect_right(model, plan, one);
        if (HasFailure()) FAIL() << "trial " << trial << ", " << label(plan, model);
        several_gathers += count(without_update(plan), StepKind::Gather) > 2 * model.config.L + 3;
    }
    EXPECT_GT(several_gathers, 10) << "too few plans that walk";
}

TEST(WithCommunication, OneRankHasNone) {
    const Model model = small_model(Family::Gpt2, 3);
    PlanRequest request = request_of(model, kShape, DType::F32);
    request.places = places_of_zero(3, 1, DType::F32);
    const Plan plan = make_training_plan(model, request, find_policy("layer"));
    for (const Step& step : plan.steps) EXPECT_FALSE(step.is_communication());
    EXPECT_EQ(plan.partition.ranks, 1);
    EXPECT_TRUE(make_evaluation_plan(model, request).partition.buckets.empty());
}

TEST(WithCommunication, EvaluationAndGenerationOnlyGather) {
    for (const Family family : kFamilies) {
        for (const int L : {1, 2, 5}) {
            const Model model = small_model(family, L);
            for (int zero = 0; zero <= 3; ++zero) {
                PlanRequest request = request_of_ranks(model, {1, 5}, DType::BF16, 4, zero);
                PlanRequest one = request_of(model, {1, 5}, DType::BF16);
                const Plan evaluation = make_evaluation_plan(model, request);
                const Plan generation = make_generation_plan(model, request, 40);
                expect_right(model, evaluation, make_evaluation_plan(model, one));
                expect_right(model, generation, make_generation_plan(model, one, 40));
                for (const Plan* plan : {&evaluation, &generation}) {
                    EXPECT_EQ(count(*plan, StepKind::Gather), zero == 3 ? L + (model.config.tied ? 3 : 2) : 0);
                    EXPECT_EQ(count(*plan, StepKind::Reduce) + count(*plan, StepKind::ZeroGradients), 0);
                    EXPECT_EQ(plan->partition.buckets.empty(), zero < 3) << "a plan that communicates nothing";
                }
            }
        }
    }
}

/// The steps of communication before the update and those that zero, and the operation that stands before each.
std::vector<std::string> communication(const Model& model, const Plan& plan) {
    std::vector<std::string> lines;
    std::string before = "start";
    for (const Step& step : plan.steps) {
        const bool between = step.is_of_bucket() && step.phase != Phase::Update;
        if (between) lines.push_back(before + " | " + describe_step(model, step));
        if (step.kind == StepKind::Compute) before = describe_step(model, step);
    }
    return lines;
}

TEST(WithCommunication, ReducesABucketBesideTheNextOnesBackward) {
    const Model model = small_model(Family::Gpt2, 2);
    const PlanRequest request = request_of_ranks(model, kShape, DType::F32, 4, 1);
    EXPECT_EQ(communication(model, make_training_plan(model, request, find_policy("none"))),
              (std::vector<std::string>{
                  "cross-entropy | embedding, zero gradients",
                  "sum of losses | head, zero gradients",
                  "backward of lnf | head, reduce gradients",
                  "backward of lnf | layer 1, zero gradients",
                  "layer 1, backward of ln1 | head, wait for gradients",
                  "layer 1, backward of ln1 | layer 1, reduce gradients",
                  "layer 1, backward of ln1 | layer 0, zero gradients",
                  "layer 0, backward of ln1 | layer 1, wait for gradients",
                  "layer 0, backward of ln1 | layer 0, reduce gradients",
                  "backward of embedding | layer 0, wait for gradients",
                  "backward of embedding | embedding, reduce gradients",
                  "backward of embedding | embedding, wait for gradients",
              }));
}

TEST(WithCommunication, ZeroesGradientsRightBeforeTheirFirstUse) {
    // The tied classifier writes the embedding's gradients long before the embedding adds to them.
    for (const Family family : kFamilies) {
        const Model model = small_model(family, 2);
        const Plan plan =
            make_training_plan(model, request_of_ranks(model, kShape, DType::F32, 4, 2), find_policy("none"));
        std::vector<std::string> zeroed;
        for (const std::string& line : communication(model, plan)) {
            if (line.ends_with("zero gradients")) zeroed.push_back(line);
        }
        std::vector<std::string> expected = {"backward of lnf | layer 1, zero gradients",
                                             "layer 1, backward of ln1 | layer 0, zero gradients"};
        if (model.config.tied) {
            expected.insert(expected.begin(),
                            {"cross-entropy | embedding, zero gradients", "sum of losses | head, zero gradients"});
        } else {
            expected.insert(expected.begin(), "cross-entropy | head, zero gradients");
            expected.push_back("layer 0, backward of ln1 | embedding, zero gradients");
        }
        EXPECT_EQ(zeroed, expected);
    }
}

TEST(WithCommunication, GathersWhileTheLayerBeforeWorks) {
    const Model model = small_model(Family::Llama, 3);
    const Plan plan =
        make_training_plan(model, request_of_ranks(model, kShape, DType::F32, 4, 3), find_policy("layer"));
    std::vector<std::string> gathers;
    for (const std::string& line : communication(model, plan)) {
        if (line.ends_with("parameters")) gathers.push_back(line);
    }
    EXPECT_EQ(gathers, (std::vector<std::string>{
                           "start | embedding, gather parameters",
                           "start | layer 0, gather parameters",
                           "start | embedding, wait for parameters",
                           "forward of embedding | layer 1, gather parameters",
                           "forward of embedding | layer 0, wait for parameters",
                           "layer 0, forward of fc_proj | layer 2, gather parameters",
                           "layer 0, forward of fc_proj | layer 1, wait for parameters",
                           "layer 1, forward of fc_proj | head, gather parameters",
                           "layer 1, forward of fc_proj | layer 2, wait for parameters",
                           "layer 2, forward of fc_proj | head, wait for parameters",
                           // The last layer's are still there for its backward.
                           "layer 2, weight gradient of fc_proj | layer 1, gather parameters",
                           "layer 2, backward of ln1 | layer 0, gather parameters",
                           "layer 2, backward of ln1 | layer 1, wait for parameters",
                           "layer 1, backward of ln1 | layer 0, wait for parameters",
                       }));
}

TEST(WithCommunication, AWalkWaitsForTheReductionBeforeItsLaterGathers) {
    // Layer 2's input is walked to from layer 0's: what was reduced before the second gather of the walk began is
    // waited for before that gather is.
    const Model model = small_model(Family::Gpt2, 4);
    KeepSet keep = find_policy("layer").function(model);
    keep.slots[1][kLayerInput] = keep.slots[2][kLayerInput] = false;
    const Plan plan = make_training_plan(model, request_of_ranks(model, kShape, DType::F32, 4, 3), keep, "walk");
    const std::vector<std::string> lines = communication(model, plan);
    const auto begin = std::find(lines.begin(), lines.end(), "layer 3, backward of ln1 | layer 3, reduce gradients");
    ASSERT_GE(lines.end() - begin, 6);
    EXPECT_EQ(std::vector<std::string>(begin + 1, begin + 7),
              (std::vector<std::string>{
                  "layer 3, backward of ln1 | layer 1, gather parameters",
                  "layer 3, backward of ln1 | layer 0, wait for parameters",
                  "layer 0, repeated fc_proj | layer 2, gather parameters",
                  "layer 0, repeated fc_proj | layer 3, wait for gradients",
                  "layer 0, repeated fc_proj | layer 1, wait for parameters",
                  "layer 1, repeated fc_proj | layer 0, gather parameters",
              }));
}

TEST(WithCommunication, ReceivesOnlyWhereItIsAskedTo) {
    const Model model = small_model(Family::Gpt2, 3);
    for (int zero = 0; zero <= 3; ++zero) {
        for (const bool exchanges : {false, true}) {
            const Plan plan = make_training_plan(model, request_of_ranks(model, kShape, DType::F32, 4, zero, exchanges),
                                                 find_policy("attn"));
            for (const Step& step : plan.steps) {
                if (step.kind != StepKind::Reduce && step.kind != StepKind::WaitReduce) continue;
                const int32_t received = step.operand(Slot::Workspace);
                ASSERT_EQ(received >= 0, exchanges);
                if (!exchanges) continue;
                const PlanTensor& tensor = plan.tensors[static_cast<size_t>(received)];
                EXPECT_EQ(tensor.bytes, 3 * plan.partition.bucket(step.bucket).piece * 4);
            }
        }
    }
}

/// Everything a rank holds: parameters, fp32 gradients and moments as the stage shards them, and the arena.
int64_t rank_bytes(const Model& model, int ranks, int zero, const BatchShape& shape, const char* policy) {
    const Partition partition = make_partition(model, ranks);
    const auto elements = [&](int sharded_from) {
        return zero >= sharded_from ? partition.shard_elements : partition.elements;
    };
    const Plan plan = make_training_plan(
        model, request_of_ranks(model, shape, DType::F32, ranks, zero, /*exchanges=*/false), find_policy(policy));
    return 4 * (2 * elements(1) + elements(2) + elements(3)) + make_layout(plan).arena_bytes;
}

TEST(WithCommunication, MemoryFallsWithTheStage) {
    for (const Family family : kFamilies) {
        const Model model = small_model(family, 24);
        for (const char* policy : {"none", "layer", "sqrt", "attn"}) {
            for (const int ranks : {2, 4, 8}) {
                int64_t before = rank_bytes(model, ranks, 0, {2, 64}, policy);
                for (int zero = 1; zero <= 3; ++zero) {
                    const int64_t bytes = rank_bytes(model, ranks, zero, {2, 64}, policy);
                    EXPECT_LT(bytes, before) << policy << ", " << ranks << " ranks, ZeRO " << zero;
                    before = bytes;
                }
            }
        }
    }
}

TEST(WithCommunication, MemoryFallsWithTheRanks) {
    for (const Family family : kFamilies) {
        const Model model = small_model(family, 24);
        for (int zero = 1; zero <= 3; ++zero) {
            int64_t before = rank_bytes(model, 2, zero, {2, 64}, "layer");
            for (const int ranks : {3, 4, 8, 16}) {
                const int64_t bytes = rank_bytes(model, ranks, zero, {2, 64}, "layer");
                EXPECT_LT(bytes, before) << ranks << " ranks, ZeRO " << zero;
                before = bytes;
            }
        }
    }
}

TEST(WithCommunication, TheLogitsChunkDoesNotDependOnRanks) {
    const Model model = small_model(Family::Llama, 4);
    PlanRequest request = request_of_ranks(model, {4, 257}, DType::F32, 8, 3);
    const Plan plan = make_training_plan(model, request, find_policy("layer"));
    EXPECT_EQ(plan.logits_chunk_tokens, default_logits_chunk(model, {4, 257}, "cpu"));
}

TEST(BucketOf, IsTheOneWithTheOperationsParameters) {
    for (const Family family : kFamilies) {
        const Model model = small_model(family, 3);
        const Plan plan = make_training_plan(model, request_of(model, kShape, DType::F32), find_policy("layer"));
        const Partition partition = make_partition(model, 2);
        for (const Step& step : plan.steps) {
            const Uses uses = uses_of(model, step);
            EXPECT_EQ(reads_parameters(step), uses.parameters != kNone) << describe_step(model, step);
            EXPECT_EQ(writes_gradients(model, step), uses.gradients != kNone) << describe_step(model, step);
            const int bucket = bucket_of(model, partition, step);
            EXPECT_TRUE(uses.parameters == kNone || bucket == uses.parameters) << describe_step(model, step);
            EXPECT_TRUE(uses.gradients == kNone || bucket == uses.gradients) << describe_step(model, step);
            if (uses.parameters == kNone && uses.gradients == kNone && step.row >= 0) {
                EXPECT_EQ(bucket, kNone) << describe_step(model, step);
            }
        }
    }
}

TEST(WithCommunicationDeathTest, RefusesStagesThereAreNotAndPlacesThatContradictEachOther) {
    const Model model = small_model(Family::Gpt2, 1);
    EXPECT_DEATH(make_training_plan(model, request_of_ranks(model, kShape, DType::F32, 2, 4), find_policy("none")),
                 "check failed");
    PlanRequest request = request_of_ranks(model, kShape, DType::F32, 2, 2);
    request.places[Buffer::MomentM].spread = Spread::Whole;
    EXPECT_DEATH(make_training_plan(model, request, find_policy("none")), "gradients in pieces need first moments");
}

}  // namespace
}  // namespace llmc
