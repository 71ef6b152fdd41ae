// Whole trainings with state in less than fp32: the same bits under every policy, at every ZeRO stage and thread count,
// in the memory that was planned (which RankTeam checks), and near what fp32 trains.
#include "tests/run/formats_cases.h"

#include <cmath>

namespace llmc {
namespace {

constexpr Family kFamilies[] = {Family::Gpt2, Family::Llama};

TEST(Formats, SameBitsUnderEveryPolicyAndThreadCount) {
    for (const auto& [dtype, formats] : all_state_formats()) {
        const Family family = formats.gradients == DType::F32 ? Family::Gpt2 : Family::Llama;
        const TeamResult expected = RankTeam(formats_run(family, dtype, formats)).train();
        for (const PolicyRow& policy : policies()) {
            TeamRun run = formats_run(family, dtype, formats);
            run.policy = policy.name, run.threads = 3;
            expect_same_training(RankTeam(run).train(), expected, words(dtype, formats) + ", " + policy.name);
        }
    }
}

// Two micro-batches of each rank: with fp32 gradients stages 0 and 1 add up on the rank first, with rounded ones all
// stages reduce every micro-batch.
TEST(Formats, SameBitsAtEveryStage) {
    for (const auto& [dtype, formats] : all_state_formats()) {
        TeamRun first = formats_run(Family::Gpt2, dtype, formats);
        first.parallel.ranks = 3;
        if (formats.gradients == DType::F32) first.parallel.micro_batches = 1;
        const TeamResult expected = RankTeam(first).train();
        for (int zero = 1; zero <= 3; ++zero) {
            TeamRun run = first;
            run.zero = zero, run.policy = zero == 2 ? "layer" : "none";
            expect_same_training(RankTeam(run).train(), expected,
                                 fmt::format("{}, ZeRO {}", words(dtype, formats), zero));
        }
    }
}

// Ranks agree to the rounding of the format: so do formats with fp32, here and for some steps.
TEST(Formats, TrainAsFp32DoesAtAnyNumberOfRanks) {
    for (const Family family : kFamilies) {
        for (const DType dtype : {DType::F32, DType::BF16}) {
            const TeamResult plain = RankTeam(formats_run(family, dtype, {})).train();
            for (const auto& [of, formats] : all_state_formats()) {
                if (of != dtype) continue;
                for (const int ranks : {1, 2}) {
                    TeamRun run = formats_run(family, dtype, formats);
                    run.parallel.ranks = ranks, run.parallel.micro_batches = 2 / ranks, run.zero = ranks;
                    const TeamResult team = RankTeam(run).train();
                    const std::string what = fmt::format("{}, {} ranks", words(dtype, formats), ranks);
                    for (size_t step = 0; step < plain.losses.size(); ++step) {
                        EXPECT_NEAR(team.losses[step] / plain.losses[step], 1, 0.01) << what << ", step " << step;
                        EXPECT_NEAR(team.norms[step] / plain.norms[step], 1, 0.1) << what << ", step " << step;
                    }
                    EXPECT_NE(team.weights, plain.weights) << what << ": formats change bits";
                }
            }
        }
    }
}

TEST(Formats, AnotherSeedRoundsOtherwise) {
    const StateFormats all = {DType::BF16, false, DType::BF16};
    const TeamResult expected = RankTeam(formats_run(Family::Gpt2, DType::BF16, all)).train();
    TeamRun run = formats_run(Family::Gpt2, DType::BF16, all);
    run.rounding_seed = 8;
    const TeamResult other = RankTeam(run).train();
    EXPECT_EQ(other.losses.front(), expected.losses.front()) << "nothing is rounded before the first update";
    EXPECT_NE(other.weights, expected.weights);
}

// Without masters, weights move as far as masters do, although nearly every step is smaller than half a unit in their
// last place: rounded to nearest they would stay.
TEST(Formats, WeightsWithoutMastersMoveAsMastersDo) {
    TeamRun run = formats_run(Family::Llama, DType::BF16, {});
    run.learning_rate = 0, run.steps = 1;
    const std::vector<float> start = RankTeam(run).train().weights;
    run.learning_rate = 1e-5f, run.steps = 8;
    const std::vector<float> masters = RankTeam(run).train().weights;
    run.formats.masters = false;
    const std::vector<float> weights = RankTeam(run).train().weights;
    double along = 0, squares = 0;
    for (size_t i = 0; i < start.size(); ++i) {
        const double moved = masters[i] - start[i];
        along += moved * (weights[i] - to_float(to_bf16(start[i]))), squares += moved * moved;
        ASSERT_EQ(to_float(to_bf16(weights[i])), weights[i]);
    }
    EXPECT_NEAR(along / squares, 1, 0.1);
}

// ---- bytes ---------------------------------------------------------------------------------------------------------

TEST(FormatsBytes, ByHandAndAsTheTableOfFormatsSays) {
    const Model model = make_model(preset("gpt2"));
    const auto bytes = [&](DType dtype, const StateFormats& formats) {
        return state_bytes(model, with_formats(Places(dtype), formats), 16, {}, /*training=*/true);
    };
    const StateBytes plain = bytes(DType::BF16, {});
    const auto elements = static_cast<double>(plain.parameters) / 2;
    const StateBytes rounded = bytes(DType::BF16, {DType::BF16, true, DType::F32});
    EXPECT_EQ(rounded.moments() * 2, plain.moments());
    EXPECT_EQ(rounded.master, plain.master);
    const StateBytes nothing = bytes(DType::BF16, {DType::BF16, false, DType::BF16});
    EXPECT_EQ(nothing.master, 0);
    EXPECT_EQ(nothing.gradients * 2, plain.gradients);
    const StateBytes blocks = bytes(DType::BF16, {DType::U8, true, DType::F32});
    // Two bytes, two scales for 256 elements; the 121,344 elements of small rows are fp32 besides.
    EXPECT_NEAR(static_cast<double>(blocks.moments()) / elements, 2 + 2 * 4.0 / 256, 0.01);
    int64_t small = 0;
    for (const ParameterRow& row : model.parameters) small += row.count() < 4096 ? row.count() : 0;
    EXPECT_EQ(small, 121'344);
    EXPECT_EQ(bytes(DType::F32, {}).total(), bytes(DType::F32, {DType::F32, false, DType::F32}).total());
}

/// What the rows of a moment take lies inside its buffer, no two overlap, and pieces of ranks are cut between blocks.
TEST(FormatsBytes, BlocksOfAllRanksAreTheRows) {
    const Model model = make_model(formats_run(Family::Gpt2, DType::F32, {}).config);
    for (const int ranks : {1, 2, 3, 5})
        for (const int zero : {0, 2}) {
            Parallel parallel;
            parallel.ranks = ranks;
            const Places places = with_formats(places_of_zero(zero, ranks, DType::F32), {DType::U8, true, DType::F32});
            std::vector<int64_t> next(model.parameters.size(), 0);
            for (int rank = 0; rank < ranks; ++rank) {
                const auto backend = make_backend("cpu", 1);
                State state(*backend, model, places, 16, 256, true, parallel, rank);
                const Tensor all = state.all(Buffer::MomentV);
                std::vector<bool> taken(static_cast<size_t>(all.bytes()), false);
                const auto take = [&](const Tensor& part, const std::string& name) {
                    const int64_t first = static_cast<char*>(part.data) - static_cast<char*>(all.data);
                    ASSERT_TRUE(first >= 0 && first + part.bytes() <= all.bytes()) << name;
                    for (int64_t i = first; i < first + part.bytes(); ++i) {
                        ASSERT_FALSE(taken[static_cast<size_t>(i)]) << name;
                        taken[static_cast<size_t>(i)] = true;
                    }
                };
                for (size_t row = 0; row < model.parameters.size(); ++row) {
                    const ParameterRow& parameter = model.parameters[row];
                    const auto index = static_cast<int>(row);
                    const ElementRange held = state.held(index);
                    if (held.count() <= 0) continue;
                    const Tensor part = state.kept(Kept::MomentV, index, held);
                    EXPECT_EQ(part.dtype, in_blocks(parameter) ? DType::U8 : DType::F32) << parameter.name;
                    EXPECT_TRUE(!in_blocks(parameter) || held.begin % 256 == 0) << parameter.name;
                    take(part, parameter.name);
                    if (const Tensor scales = state.kept_scales(Kept::MomentV, index, held)) {
                        EXPECT_EQ(scales.count(), (held.count() + 255) / 256);
                        take(scales, parameter.name + "'s scales");
                    }
                    if (zero > 0 || rank == 0) {
                        EXPECT_EQ(held.begin, next[row]) << parameter.name;
                        next[row] = held.end;
                    }
                }
            }
            for (size_t row = 0; row < next.size(); ++row)
                EXPECT_EQ(next[row], model.parameters[row].used_rows * model.parameters[row].cols);
        }
}

/// Values that are written, read and written again.
TEST(FormatsBytes, KeptValuesToAndFromTheHost) {
    const Model model = make_model(formats_run(Family::Llama, DType::BF16, {}).config);
    for (const auto& [dtype, formats] : all_state_formats()) {
        const auto backend = make_backend("cpu", 1);
        State state(*backend, model, with_formats(Places(dtype), formats), 16, 256, true);
        for (int index = 0; index < static_cast<int>(model.parameters.size()); ++index) {
            const ElementRange held = state.held(index);
            std::vector<float> values(static_cast<size_t>(held.count())), back(values.size());
            fill_normal(values.data(), held.count(), 1, 3, RngStream::Test, static_cast<uint32_t>(index));
            for (const Kept what : {Kept::Weights, Kept::MomentM, Kept::MomentV}) {
                if (what == Kept::MomentV)
                    for (float& value : values) value *= value;
                state.write_kept(what, index, held, values.data());
                state.read_kept(what, index, held, back.data());
                const DType kept = state.kept(what, index, held).dtype;
                const double step = kept == DType::F32 ? 0 : kept == DType::BF16 ? 1.0 / 256 : 0.9 / 128;
                for (size_t i = 0; i < values.size(); ++i) {
                    const double scale = kept == DType::U8 ? 20 : std::fabs(values[i]);
                    ASSERT_LE(std::fabs(back[i] - values[i]), step * scale) << model.parameters[index].name;
                }
            }
        }
    }
}

}  // namespace
}  // namespace llmc
