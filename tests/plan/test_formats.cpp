// Plans whose state is kept in less than fp32: where gradients join those that are kept, what that costs in memory,
// where pieces are cut; and that the verifier sees what is wrong.
#include "llmc/plan/formats.h"

#include "llmc/plan/cost.h"
#include "llmc/plan/simulate.h"
#include "llmc/plan/verify.h"
#include "tests/plan/plan_cases.h"

#include <gtest/gtest.h>

#include <functional>
#include <utility>

namespace llmc {
namespace {

using namespace plan_cases;

constexpr BatchShape kShape = {3, 7};

Plan plan_of(const Model& model, int ranks, int zero, const StateFormats& formats, const char* policy = "layer",
             int64_t micro_batches = 2) {
    PlanRequest request = request_of_ranks(model, kShape, DType::BF16, ranks, zero);
    request.places = with_formats(request.places, formats);
    request.parallel.micro_batches = micro_batches;
    return make_training_plan(model, request, find_policy(policy));
}

constexpr StateFormats kRounded = {DType::F32, true, DType::BF16};

TEST(RoundedGradients, OfOneRankJoinWhenTheirBucketIsComplete) {
    for (const Family family : kFamilies) {
        const Model model = small_model(family, 3);
        for (const PolicyRow& policy : policies()) {
            const Plan plan = plan_of(model, 1, 0, kRounded, policy.name);
            EXPECT_EQ(find_fault(model, plan, make_layout(plan)), "") << policy.name;
            EXPECT_EQ(count(plan, StepKind::AddGradients), plan.partition.last_bucket() + 1);
            EXPECT_EQ(count(plan, StepKind::Reduce), 0);
            for (const Step& step : plan.steps) {
                if (step.kind != StepKind::AddGradients) continue;
                EXPECT_EQ(step.when, When::Always);
                EXPECT_EQ(step.adds, Adds::AfterFirst);
                EXPECT_EQ(step.elements, plan.partition.bucket_elements(step.bucket));
                const PlanTensor& tensor = plan.tensor(step.operand(Slot::ParameterGradients));
                EXPECT_EQ(tensor.dtype, DType::F32);
                EXPECT_EQ(tensor.rows * tensor.cols, step.elements);
            }
        }
    }
}

// At every stage the same: each micro-batch's are reduced in fp32, and a rank's piece of the sums is rounded.
TEST(RoundedGradients, OfSeveralRanksAreReducedInEveryMicroBatchAtEveryStage) {
    const Model model = small_model(Family::Llama, 3);
    for (int zero = 0; zero <= 3; ++zero) {
        const Plan plan = plan_of(model, 4, zero, kRounded);
        EXPECT_EQ(find_fault(model, plan, make_layout(plan)), "");
        EXPECT_EQ(count(plan, StepKind::AddGradients), 0);
        for (const Step& step : plan.steps) {
            if (step.kind != StepKind::Reduce && step.kind != StepKind::WaitReduce) continue;
            EXPECT_EQ(step.when, When::Always);
            EXPECT_GE(step.operand(Slot::ParameterGradients), 0);
        }
        EXPECT_EQ(count(plan, StepKind::Share) > 0, zero == 0);
    }
}

// What is sent: sums in fp32, and those that are shared as they are kept.
TEST(RoundedGradients, CommunicationByHand) {
    const Model model = small_model(Family::Gpt2, 2);
    const Plan plain = plan_of(model, 4, 0, {}, "none", 1), rounded = plan_of(model, 4, 0, kRounded, "none", 1);
    int64_t others = 0;
    for (const Bucket& bucket : plain.partition.buckets) others += 3 * bucket.piece;
    EXPECT_EQ(communication_bytes(plain), others * (4 + 4));
    EXPECT_EQ(communication_bytes(rounded), others * (4 + 2));
}

TEST(RoundedGradients, VerifierSeesWhatIsWrong) {
    const Model model = small_model(Family::Gpt2, 3);
    const Plan good = plan_of(model, 1, 0, kRounded);
    const Layout layout = make_layout(good);
    const auto fault = [&](const std::function<void(Plan&, size_t)>& damage, size_t nth = 1) {
        Plan bad = good;
        for (size_t i = 0; i < bad.steps.size(); ++i) {
            if (bad.steps[i].kind != StepKind::AddGradients || nth-- > 0) continue;
            damage(bad, i);
            break;
        }
        return find_fault(model, bad, layout);
    };
    EXPECT_NE(fault([](Plan& plan, size_t i) { plan.steps.erase(plan.steps.begin() + static_cast<int64_t>(i)); }), "");
    EXPECT_NE(fault([](Plan& plan, size_t i) {
                  plan.steps.insert(plan.steps.begin() + static_cast<int64_t>(i), plan.steps[i]);
              }),
              "");
    EXPECT_NE(fault([](Plan& plan, size_t i) { plan.steps[i].adds = Adds::Always; }), "");
    EXPECT_NE(fault([](Plan& plan, size_t i) { plan.steps[i].adds = Adds::Never; }), "");
    EXPECT_NE(fault([](Plan& plan, size_t i) { plan.steps[i].when = When::Last; }), "");
    EXPECT_NE(fault([](Plan& plan, size_t i) { plan.steps[i].bucket += 1; }), "");
    EXPECT_NE(fault([](Plan& plan, size_t i) { plan.steps[i].bucket = 99; }), "");
    EXPECT_NE(fault([](Plan& plan, size_t i) { plan.steps[i].operand(Slot::ParameterGradients) = 0; }), "");
    // Before the last step that writes them.
    EXPECT_NE(fault([](Plan& plan, size_t i) { std::swap(plan.steps[i], plan.steps[i - 1]); }), "");
    // In a plan whose gradients are kept as they are written.
    Plan fp32 = plan_of(model, 1, 0, {});
    Step step = good.steps[0];
    for (const Step& other : good.steps) {
        if (other.kind == StepKind::AddGradients) step = other;
    }
    step.operand(Slot::ParameterGradients) = kNone;
    fp32.steps.insert(fp32.steps.begin() + 1, step);
    EXPECT_NE(find_fault(model, fp32, make_layout(plan_of(model, 1, 0, {}))), "");
}

TEST(RoundedGradients, TakeTheArenaOnlyAroundTheirBucketsBackward) {
    const Model model = small_model(Family::Llama, 4);
    const Plan plan = plan_of(model, 1, 0, kRounded);
    const Simulation simulation = simulate(model, plan);
    int64_t all = 0;
    for (const Bucket& bucket : plan.partition.buckets) all += bucket.piece * 4;
    const int64_t at_peak = simulation.by_consumer[static_cast<size_t>(Consumer::BucketGradients)];
    EXPECT_LT(at_peak, all);
    EXPECT_GE(make_layout(plan).arena_bytes, make_layout(plan_of(model, 1, 0, {})).arena_bytes);
}

// ---- blocks --------------------------------------------------------------------------------------------------------

TEST(PartitionOfBlocks, RowsBeginAndPiecesAreCutAtBlocks) {
    for (const Model& model : small_models(3))
        for (const int ranks : {1, 2, 3, 8}) {
            const Partition partition = make_partition(model, ranks, 256);
            const Partition one = make_partition(model, 1, 256);
            EXPECT_EQ(partition.row_offsets, one.row_offsets) << "depends on the ranks";
            for (int row = 0; row < static_cast<int>(model.parameters.size()); ++row) {
                const ParameterRow& parameter = model.parameters[static_cast<size_t>(row)];
                EXPECT_EQ(partition.row_in_bucket(model, row) % 256, 0) << parameter.name;
                int64_t end = 0;
                for (int rank = 0; rank < ranks; ++rank) {
                    const ElementRange range = partition.owned(model, row, rank);
                    if (range.count() == 0) continue;
                    EXPECT_EQ(range.begin, end) << parameter.name;
                    EXPECT_EQ(range.begin % 256, 0) << parameter.name << " is cut inside a block";
                    end = range.end;
                }
                EXPECT_EQ(end, parameter.used_rows * parameter.cols) << parameter.name;
            }
            for (const Bucket& bucket : partition.buckets) {
                EXPECT_EQ(bucket.chunk % 256, 0);
                EXPECT_EQ(bucket.piece % bucket.chunk, 0);
                EXPECT_LE(bucket.chunks(), kNormChunks);
            }
        }
}

TEST(PartitionOfBlocks, OthersAreAsTheyWere) {
    for (const Model& model : small_models(3)) {
        const Partition plain = make_partition(model, 3), ones = make_partition(model, 3, 1);
        EXPECT_EQ(plain.row_offsets, ones.row_offsets);
        EXPECT_EQ(plain.elements, ones.elements);
        for (int row = 0; row < static_cast<int>(model.parameters.size()); ++row) {
            const Bucket& bucket = plain.bucket(plain.bucket_of_row(row));
            const int64_t first = model.parameters[static_cast<size_t>(bucket.first_row)].offset;
            EXPECT_EQ(plain.row_in_bucket(model, row), model.parameters[static_cast<size_t>(row)].offset - first);
        }
    }
}

TEST(BlocksLayout, EveryBucketHasRoomForItsCodesScalesAndSmallRows) {
    ModelConfig config = preset("gpt2-mini");
    config.maxT = 16;
    const Model model = make_model(config);
    for (const int ranks : {1, 4})
        for (const bool in_pieces : {false, true}) {
            const Partition partition = make_partition(model, ranks, 256);
            const BlocksLayout layout = blocks_layout(model, partition, in_pieces);
            int64_t end = 0;
            for (int b = 0; b <= partition.last_bucket(); ++b) {
                const BlocksLayout::OfBucket& of = layout.buckets[static_cast<size_t>(b)];
                EXPECT_EQ(of.elements, in_pieces ? partition.bucket(b).piece : partition.bucket_elements(b));
                EXPECT_EQ(of.codes, end);
                EXPECT_GE(of.scales, of.codes + of.elements);
                EXPECT_GE(of.small, of.scales + of.elements / 256 * 4);
                EXPECT_EQ(of.codes % 256 + of.scales % 256 + of.small % 256, 0);
                end = of.small + (of.small_elements * 4 + 255) / 256 * 256;
                int64_t small = 0;
                for (int row = partition.bucket(b).first_row;
                     row < partition.bucket(b).first_row + partition.bucket(b).rows; ++row) {
                    const ParameterRow& parameter = model.parameters[static_cast<size_t>(row)];
                    EXPECT_EQ(in_blocks(parameter), parameter.used_rows * parameter.cols >= 4096) << parameter.name;
                    if (in_blocks(parameter)) continue;
                    EXPECT_GE(layout.small_offset[static_cast<size_t>(row)], small) << parameter.name;
                    small = layout.small_offset[static_cast<size_t>(row)] + parameter.count();
                }
                EXPECT_LE(small, of.small_elements);
            }
            EXPECT_EQ(layout.bytes, end);
            Place place = {.spread = in_pieces ? Spread::Pieces : Spread::Whole, .format = DType::U8};
            EXPECT_EQ(buffer_bytes(model, partition, place), end);
            place.exists = false;
            EXPECT_EQ(buffer_bytes(model, partition, place), 0);
        }
}

// An update moves what its formats have; adding rounded gradients 8 bytes an element.
TEST(FormatsCost, StepsByTheirBytes) {
    const Model model = small_model(Family::Gpt2, 3);
    const StateFormats formats = {DType::U8, false, DType::BF16};
    const Plan plan = plan_of(model, 1, 0, formats);
    for (const Step& step : plan.steps) {
        const auto elements = static_cast<double>(step.elements);
        const double bytes = step.kind == StepKind::Update         ? plan.places.update_bytes()
                             : step.kind == StepKind::AddGradients ? 8
                             : step.kind == StepKind::SquareSums   ? 2
                                                                   : 0;
        if (bytes == 0) continue;
        EXPECT_DOUBLE_EQ(step_cost(model, plan, step, 5).bytes, elements * bytes);
    }
    DeviceProfile device = find_device_profile("a100");
    const OpTimes small = analytic_times(model, kShape, plan.places, device);
    const OpTimes plain = analytic_times(model, kShape, Places(DType::BF16), device);
    EXPECT_NEAR(small.update / plain.update, plan.places.update_bytes() / 30, 1e-9);
    for (const Step& step : plan.steps) {
        if (step.kind != StepKind::AddGradients) continue;
        EXPECT_NEAR(step_seconds(small, step), 2 * small.zeroing * static_cast<double>(step.elements), 1e-15);
    }
}

}  // namespace
}  // namespace llmc
