// The optimisers with state in less than fp32 against the CPU backend. Random bits are the same; the arithmetic before
// a rounding may differ in its last bit, so that now and then one turns.
#include "tests/backend/formats_testing.h"
#include "tests/cuda/cuda_testing.h"

namespace llmc {
namespace {

/// How many of these values differ by more than a few roundings of fp32; none by more than `step` of the value's size,
/// or of the largest in 8-bit blocks.
int64_t turned(const Values& ours, const Values& cpu, double step, double of_largest, const char* what) {
    const double largest = largest_magnitude(cpu);
    int64_t count = 0;
    for (size_t i = 0; i < cpu.size(); ++i) {
        const double error = std::fabs(ours[i] - cpu[i]);
        EXPECT_LE(error, step * std::fabs(cpu[i]) + of_largest * largest + 1e-9) << what << ", element " << i;
        count += error > 4e-6 * std::fabs(cpu[i]) + 1e-8;
    }
    return count;
}

Values moments(const FormatsRun& run, const TestBuffer& buffer, const TestBuffer& scales, const DynamicMap& map) {
    if (run.formats.moments != DType::U8) return buffer.values();
    Values values;
    for (const ParameterRange& range : format_ranges())
        for (int64_t i = 0; i < range.count; ++i)
            values.push_back(run.moment(buffer, scales, map, range.offset + range.moments_shift + i));
    return values;
}

void expect_like_cpu(const FormatsRun& ours, const FormatsRun& cpu) {
    const double of_format = ours.formats.moments == DType::BF16 ? 0.01 : 1e-5;
    const double of_block = ours.formats.moments == DType::U8 ? 0.9 / 64 : 0;
    const int64_t few = kFormatCount / 200;
    const double of_weights = ours.weights().dtype() == DType::BF16 ? 0.01 : 1e-5;
    // Lion moves by the rate one way or the other; a turned moment may turn its sign.
    const double by_rate = ours.formats.kind == OptimizerKind::Lion ? 0.01 : 1e-3;
    EXPECT_LE(turned(ours.weights().values(), cpu.weights().values(), of_weights, by_rate, "weights"), few);
    EXPECT_LE(turned(moments(ours, ours.m, ours.m_scales, signed_map()),
                     moments(cpu, cpu.m, cpu.m_scales, signed_map()), of_format, of_block, "m"),
              few);
    EXPECT_TRUE(ours.intact());
    if (!optimizer_row(ours.formats.kind).second_moment) return;
    EXPECT_LE(turned(moments(ours, ours.v, ours.v_scales, unsigned_map()),
                     moments(cpu, cpu.v, cpu.v_scales, unsigned_map()), of_format, of_block, "v"),
              few);
}

TEST(CudaOptimizerFormats, ThreeUpdatesAsOnTheCpu) {
    for (const Formats& formats : all_formats()) {
        SCOPED_TRACE(formats.words());
        const FormatsRun cpu(formats), ours(formats);
        run_on_cpu([&](Backend& b, auto on) { cpu.train(b, on); });
        run_on_cuda([&](Backend& b, auto on) { ours.train(b, on); });
        expect_like_cpu(ours, cpu);
    }
}

TEST(CudaOptimizerFormats, SameBitsAtEverySeedAndHoweverRowsAreCut) {
    const std::vector<ParameterRange> cut = cut_format_ranges(1792);
    for (const DType moments : {DType::BF16, DType::U8}) {
        const Formats formats = {DType::BF16, false, moments, DType::BF16, OptimizerKind::AdamW};
        bool in_parts = false;
        expect_same_bits_at_every_seed([&] {
            const FormatsRun ours(formats);
            in_parts = !in_parts;
            run_on_cuda([&](Backend& b, auto on) { ours.train(b, on, in_parts ? cut : format_ranges()); });
            return ours.all();
        });
    }
}

TEST(CudaAddRounded, SameBitsAsCpu) {
    const TestBuffer controls = controls_buffer(0, 5);
    controls.tensor().as<double>()[static_cast<size_t>(UpdateControl::MicroBatch)] = 2;
    const TestBuffer x = random_buffer(DType::F32, kFormatCount, 1, 1, 2);
    for (const bool adds : {false, true}) {
        TestBuffer ours(DType::BF16, kFormatCount), cpu(DType::BF16, kFormatCount);
        ours.set(random_buffer(DType::F32, kFormatCount, 1, 1, 1).values());
        cpu.set(ours.values());
        const auto add = [&](const TestBuffer& out) {
            return [&, adds](Backend& b, auto on) {
                b.add_rounded(on(out), adds, on(x), format_ranges(), 1337, on(controls));
            };
        };
        run_on_cuda(add(ours));
        run_on_cpu(add(cpu));
        EXPECT_TRUE(ours.bytes() == cpu.bytes());
        EXPECT_TRUE(ours.intact() && x.intact());
    }
}

TEST(CudaGradientNorm, OfRoundedGradientsIsThatOfTheirValues) {
    for (const int64_t chunk : {128, 4224}) {
        TestBuffer rounded(DType::BF16, 5, chunk), wide(DType::F32, 5, chunk);
        rounded.set(random_buffer(DType::F32, 5, chunk, 0.01, 1).values());
        wide.set(rounded.values());
        const TestBuffer of_rounded(DType::F64, 5), of_wide(DType::F64, 5);
        run_on_cuda([&](Backend& b, auto on) { b.square_sums(on(of_rounded), on(rounded), chunk); });
        run_on_cuda([&](Backend& b, auto on) { b.square_sums(on(of_wide), on(wide), chunk); });
        EXPECT_TRUE(of_rounded.bytes() == of_wide.bytes());
    }
}

}  // namespace
}  // namespace llmc
