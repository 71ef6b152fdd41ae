// How element-wise and row-wise operations are cut into work for the threads: fixed blocks, one parallel region, and no
// region at all where it would cost more than it saves. Cutting by size and never by thread count keeps results
// bitwise the same at every thread count.
#pragma once

#include "llmc/base/units.h"

#include <algorithm>
#include <cstdint>

namespace llmc::cpu {

/// Elements of a block in element-wise operations.
constexpr int64_t kBlockElements = 16384;

/// Below this many bytes read and written one thread is used: a region costs 1 us, but 40 us if a thread must be woken.
constexpr int64_t kParallelBytes = 512 * 1024;

/// run(block) for every block in [0, blocks), in parallel if the work as a whole touches enough memory.
template <typename Run>
void for_each_block(int64_t blocks, int64_t bytes, const Run& run) {
    if (blocks <= 1 || bytes < kParallelBytes) {
        for (int64_t block = 0; block < blocks; ++block) run(block);
        return;
    }
#pragma omp parallel for schedule(static)
    for (int64_t block = 0; block < blocks; ++block) run(block);
}

/// run(begin, end) over [0, count) in fixed ranges of `step`.
template <typename Run>
void for_each_range(int64_t count, int64_t step, int64_t bytes, const Run& run) {
    for_each_block(ceil_div(count, step), bytes,
                   [&](int64_t block) { run(block * step, std::min(count, (block + 1) * step)); });
}

}  // namespace llmc::cpu
