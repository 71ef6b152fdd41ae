// Runs a test under several schedules; on a card, which has its own, once.
#pragma once

#ifdef LLMC_CUDA_ON_CPU
#include "dev/cuda_on_cpu/control.h"

#include <gtest/gtest.h>
#endif

#include <cstdint>

namespace llmc::cuda {

template <typename Body>
void for_each_seed(Body body, [[maybe_unused]] uint64_t count = 3) {
#ifdef LLMC_CUDA_ON_CPU
    for (uint64_t i = 0; i < count; ++i) {
        const uint64_t seed = i == 0 ? 0 : cuda_on_cpu::seed_from_environment() + i - 1;
        SCOPED_TRACE(testing::Message() << "seed " << seed);
        cuda_on_cpu::set_seed(seed);
        body();
    }
#else
    body();
#endif
}

}  // namespace llmc::cuda
