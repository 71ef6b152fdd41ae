// Dropout of the CPU backend: the masks of base/dropout.h, at every thread count.
#include "tests/backend/dropout_testing.h"

namespace llmc {
namespace {

TEST(CpuDropout, DropsByTheCounters) {
    cpu::CpuBackend backend(2);
    for (const DropoutCase& c : dropout_cases()) {
        for (const DType dtype : kActivationTypes) {
            expect_dropout(c, dtype, [&](const auto& operation) {
                operation(backend, [](const TestBuffer& buffer) { return buffer.tensor(); });
            });
        }
    }
}

TEST(CpuDropout, SameBitsAtEveryThreadCount) {
    const TestBuffer rows = mask_rows(600), x = random_buffer(DType::F32, 600, 700, 1, 1);
    expect_same_bits_at_every_thread_count([&](Backend& backend) {
        const TestBuffer out(DType::F32, 600, 700);
        backend.dropout(out, x, x, {0.4f, 1, 2, 3, rows});
        return joined({&out});
    });
}

}  // namespace
}  // namespace llmc
