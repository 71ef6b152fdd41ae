// Low-rank adapters of the CPU backend against loops in double precision.
#include "tests/backend/adapter_testing.h"

namespace llmc {
namespace {

const auto in_place = [](const TestBuffer& buffer) { return buffer.tensor(); };

TEST(Adapter, IsAsGoodAsPlainLoops) {
    for (const AdapterCase& c : adapter_cases()) {
        for (const DType dtype : kActivationTypes) {
            for (const bool adds : {false, true}) {
                SCOPED_TRACE(fmt::format("{} {} {}", c.name, name_of(dtype), adds));
                const AdapterBuffers t(c, dtype);
                const std::vector<Values> exact = plain_adapter<double>(c, t, adds),
                                          plain = plain_adapter<float>(c, t, adds);
                cpu::CpuBackend backend(2);
                run_adapter(backend, c, t, adds, in_place);
                for (size_t i = 0; i < exact.size(); ++i) {
                    SCOPED_TRACE(i);
                    expect_as_good_as_plain(*t.results()[i], plain[i], exact[i], 4 * largest_magnitude(exact[i]));
                }
            }
        }
    }
}

TEST(Adapter, ColumnsOfNoGroupStay) {
    const AdapterCase& c = adapter_cases()[2];
    const AdapterBuffers t(c, DType::F32), before(c, DType::F32);
    cpu::CpuBackend backend(1);
    run_adapter(backend, c, t, true, in_place);
    for (int64_t n = 0; n < c.N; ++n) {
        for (int64_t column = 30; column < 45; ++column) {
            ASSERT_EQ(t.out.values()[n * c.OC + column], before.out.values()[n * c.OC + column]);
        }
    }
}

TEST(Adapter, AddingAfterWritingIsTheSumOfBoth) {
    const AdapterCase& c = adapter_cases()[4];
    cpu::CpuBackend backend(2);
    const AdapterBuffers written(c, DType::F32), added(c, DType::F32), start(c, DType::F32);
    run_adapter(backend, c, written, false, in_place);
    run_adapter(backend, c, added, true, in_place);
    expect_rounded_sums(added.d_a, start.d_a, written.d_a);
    expect_rounded_sums(added.d_b, start.d_b, written.d_b);
}

TEST(Adapter, SameBitsAtEveryThreadCount) {
    AdapterCase c = {"large", 700, 512, 640, {16, {{0, 256, 2}, {384, 256, 2}}}};
    for (const float p : {0.0f, 0.2f}) {
        c.p = p;
        for (const DType dtype : kActivationTypes) {
            expect_same_bits_at_every_thread_count([&](Backend& backend) {
                const AdapterBuffers t(c, dtype);
                run_adapter(backend, c, t, true, in_place);
                return joined({&t.out, &t.d_x, &t.d_a, &t.d_b, &t.new_z, &t.new_d_z});
            });
        }
    }
}

}  // namespace
}  // namespace llmc
