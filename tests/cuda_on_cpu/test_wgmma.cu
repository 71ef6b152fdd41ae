// The executor's wgmma against plain products: every N, both majors of both operands, every swizzle, A in registers or
// in shared memory. Where elements lie is written here once more, from the PTX ISA's pictures of the layouts.
#include "llmc/backend/cuda/hopper.cuh"
#include "tests/cuda_on_cpu/device_buffer.h"
#include "tests/cuda_on_cpu/seeds.h"

#include <gtest/gtest.h>

#include <vector>

namespace llmc::cuda {
inline namespace test_wgmma_kernels {

constexpr int kM = 64, kK = 32, kStep = 16;

/// A tile of so many rows and kK elements along K, for a swizzle of `span` bytes (0: none).
struct Layout {
    int span, rows;
    bool mn_major;

    __host__ __device__ int bytes() const { return (rows + 63) / 64 * 64 * 128; }
    // The place of a chunk of 16 bytes in row r of a pattern.
    __device__ int twist(int r) const { return span == 128 ? r % 8 : span == 64 ? r / 2 % 4 : r / 4 % 2; }
    __device__ int offset(int row, int k) const {
        if (span == 0) {  // 8x8 matrices, of one K group all, one after the other.
            const int matrix = k / 8 * (rows / 8) + row / 8;
            return matrix * 128 + (mn_major ? k % 8 * 16 + row % 8 * 2 : row % 8 * 16 + k % 8 * 2);
        }
        const int in_row = span / 2, along = mn_major ? row : k, across = mn_major ? k : row;
        const int columns = mn_major ? kK : rows;  // Rows of the pattern in a tile.
        const int chunk = along % in_row / 8 ^ twist(across % 8);
        return along / in_row * columns * span + across * span + chunk * 16 + along % 8 * 2;
    }
    __device__ uint64_t descriptor(const char* tile, int step) const {
        constexpr Swizzle kSwizzles[] = {Swizzle::None, Swizzle::Bytes32, Swizzle::Bytes64, Swizzle::Bytes128};
        const Swizzle swizzle = kSwizzles[span == 0 ? 0 : span == 32 ? 1 : span == 64 ? 2 : 3];
        if (span == 0) return matrix_descriptor(tile + step * 2 * (rows / 8 * 128), rows / 8 * 128, 128, swizzle);
        if (mn_major) return matrix_descriptor(tile + step * 16 * span, kK * span, 8 * span, swizzle);
        const int bytes = step * kStep * 2;
        return matrix_descriptor(tile + bytes / span * rows * span + bytes % span, 0, 8 * span, swizzle);
    }
};

__global__ void product(float* d, const bf16* a, const bf16* b, Layout of_a, Layout of_b, bool a_in_registers) {
    DYNAMIC_TILES(char, shared);
    char *const a_tile = shared, *const b_tile = shared + of_a.bytes();
    const int n = of_b.rows, t = static_cast<int>(threadIdx.x);
    for (int i = t; i < kM * kK; i += kWarpgroupSize)
        *reinterpret_cast<bf16*>(a_tile + of_a.offset(i / kK, i % kK)) = a[i];
    for (int i = t; i < n * kK; i += kWarpgroupSize)
        *reinterpret_cast<bf16*>(b_tile + of_b.offset(i / kK, i % kK)) = b[i];
    fence_async_proxy();
    __syncthreads();
    float sums[128];
    uint32_t fragments[2][4];
    const int row = t / 32 * 16 + t % 32 / 4;
    for (int i = 0; i < n / 2; ++i) sums[i] = 100.0f;
    for (int step = 0; step < 2; ++step) {
        for (int r = 0; r < 4; ++r) {
            const bf16* const pair = a + (row + 8 * (r % 2)) * kK + step * kStep + 8 * (r / 2) + t % 4 * 2;
            fragments[step][r] = bf16_pair(to_float(pair[0]), to_float(pair[1]));
        }
    }
    wgmma_fence(sums);
    for (int step = 0; step < 2; ++step) {
        const uint64_t a_descriptor = a_in_registers ? 0 : of_a.descriptor(a_tile, step);
        ::cuda_on_cpu::wgmma(sums, a_in_registers ? fragments[step] : nullptr, a_descriptor,
                             of_b.descriptor(b_tile, step), {n, a_in_registers, of_a.mn_major, of_b.mn_major}, step > 0,
                             ::cuda_on_cpu::Where::current());
    }
    wgmma_commit();
    wgmma_wait<0>(sums);
    for (int j = 0; j < n / 8; ++j)
        for (int h = 0; h < 2; ++h)
            for (int e = 0; e < 2; ++e) d[(row + 8 * h) * n + 8 * j + t % 4 * 2 + e] = sums[4 * j + 2 * h + e];
}

std::vector<float> small_integers(size_t count, unsigned seed) {
    std::vector<float> values(count);
    for (float& value : values) {
        seed = seed * 1664525u + 1013904223u;
        value = static_cast<float>(static_cast<int>(seed >> 24) % 17 - 8);  // Products and sums are exact.
    }
    return values;
}

std::vector<bf16> rounded(const std::vector<float>& values) {
    std::vector<bf16> result;
    for (const float value : values) result.push_back(from_float<bf16>(value));
    return result;
}

void check_products(int span, bool a_mn, bool b_mn, bool a_in_registers) {
    for (int n = 8; n <= 256; n += 8) {
        const std::vector<float> a = small_integers(kM * kK, static_cast<unsigned>(n)),
                                 b = small_integers(static_cast<size_t>(n) * kK, static_cast<unsigned>(n) + 1);
        const DeviceBuffer<bf16> a_device(rounded(a)), b_device(rounded(b));
        const DeviceBuffer<float> d(static_cast<size_t>(kM) * n);
        const Layout of_a{span, kM, a_mn}, of_b{span, n, b_mn};
        cuda_on_cpu::set_seed(static_cast<uint64_t>(n / 8 - 1));
        launch(product, 1, kWarpgroupSize, static_cast<size_t>(of_a.bytes() + of_b.bytes()), nullptr, d.data(),
               a_device.data(), b_device.data(), of_a, of_b, a_in_registers);
        ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess) << "n " << n;
        std::vector<float> expected(static_cast<size_t>(kM) * n);
        for (int i = 0; i < kM; ++i)
            for (int j = 0; j < n; ++j)
                for (int k = 0; k < kK; ++k) expected[i * n + j] += a[i * kK + k] * b[j * kK + k];
        ASSERT_EQ(d.values(), expected) << "n " << n;
    }
}

class Wgmma : public testing::TestWithParam<int> {};

TEST_P(Wgmma, IsAProduct) {
    for (const bool b_mn : {false, true}) {
        for (const bool a_mn : {false, true}) {
            SCOPED_TRACE(testing::Message() << "A " << (a_mn ? "MN" : "K") << "-major, B " << (b_mn ? "MN" : "K"));
            check_products(GetParam(), a_mn, b_mn, false);
        }
        check_products(GetParam(), false, b_mn, true);
    }
}

INSTANTIATE_TEST_SUITE_P(Swizzles, Wgmma, testing::Values(0, 32, 64, 128));

}  // namespace test_wgmma_kernels
}  // namespace llmc::cuda
