// Low-rank adapters of the CUDA backend against loops in double precision, at several schedules.
#include "tests/backend/adapter_testing.h"
#include "tests/cuda/cuda_testing.h"

namespace llmc {
namespace {

TEST(CudaAdapter, IsAsGoodAsPlainLoops) {
    for (const AdapterCase& c : adapter_cases()) {
        for (const DType dtype : kActivationTypes) {
            for (const bool adds : {false, true}) {
                SCOPED_TRACE(fmt::format("{} {} {}", c.name, name_of(dtype), adds));
                const AdapterBuffers t(c, dtype);
                const std::vector<Values> exact = plain_adapter<double>(c, t, adds),
                                          plain = plain_adapter<float>(c, t, adds);
                run_on_cuda([&](Backend& backend, auto on) { run_adapter(backend, c, t, adds, on); });
                for (size_t i = 0; i < exact.size(); ++i) {
                    SCOPED_TRACE(i);
                    expect_as_good_as_plain(*t.results()[i], plain[i], exact[i], 4 * largest_magnitude(exact[i]));
                }
            }
        }
    }
}

TEST(CudaAdapter, SameBitsAtEverySchedule) {
    const AdapterCase& c = adapter_cases()[2];
    expect_same_bits_at_every_seed([&] {
        const AdapterBuffers t(c, DType::BF16);
        run_on_cuda([&](Backend& backend, auto on) { run_adapter(backend, c, t, true, on); });
        return joined({&t.out, &t.d_x, &t.d_a, &t.d_b, &t.new_z, &t.new_d_z});
    });
}

}  // namespace
}  // namespace llmc
