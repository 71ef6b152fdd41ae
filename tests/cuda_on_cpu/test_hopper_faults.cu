// Mistakes that kernels for Hopper make, each planted in a small kernel: every one must be found at every seed and
// named with its line, and the kernel without it must run clean.
#include "llmc/backend/cuda/hopper.cuh"
#include "llmc/backend/cuda/tensor_map.h"
#include "tests/cuda_on_cpu/device_buffer.h"
#include "tests/cuda_on_cpu/planted_fault.h"

#include <gtest/gtest.h>

#include <vector>

namespace llmc::cuda {
inline namespace test_hopper_faults_kernels {

constexpr int kRows = 64, kColumns = 64, kTileBytes = kRows * kColumns * 2;

/// A tile of 64 rows of 64 elements in device memory, with its map, and one for what is stored.
struct Tiles {
    DeviceBuffer<bf16> in{std::vector<bf16>(kRows * kColumns, from_float<bf16>(1.0f))},
        stored{std::vector<bf16>(kRows * kColumns, from_float<bf16>(0.0f))};
    DeviceBuffer<float> out{std::vector<float>(kWarpgroupSize, 0.0f)};
    CUtensorMap map = map_of(in), store_map = map_of(stored);

    static CUtensorMap map_of(const DeviceBuffer<bf16>& tile) {
        return tensor_map({tile.data(), {kColumns, 1, kRows, 1}, {128, 128, kTileBytes}, {64, 1, 64, 1}});
    }
};

enum class Fault {
    None,
    // Barriers.
    ExtraArrival,
    InitTwice,
    WrongParity,
    TooManyBytes,
    TooFewBytes,
    UnfencedInit,
    // Bulk copies.
    ReadBeforeWait,
    Misaligned,
    OverwrittenUnfenced,
    UnfencedStore,
    NegativeStore,
    StoreNotAwaited,
    SourceReused,
    // wgmma.
    NoFence,
    TouchedAfterFence,
    ReadBeforeProductsWait,
    ChangedOperand,
    Unfenced,
    TileInFlight,
    OtherDescriptor,
    OtherPredicate,
    OtherPlace,
    NeverWaited,
    BaseMisaligned,
    OutOfBounds,
    Overwritten,
    // setmaxnreg.
    PoolTooSmall,
    RaisedByDec,
    NoMultiple,
};

#define LAUNCH(kernel, fault, t) \
    launch(kernel, 1, kWarpgroupSize, 2 * kTileBytes, nullptr, (t).out.data(), (t).map, (t).store_map, fault)

// A tile is loaded, read, stored, and loaded again.
__global__ void copies(float* out, const __grid_constant__ CUtensorMap map,
                       const __grid_constant__ CUtensorMap store_map, Fault fault) {
    DYNAMIC_TILES(char, tile);
    SHARED(uint64_t[1], full);
    SHARED(uint64_t[1], other);
    const bool leader = threadIdx.x == 0;
    if (leader) {
        barrier_init(full, 1);
        if (fault == Fault::InitTwice) barrier_init(full, 1);  // fault: InitTwice
        barrier_init(other, kWarpgroupSize);
        if (fault != Fault::UnfencedInit) barrier_fence_init();
    }
    __syncthreads();
    if (leader) {
        const int bytes = kTileBytes + (fault == Fault::TooManyBytes ? 128 : fault == Fault::TooFewBytes ? -128 : 0);
        barrier_arrive_expect(full, bytes);
        if (fault == Fault::ExtraArrival) barrier_arrive(full);  // fault: ExtraArrival
        const int shift = fault == Fault::Misaligned ? 128 : 0;
        tensor_load(tile + shift, &map, full, 0, 0, 0, 0);  // fault: Load
    }
    if (fault != Fault::ReadBeforeWait) barrier_wait(full, 0);                                     // fault: Wait
    if (fault == Fault::WrongParity) barrier_wait(full, 0);                                        // fault: WrongParity
    out[threadIdx.x] = to_float(*reinterpret_cast<const bf16*>(tile + 128 * (threadIdx.x % 64)));  // fault: Read
    if (fault != Fault::OverwrittenUnfenced) fence_async_proxy();
    barrier_arrive(other);
    if (leader) {
        barrier_wait(other, 0);
        barrier_arrive_expect(full, kTileBytes);
        tensor_load(tile, &map, full, 0, 0, 0, 0);  // fault: LoadAgain
        barrier_wait(full, 1);
    }
    __syncthreads();
    char* const source = tile + kTileBytes;
    *reinterpret_cast<float*>(source + 4 * threadIdx.x) = 1.0f;
    for (int i = threadIdx.x; i < kTileBytes / 4; i += kWarpgroupSize) reinterpret_cast<float*>(source)[i] = 2.0f;
    if (fault != Fault::UnfencedStore) fence_async_proxy();
    __syncthreads();
    if (leader) {
        tensor_store(&store_map, source, fault == Fault::NegativeStore ? -8 : 0, 0, 0, 0);  // fault: Store
        bulk_commit();
        if (fault == Fault::SourceReused) *reinterpret_cast<float*>(source) = 3.0f;  // fault: SourceReused
        if (fault != Fault::StoreNotAwaited) bulk_wait_read<0>();
    }
}

void expect_copy_fault(Fault fault, const char* words, const char* mark) {
    const Tiles t;
    expect_report([&] { LAUNCH(copies, fault, t); }, words, mark, __FILE__, 6);
}

TEST(HopperFault, CopiesWithoutOne) {
    const Tiles t;
    expect_clean([&] { LAUNCH(copies, Fault::None, t); });
    EXPECT_EQ(to_float(t.stored.values()[0]), to_float(t.stored.values()[2]));
}
TEST(HopperFault, BarrierInitialisedTwice) { expect_copy_fault(Fault::InitTwice, "in use", "InitTwice"); }
TEST(HopperFault, BarrierNotFenced) { expect_copy_fault(Fault::UnfencedInit, "was not fenced", "Load"); }
TEST(HopperFault, MoreArrivalsThanExpected) {
    expect_copy_fault(Fault::ExtraArrival, "too many arrivals", "ExtraArrival");
}
TEST(HopperFault, WrongParity) { expect_copy_fault(Fault::WrongParity, "a wait that does not wait", "WrongParity"); }
TEST(HopperFault, BytesThatNeverCome) { expect_copy_fault(Fault::TooManyBytes, "128 bytes to come", "Wait"); }
TEST(HopperFault, BytesThatWereNotExpected) { expect_copy_fault(Fault::TooFewBytes, "-128 bytes to come", "Wait"); }
TEST(HopperFault, ReadBeforeTheWait) {
    expect_copy_fault(Fault::ReadBeforeWait, "read of 2 bytes of shared memory", "Read");
}
TEST(HopperFault, MisalignedTarget) { expect_copy_fault(Fault::Misaligned, "misaligned", "Load"); }
TEST(HopperFault, OverwrittenWithoutAProxyFence) {
    expect_copy_fault(Fault::OverwrittenUnfenced, "missing proxy fence", "LoadAgain");
}
TEST(HopperFault, StoredWithoutAProxyFence) { expect_copy_fault(Fault::UnfencedStore, "missing proxy fence", "Store"); }
TEST(HopperFault, StoredBelowZero) { expect_copy_fault(Fault::NegativeStore, "below 0", "Store"); }
TEST(HopperFault, ExitBeforeAStoreHasRead) {
    expect_copy_fault(Fault::StoreNotAwaited, "before its bulk store has read", "Store");
}
TEST(HopperFault, SourceOfAStoreReused) {
    expect_copy_fault(Fault::SourceReused, "race with asynchronous reads", "SourceReused");
}

// One product of a tile with itself.
__global__ void products(float* out, const __grid_constant__ CUtensorMap map, const __grid_constant__ CUtensorMap,
                         Fault fault) {
    DYNAMIC_TILES(char, tile);
    SHARED(uint64_t[1], full);
    float sums[32];
    uint32_t a[4] = {0, 0, 0, 0};
    if (threadIdx.x == 0) {
        barrier_init(full, 1);
        barrier_fence_init();
    }
    __syncthreads();
    if (fault == Fault::TileInFlight) {
        if (threadIdx.x == 0) {
            barrier_arrive_expect(full, kTileBytes);
            tensor_load(tile, &map, full, 0, 0, 0, 0);
        }
    } else {
        for (int i = threadIdx.x; i < 2 * kTileBytes / 4; i += kWarpgroupSize) reinterpret_cast<float*>(tile)[i] = 1.0f;
        if (fault != Fault::Unfenced) fence_async_proxy();
    }
    __syncthreads();
    for (float& sum : sums) sum = 0;
    if (fault != Fault::NoFence) wgmma_fence(sums);
    if (fault == Fault::TouchedAfterFence) sums[3] = 1.0f;
    const bool last = threadIdx.x == kWarpgroupSize - 1;
    const int shift = fault == Fault::BaseMisaligned ? 128 : fault == Fault::OutOfBounds ? 2 * kTileBytes - 1024 : 0;
    const uint64_t left = matrix_descriptor(tile, 0, 1024, Swizzle::Bytes128);
    const uint64_t right =
        matrix_descriptor(tile + shift, 0, 1024, Swizzle::Bytes128) + (fault == Fault::OtherDescriptor && last ? 2 : 0);
    const bool accumulate = fault == Fault::OtherPredicate && last;
    if (fault == Fault::OtherPlace && last) {
        wgmma<64, false, false>(sums, left, right, accumulate);
    } else if (fault == Fault::ChangedOperand) {
        wgmma<64, false>(sums, a, right, accumulate);
        a[1] = 1;  // fault: ChangedOperand
    } else {
        wgmma<64, false, false>(sums, left, right, accumulate);  // fault: Product
    }
    wgmma_commit();
    if (fault == Fault::Overwritten) *reinterpret_cast<float*>(tile + 4 * threadIdx.x) = 2.0f;  // fault: Overwritten
    if (fault == Fault::ReadBeforeProductsWait) out[threadIdx.x] = sums[5];                     // fault: Early
    if (fault == Fault::NeverWaited) return;
    wgmma_wait<0>(sums);
    out[threadIdx.x] = sums[5] + static_cast<float>(a[1]);
}

void expect_product_fault(Fault fault, const char* words, const char* mark) {
    const Tiles t;
    expect_report([&] { LAUNCH(products, fault, t); }, words, mark, __FILE__, 6);
}

TEST(HopperFault, ProductsWithoutOne) {
    const Tiles t;
    expect_clean([&] { LAUNCH(products, Fault::None, t); });
}
TEST(HopperFault, NoWgmmaFence) { expect_product_fault(Fault::NoFence, "missing wgmma.fence", "Product"); }
TEST(HopperFault, SumsTouchedAfterTheFence) {
    expect_product_fault(Fault::TouchedAfterFence, "the sums were accessed after the last one", "Product");
}
TEST(HopperFault, SumsReadBeforeTheWait) {
    expect_product_fault(Fault::ReadBeforeProductsWait, "read of the sums of a wgmma before its wait", "Early");
}
TEST(HopperFault, OperandChangedBeforeTheWait) {
    expect_product_fault(Fault::ChangedOperand, "write of the A registers of a wgmma before its wait",
                         "ChangedOperand");
}
TEST(HopperFault, TileNotFenced) { expect_product_fault(Fault::Unfenced, "missing proxy fence", "Product"); }
TEST(HopperFault, TileInFlight) { expect_product_fault(Fault::TileInFlight, "", "Product"); }
TEST(HopperFault, TileOverwritten) { expect_product_fault(Fault::Overwritten, "", "Overwritten"); }
TEST(HopperFault, DescriptorsDiffer) {
    expect_product_fault(Fault::OtherDescriptor, "different descriptors", "Product");
}
TEST(HopperFault, PredicatesDiffer) { expect_product_fault(Fault::OtherPredicate, "whether to accumulate", "Product"); }
TEST(HopperFault, PlacesDiffer) { expect_product_fault(Fault::OtherPlace, "different wgmmas", "Product"); }
TEST(HopperFault, NeverWaitedFor) { expect_product_fault(Fault::NeverWaited, "never waited for", "Product"); }
TEST(HopperFault, TileNotAtAPatternsStart) { expect_product_fault(Fault::BaseMisaligned, "misaligned", "Product"); }
TEST(HopperFault, TileOutOfBounds) { expect_product_fault(Fault::OutOfBounds, "out of bounds", "Product"); }

// Two warpgroups share registers.
__global__ void registers(float* out, const __grid_constant__ CUtensorMap, const __grid_constant__ CUtensorMap,
                          Fault fault) {
    if (threadIdx.x < kWarpgroupSize) {
        if (fault == Fault::RaisedByDec)
            give_registers<256>();  // fault: RaisedByDec
        else if (fault == Fault::NoMultiple)
            give_registers<28>();  // fault: NoMultiple
        else if (fault != Fault::PoolTooSmall)
            give_registers<24>();
    } else if (threadIdx.x < 2 * kWarpgroupSize) {
        take_registers<240>();  // fault: PoolTooSmall
    }
    if (threadIdx.x < kWarpgroupSize) out[threadIdx.x] = 1.0f;
}

void run_registers(const Tiles& t, Fault fault) {
    launch(registers, 1, 3 * kWarpgroupSize, 0, nullptr, t.out.data(), t.map, t.store_map, fault);
}

TEST(HopperFault, RegistersThatNobodyGives) {
    const Tiles t;
    expect_clean([&] { run_registers(t, Fault::None); });
    expect_report([&] { run_registers(t, Fault::PoolTooSmall); }, "deadlock", "PoolTooSmall", __FILE__);
    expect_report([&] { run_registers(t, Fault::RaisedByDec); }, "more than the 168", "RaisedByDec", __FILE__);
    expect_report([&] { run_registers(t, Fault::NoMultiple); }, "a multiple of 8", "NoMultiple", __FILE__);
}

}  // namespace test_hopper_faults_kernels
}  // namespace llmc::cuda
