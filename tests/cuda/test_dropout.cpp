// Dropout of the CUDA backend: the masks of base/dropout.h, which are the CPU's.
#include "tests/backend/dropout_testing.h"
#include "tests/cuda/cuda_testing.h"

namespace llmc {
namespace {

TEST(CudaDropout, DropsByTheCounters) {
    for (const DropoutCase& c : dropout_cases()) {
        for (const DType dtype : kActivationTypes) {
            expect_dropout(c, dtype, [](const auto& operation) { run_on_cuda(operation); });
        }
    }
}

}  // namespace
}  // namespace llmc
