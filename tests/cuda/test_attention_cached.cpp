// Attention over a cache, fed in chunks of several sizes, against the CPU backend's.
#include "tests/cuda/cuda_testing.h"
#include "tests/cuda_on_cpu/seeds.h"

#include <spdlog/fmt/fmt.h>

#include <numeric>

namespace llmc {
namespace {

struct Results {
    TestBuffer out, k_cache, v_cache, workspace, positions;  ///< The last has 0, 1, 2, ...
    Results(DType dtype, const AttentionShape& s)
        : out(dtype, s.T, s.NH * s.HD),
          k_cache(dtype, s.T + 3, s.NKV * s.HD),
          v_cache(dtype, s.T + 3, s.NKV * s.HD),
          workspace(workspace_buffer(cuda_backend().attention_cached_workspace(s, s.T + 3))),
          positions(DType::I32, s.T) {
        std::iota(positions.tensor().as<int32_t>(), positions.tensor().as<int32_t>() + s.T, 0);
        k_cache.set(Values(k_cache.count(), 0.0));
        v_cache.set(Values(v_cache.count(), 0.0));
    }
    std::vector<std::byte> bytes() const { return joined({&out, &k_cache, &v_cache}); }
};

/// device(buffer) is the buffer's tensor where the backend can use it. `start` tokens come at once, then chunks.
template <typename Device>
void run(Backend& backend, const TestBuffer& qkv, const Results& y, const AttentionShape& s, int64_t start,
         int64_t chunk, Device& device) {
    AttentionShape part = s;
    for (int64_t first = 0; first < s.T; first += part.T) {
        part.T = std::min(first == 0 ? start : chunk, s.T - first);
        backend.attention_cached(device(y.out).row_range(first, part.T), device(y.k_cache), device(y.v_cache),
                                 device(qkv).row_range(first, part.T), part, device(y.positions).row_range(first, 1),
                                 device(y.workspace));
    }
    backend.synchronize();
}

Results on_cpu(const TestBuffer& qkv, const AttentionShape& s) {
    Results y(qkv.dtype(), s);
    const auto in_place = [](const TestBuffer& buffer) { return buffer.tensor(); };
    run(cpu_backend(), qkv, y, s, s.T, s.T, in_place);
    return y;
}

Results on_cuda(const TestBuffer& qkv, const AttentionShape& s, int64_t start, int64_t chunk) {
    Results y(qkv.dtype(), s);
    OnDevice device;
    run(cuda_backend(), qkv, y, s, start, chunk, device);
    device.fetch();
    return y;
}

/// HD 20 and 1 have rows that are not aligned; 256 and 66 more columns than there are threads in a group.
const AttentionShape kShapes[] = {
    {1, 150, 4, 2, 64}, {1, 40, 3, 3, 20},  {1, 17, 6, 1, 8},       {1, 33, 1, 1, 256},
    {1, 9, 2, 1, 1},    {1, 140, 2, 1, 66}, {1, 300, 2, 1, 16, 13}, {1, 300, 2, 1, 16, 140, 0.3f},
    {1, 40, 2, 1, 8, 1}};

}  // namespace

TEST(CudaAttentionCached, IsAsGoodAsTheCpus) {
    for (const AttentionShape& s : kShapes)
        for (const DType dtype : kActivationTypes) {
            SCOPED_TRACE(fmt::format("{} T={} NH={} NKV={} HD={}", name_of(dtype), s.T, s.NH, s.NKV, s.HD));
            const TestBuffer qkv = random_buffer(dtype, s.T, s.qkv_columns(), 1.0, 1);
            const Results cpu = on_cpu(qkv, s), truth = on_cpu(converted(DType::F32, qkv), s);
            for (const int64_t chunk : {int64_t{7}, s.T}) {
                const Results ours = on_cuda(qkv, s, chunk, chunk);
                expect_as_good_as_cpu(ours.out, cpu.out, truth.out);
                EXPECT_TRUE(ours.k_cache.bytes() == cpu.k_cache.bytes() && ours.v_cache.bytes() == cpu.v_cache.bytes());
                EXPECT_TRUE(ours.k_cache.intact() && ours.v_cache.intact());
            }
        }
}

TEST(CudaAttentionCached, HasTheSameBitsUnderEveryScheduleAndInEveryChunk) {
    const AttentionShape s{1, 140, 4, 2, 16};
    for (const DType dtype : kActivationTypes) {
        const TestBuffer qkv = random_buffer(dtype, s.T, s.qkv_columns(), 1.0, 1);
        const std::vector<std::byte> expected = on_cuda(qkv, s, s.T, s.T).bytes();
        cuda::for_each_seed([&] { EXPECT_TRUE(on_cuda(qkv, s, 60, 60).bytes() == expected); });
    }
}

/// One new token at a time over a cache of several parts of 512 positions: a part has a block of its own.
TEST(CudaAttentionCached, HasTheSameBitsHoweverPartsAreDivided) {
    for (const AttentionShape& s : {AttentionShape{1, 1030, 2, 1, 16}, AttentionShape{1, 1030, 2, 2, 20, 600}})
        for (const DType dtype : kActivationTypes) {
            const TestBuffer qkv = random_buffer(dtype, s.T, s.qkv_columns(), 1.0, 1);
            const Results cpu = on_cpu(qkv, s), truth = on_cpu(converted(DType::F32, qkv), s);
            const Results whole = on_cuda(qkv, s, s.T, s.T);
            expect_as_good_as_cpu(whole.out, cpu.out, truth.out);
            for (const int64_t start : {s.T - 4, int64_t{1020}})
                EXPECT_TRUE(on_cuda(qkv, s, start, 1).bytes() == whole.bytes()) << start;
        }
}

TEST(CudaAttentionCached, LargeScoresStayFinite) {
    const AttentionShape s{1, 140, 1, 1, 16};
    const TestBuffer qkv = random_buffer(DType::F32, s.T, s.qkv_columns(), 1000.0, 1);
    const Results ours = on_cuda(qkv, s, s.T, s.T), truth = on_cpu(qkv, s);
    expect_as_good_as_cpu(ours.out, truth.out, truth.out);
}

}  // namespace llmc
