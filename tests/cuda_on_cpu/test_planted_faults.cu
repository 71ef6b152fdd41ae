// Every kind of fault, planted in a small kernel by its template argument, must be found at every seed and named with
// its line; the kernel without it must run clean. The line of a fault is marked by a comment.
#include "llmc/backend/cuda/device.cuh"
#include "tests/cuda_on_cpu/device_buffer.h"
#include "tests/cuda_on_cpu/planted_fault.h"

#include <gtest/gtest.h>

namespace llmc::cuda {
inline namespace test_planted_faults_kernels {

constexpr int kThreads = 128;

// Both variants of a kernel: with the fault, expecting the report, and without.
#define EXPECT_FOUND(kernel, mark, words, ...)                                                                     \
    do {                                                                                                           \
        expect_report([&] { launch(kernel<true>, 2, kThreads, 0, nullptr, __VA_ARGS__); }, words, mark, __FILE__); \
        expect_clean([&] { launch(kernel<false>, 2, kThreads, 0, nullptr, __VA_ARGS__); });                        \
    } while (false)

struct Values {
    DeviceBuffer<float> in{std::vector<float>(2 * kThreads, 1.0f)}, out{2 * kThreads};
};

template <bool kFault>
__global__ void reverse_rows(float* out, const float* in) {
    SHARED(float[kThreads], row);
    const int i = static_cast<int>(threadIdx.x), first = static_cast<int>(blockIdx.x) * kThreads;
    row[i] = in[first + i];
    if (!kFault) __syncthreads();
    out[first + i] = row[kThreads - 1 - i];  // fault: MissingBarrier
}

TEST(PlantedFault, MissingSyncthreads) {
    const Values v;
    // Whoever comes first: the reader finds what nobody wrote yet, or the writer what was read already.
    const auto run = [&] { launch(reverse_rows<true>, 2, kThreads, 0, nullptr, v.out.data(), v.in.data()); };
    expect_report(run, "", "MissingBarrier", __FILE__, 20);
    expect_clean([&] { launch(reverse_rows<false>, 2, kThreads, 0, nullptr, v.out.data(), v.in.data()); });
}

template <bool kFault>
__global__ void barrier_in_a_branch(float* out) {
    if (!kFault || threadIdx.x < 40) {
        __syncthreads();  // fault: DivergentBarrier
    } else {
        __syncthreads();
    }
    out[blockIdx.x * kThreads + threadIdx.x] = 1.0f;
}

TEST(PlantedFault, BarrierInDivergentCode) {
    const Values v;
    EXPECT_FOUND(barrier_in_a_branch, "DivergentBarrier", "barrier in divergent code", v.out.data());
}

template <bool kFault>
__global__ void exit_before_a_barrier(float* out) {
    if (kFault && threadIdx.x == 5) return;
    __syncthreads();  // fault: EarlyExit
    out[blockIdx.x * kThreads + threadIdx.x] = 1.0f;
}

TEST(PlantedFault, ExitBeforeABarrier) {
    const Values v;
    const auto run = [&] { launch(exit_before_a_barrier<true>, 1, kThreads, 0, nullptr, v.out.data()); };
    expect_report(run, "", "EarlyExit", __FILE__);
    expect_clean([&] { launch(exit_before_a_barrier<false>, 2, kThreads, 0, nullptr, v.out.data()); });
}

template <bool kFault>
__global__ void shared_sum(float* out) {
    SHARED(float[1], sum);
    if (threadIdx.x == 0) sum[0] = 0.0f;
    __syncthreads();
    if (kFault) {
        sum[0] += 1.0f;  // fault: SharedRace
    } else {
        atomicAdd(&sum[0], 1.0f);
    }
    __syncthreads();
    out[blockIdx.x * kThreads + threadIdx.x] = sum[0];
}

TEST(PlantedFault, RaceInSharedMemory) {
    const Values v;
    EXPECT_FOUND(shared_sum, "SharedRace", "race", v.out.data());
    EXPECT_EQ(v.out.values()[0], kThreads);
}

template <bool kFault>
__global__ void race_between_warps(float* out) {
    SHARED(float[32], shared);
    if (threadIdx.x / 32 == 0 || (kFault && threadIdx.x / 32 == 1))
        shared[threadIdx.x % 32] = 1.0f;  // fault: WarpsRace
    __syncthreads();
    out[blockIdx.x * kThreads + threadIdx.x] = shared[threadIdx.x % 32];
}

TEST(PlantedFault, RaceBetweenWarps) {
    const Values v;
    EXPECT_FOUND(race_between_warps, "WarpsRace", "race between warps: write", v.out.data());
}

// One warp hands values to another through shared memory, and then uses it again.
enum class HandOver { Right, AnnouncedEarly, OverwrittenEarly, FreedEarly };
__global__ void hand_over(float* out, HandOver how) {
    SHARED(float[32], slot);
    const int lane = static_cast<int>(threadIdx.x % 32);
    if (threadIdx.x < 32) slot[lane] = 0.0f;
    __syncthreads();
    if (threadIdx.x < 32) {
        if (how != HandOver::AnnouncedEarly) slot[lane] = 1.0f;
        named_barrier_arrive(1, 64);
        if (how == HandOver::AnnouncedEarly) slot[lane] = 1.0f;
        if (how == HandOver::OverwrittenEarly) slot[lane] = 2.0f;
        named_barrier_sync(2, 64);
        if (how != HandOver::OverwrittenEarly) slot[lane] = 2.0f;
    } else {
        named_barrier_sync(1, 64);
        if (how == HandOver::FreedEarly) named_barrier_arrive(2, 64);
        out[blockIdx.x * kThreads + lane] = slot[31 - lane];  // fault: HandOver
        if (how != HandOver::FreedEarly) named_barrier_arrive(2, 64);
    }
}

TEST(PlantedFault, NamedBarriersOrderOnlyWhatCameBefore) {
    const Values v;
    const auto run = [&](HandOver how) { launch(hand_over, 2, 64, 0, nullptr, v.out.data(), how); };
    for (const HandOver how : {HandOver::AnnouncedEarly, HandOver::OverwrittenEarly, HandOver::FreedEarly})
        expect_report([&] { run(how); }, "race between warps", "HandOver", __FILE__);
    expect_clean([&] { run(HandOver::Right); });
}

template <bool kFault>
__global__ void exchange_in_a_warp(float* out) {
    SHARED(float[kThreads], values);
    values[threadIdx.x] = 1.0f;
    if (!kFault) __syncwarp();
    const float other = values[threadIdx.x ^ 1];  // fault: Exchange
    out[blockIdx.x * kThreads + threadIdx.x] = other;
}

TEST(PlantedFault, MissingSyncwarp) {
    const Values v;
    const auto run = [&] { launch(exchange_in_a_warp<true>, 2, kThreads, 0, nullptr, v.out.data()); };
    expect_report(run, " of 4 bytes of shared memory", "Exchange", __FILE__);
    expect_clean([&] { launch(exchange_in_a_warp<false>, 2, kThreads, 0, nullptr, v.out.data()); });
}

// A place that several lanes of a warp have read, one of them then reads and writes.
template <bool kFault>
__global__ void take_over_in_a_warp(float* out) {
    SHARED(float[kThreads], values);
    const int lane = static_cast<int>(threadIdx.x) % 32, first = static_cast<int>(threadIdx.x) - lane;
    values[threadIdx.x] = 1.0f;
    __syncwarp();
    float sum = values[first] + values[first + (lane + 1) % 32];
    if (!kFault) __syncwarp();
    sum += values[threadIdx.x];
    values[threadIdx.x] = sum;  // fault: TakeOver
    out[blockIdx.x * kThreads + threadIdx.x] = sum;
}

TEST(PlantedFault, WhatAWarpReadBeforeItsBarrierIsOver) {
    const Values v;
    const auto run = [&] { launch(take_over_in_a_warp<true>, 2, kThreads, 0, nullptr, v.out.data()); };
    expect_report(run, "race inside a warp", "TakeOver", __FILE__);
    expect_clean([&] { launch(take_over_in_a_warp<false>, 2, kThreads, 0, nullptr, v.out.data()); });
}

template <bool kFault>
__global__ void blocks_overlap(float* out) {
    out[blockIdx.x * (kFault ? kThreads - 1 : kThreads) + threadIdx.x] = 1.0f;  // fault: Overlap
}

TEST(PlantedFault, RaceBetweenBlocks) {
    const Values v;
    EXPECT_FOUND(blocks_overlap, "Overlap", "race between blocks", v.out.data());
}

template <bool kFault>
__global__ void write_past_the_end(float* out) {
    out[blockIdx.x * kThreads + threadIdx.x + (kFault ? 1 : 0)] = 1.0f;  // fault: PastTheEnd
}

TEST(PlantedFault, GlobalOutOfBounds) {
    const Values v;
    const auto run = [&] { launch(write_past_the_end<true>, 2, kThreads, 0, nullptr, v.out.data()); };
    expect_report(run, "out of bounds: write of 4 bytes of global memory", "PastTheEnd", __FILE__);
    expect_clean([&] { launch(write_past_the_end<false>, 2, kThreads, 0, nullptr, v.out.data()); });
}

template <bool kFault>
__global__ void shared_past_the_end(float* out) {
    SHARED(float[kThreads], first);
    SHARED(float[kThreads], second);
    first[threadIdx.x + (kFault ? 1 : 0)] = 1.0f;  // fault: SharedEnd
    second[threadIdx.x] = 2.0f;
    out[blockIdx.x * kThreads + threadIdx.x] = second[threadIdx.x];
}

TEST(PlantedFault, StaticSharedOutOfBounds) {
    const Values v;
    EXPECT_FOUND(shared_past_the_end, "SharedEnd", "out of bounds: write of 4 bytes of shared memory", v.out.data());
}

__global__ void dynamic_shared(float* out) {
    DYNAMIC_SHARED(float, values);
    values[threadIdx.x] = 1.0f;  // fault: DynamicEnd
    out[blockIdx.x * kThreads + threadIdx.x] = values[threadIdx.x];
}

TEST(PlantedFault, DynamicSharedOutOfBounds) {
    const Values v;
    const size_t enough = kThreads * sizeof(float);
    const auto run = [&] { launch(dynamic_shared, 2, kThreads, enough - 4, nullptr, v.out.data()); };
    expect_report(run, "out of bounds: write of 4 bytes of shared memory", "DynamicEnd", __FILE__);
    expect_clean([&] { launch(dynamic_shared, 2, kThreads, enough, nullptr, v.out.data()); });
}

template <bool kFault>
__global__ void misaligned_float4(float* out, const float* in) {
    const float* const from = in + (kFault ? 1 : 0);
    out[blockIdx.x * kThreads + threadIdx.x] = load128(from)[0];  // fault: Misaligned
}

TEST(PlantedFault, MisalignedVectorAccess) {
    const Values v;
    EXPECT_FOUND(misaligned_float4, "Misaligned", "misaligned access: read of 16 bytes", v.out.data(), v.in.data());
}

template <bool kFault>
__global__ void half_of_shared(float* out) {
    SHARED(float[kThreads], values);
    if (!kFault || threadIdx.x < kThreads / 2) values[threadIdx.x] = 1.0f;
    __syncthreads();
    out[blockIdx.x * kThreads + threadIdx.x] = values[threadIdx.x];  // fault: UnwrittenShared
}

TEST(PlantedFault, ReadOfUnwrittenSharedMemory) {
    const Values v;
    EXPECT_FOUND(half_of_shared, "UnwrittenShared", "read of unwritten memory: read of 4 bytes of shared memory",
                 v.out.data());
}

template <bool kFault>
__global__ void copy_values(float* out, const float* in, const float* unwritten) {
    const int i = static_cast<int>(blockIdx.x * kThreads + threadIdx.x);
    out[i] = kFault ? unwritten[i] : in[i];  // fault: UnwrittenGlobal
}

TEST(PlantedFault, ReadOfUnwrittenDeviceMemory) {
    const Values v;
    const DeviceBuffer<float> unwritten(2 * kThreads);
    EXPECT_FOUND(copy_values, "UnwrittenGlobal", "read of unwritten memory: read of 4 bytes of global memory",
                 v.out.data(), v.in.data(), unwritten.data());
}

template <bool kFault>
__global__ void masked_shuffle(float* out) {
    const unsigned lane = threadIdx.x % 32;
    float x = 1.0f;
    if (lane < 16) x = __shfl_xor_sync(kFault ? 0xffff0000u : 0x0000ffffu, x, 1);  // fault: WrongMask
    out[blockIdx.x * kThreads + threadIdx.x] = x;
}

TEST(PlantedFault, MaskWithoutTheCaller) {
    const Values v;
    EXPECT_FOUND(masked_shuffle, "WrongMask", "wrong mask", v.out.data());
}

template <bool kFault>
__global__ void shuffle_in_a_branch(float* out) {
    float x = 1.0f;
    if (!kFault || threadIdx.x % 32 < 16) x = __shfl_xor_sync(kFullMask, x, 1);  // fault: MissingLanes
    out[blockIdx.x * kThreads + threadIdx.x] = x;
}

TEST(PlantedFault, MaskWithLanesThatDoNotCome) {
    const Values v;
    const auto run = [&] { launch(shuffle_in_a_branch<true>, 2, kThreads, 0, nullptr, v.out.data()); };
    expect_report(run, "__shfl_xor_sync", "MissingLanes", __FILE__);
    expect_clean([&] { launch(shuffle_in_a_branch<false>, 2, kThreads, 0, nullptr, v.out.data()); });
}

template <bool kFault>
__global__ void two_shuffles(float* out) {
    float x = 1.0f;
    if (!kFault || threadIdx.x % 32 < 16) {
        x = __shfl_xor_sync(kFullMask, x, 1);
    } else {
        x = __shfl_down_sync(kFullMask, x, 1);  // fault: TwoShuffles
    }
    out[blockIdx.x * kThreads + threadIdx.x] = x;
}

TEST(PlantedFault, DivergentWarpOperation) {
    const Values v;
    EXPECT_FOUND(two_shuffles, "TwoShuffles", "divergent warp operation", v.out.data());
}

template <bool kFault>
__global__ void staged_copy(float* out, const float* in) {
    SHARED(float[kThreads], tile);
    const int i = static_cast<int>(threadIdx.x), first = static_cast<int>(blockIdx.x) * kThreads;
    if (i < kThreads / 4) cp_async_16(&tile[4 * i], in + first + 4 * i);
    cp_async_commit();
    if (!kFault) cp_async_wait<0>();
    __syncthreads();
    out[first + i] = tile[i];  // fault: BeforeWait
    cp_async_wait<0>();
}

TEST(PlantedFault, UseBeforeTheWaitOfACopy) {
    const Values v;
    EXPECT_FOUND(staged_copy, "BeforeWait", "cp.async before its wait", v.out.data(), v.in.data());
}

template <bool kFault>
__global__ void through_a_pointer(float* out, const float* const* in) {
    out[blockIdx.x * kThreads + threadIdx.x] = **in;  // fault: HostPointer
}

TEST(PlantedFault, KernelReadsHostMemory) {
    const Values v;
    const std::vector<float> on_host(1);
    const std::vector<const float*> pointer(1, on_host.data());
    const DeviceBuffer<const float*> to_host(pointer);
    const auto run = [&] { launch(through_a_pointer<true>, 1, kThreads, 0, nullptr, v.out.data(), to_host.data()); };
    expect_report(run, "host memory used by a kernel", "HostPointer", __FILE__);
}

TEST(PlantedFault, UseAfterFree) {
    float* freed = nullptr;
    CUDA_CHECK(cudaMalloc(&freed, 2 * kThreads * sizeof(float)));
    CUDA_CHECK(cudaFree(freed));
    const Values v;
    const auto run = [&] { launch(copy_values<false>, 2, kThreads, 0, nullptr, freed, v.in.data(), v.in.data()); };
    expect_report(run, "out of bounds", "UnwrittenGlobal", __FILE__);
}

}  // namespace test_planted_faults_kernels
}  // namespace llmc::cuda
