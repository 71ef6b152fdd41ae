// What language.cuh says of mma, ldmatrix, cp.async and named barriers, against plain loops.
#include "llmc/backend/cuda/device.cuh"
#include "tests/cuda_on_cpu/device_buffer.h"
#include "tests/cuda_on_cpu/seeds.h"

#include <gtest/gtest.h>

namespace llmc::cuda {
inline namespace test_matrix_operations_kernels {

// Small integers: exact in bf16, and so are their products' sums in fp32.
std::vector<bf16> small_integers(size_t count, int start) {
    std::vector<bf16> values(count);
    for (size_t i = 0; i < count; ++i) {
        values[i] = __float2bfloat16(static_cast<float>((static_cast<int>(i) * 7 + start) % 19 - 9));
    }
    return values;
}

// d = a·b + c with a 16x16, b 16x8 (row-major, or its transpose 8x16), by one warp: ldmatrix fills the fragments.
template <bool kTransposedB>
__global__ void multiply(float* d, const bf16* a, const bf16* b, const float* c) {
    SHARED(bf16[16 * 16], a_tile);
    SHARED(bf16[16 * 8], b_tile);
    const int lane = static_cast<int>(threadIdx.x);
    cp_async_16(&a_tile[8 * lane], a + 8 * lane);
    if (lane < 16) cp_async_16_or_zero(&b_tile[8 * lane], b + 8 * lane, true);
    cp_async_commit();
    cp_async_wait<0>();
    __syncwarp();

    uint32_t a_part[4], b_twice[4];
    ldmatrix_x4(a_part, &a_tile[(lane % 16) * 16 + (lane / 16) * 8]);
    if (kTransposedB) {
        ldmatrix_x4(b_twice, &b_tile[(lane % 8) * 16 + (lane / 8 % 2) * 8]);
    } else {
        ldmatrix_x4_trans(b_twice, &b_tile[(lane % 16) * 8]);
    }
    const uint32_t b_part[2] = {b_twice[0], b_twice[1]};
    const int row = lane / 4, column = 2 * (lane % 4);
    const float c_part[4] = {c[row * 8 + column], c[row * 8 + column + 1], c[(row + 8) * 8 + column],
                             c[(row + 8) * 8 + column + 1]};
    float d_part[4];
    mma_m16n8k16(d_part, a_part, b_part, c_part);
    d[row * 8 + column] = d_part[0];
    d[row * 8 + column + 1] = d_part[1];
    d[(row + 8) * 8 + column] = d_part[2];
    d[(row + 8) * 8 + column + 1] = d_part[3];
}

template <bool kTransposedB>
void expect_product() {
    const std::vector<bf16> a = small_integers(16 * 16, 1), b = small_integers(16 * 8, 5);
    std::vector<float> c(16 * 8);
    for (size_t i = 0; i < c.size(); ++i) c[i] = static_cast<float>(i);
    for_each_seed([&] {
        const DeviceBuffer<bf16> a_device(a), b_device(b);
        const DeviceBuffer<float> c_device(c), d_device(c.size());
        launch(multiply<kTransposedB>, 1, 32, 0, nullptr, d_device.data(), a_device.data(), b_device.data(),
               c_device.data());
        const std::vector<float> d = d_device.values();
        for (int m = 0; m < 16; ++m) {
            for (int n = 0; n < 8; ++n) {
                float sum = c[m * 8 + n];
                for (int k = 0; k < 16; ++k) {
                    const bf16 factor = kTransposedB ? b[n * 16 + k] : b[k * 8 + n];
                    sum += __bfloat162float(a[m * 16 + k]) * __bfloat162float(factor);
                }
                EXPECT_EQ(d[m * 8 + n], sum) << m << ", " << n;
            }
        }
    });
}

TEST(MatrixOperations, Product) { expect_product<false>(); }
TEST(MatrixOperations, ProductWithTransposedB) { expect_product<true>(); }

__global__ void transpose_tiles(bf16* out, const bf16* in) {
    SHARED(bf16[4 * 64], tiles);
    const int lane = static_cast<int>(threadIdx.x);
    store128(&tiles[8 * lane], load128(in + 8 * lane));
    __syncwarp();
    uint32_t r[4];
    ldmatrix_x4_trans(r, &tiles[8 * lane]);
    for (int m = 0; m < 4; ++m) {
        __nv_bfloat162 pair;
        __builtin_memcpy(static_cast<void*>(&pair), &r[m], sizeof pair);
        out[m * 64 + (lane / 4) * 8 + 2 * (lane % 4)] = pair.x;
        out[m * 64 + (lane / 4) * 8 + 2 * (lane % 4) + 1] = pair.y;
    }
}

TEST(MatrixOperations, TransposedTiles) {
    const std::vector<bf16> in = small_integers(4 * 64, 3);
    for_each_seed([&] {
        const DeviceBuffer<bf16> in_device(in), out_device(in.size());
        launch(transpose_tiles, 1, 32, 0, nullptr, out_device.data(), in_device.data());
        const std::vector<bf16> out = out_device.values();
        for (int m = 0; m < 4; ++m) {
            for (int i = 0; i < 8; ++i) {
                for (int j = 0; j < 8; ++j) {
                    EXPECT_EQ(__bfloat162float(out[m * 64 + i * 8 + j]), __bfloat162float(in[m * 64 + j * 8 + i]));
                }
            }
        }
    });
}

// Sums `steps` tiles of 4 floats a thread, double-buffered; rows beyond `valid` count as zero.
__global__ void sum_tiles(float* out, const float* in, int steps, int valid) {
    DYNAMIC_SHARED(float, buffers);
    const int i = static_cast<int>(threadIdx.x), tile = 4 * static_cast<int>(blockDim.x);
    const auto fetch = [&](int step) {
        const int at = step * tile + 4 * i;
        cp_async_16_or_zero(buffers + (step % 2) * tile + 4 * i, in + (at < valid ? at : 0), at < valid);
        cp_async_commit();
    };
    fetch(0);
    float sum = 0.0f;
    for (int step = 0; step < steps; ++step) {
        if (step + 1 < steps) {
            fetch(step + 1);
            cp_async_wait<1>();
        } else {
            cp_async_wait<0>();
        }
        __syncthreads();
        const Pack<float> pack = load128(buffers + (step % 2) * tile + tile - 4 - 4 * i);  // Another thread's.
        for (int j = 0; j < Pack<float>::kSize; ++j) sum += pack[j];
        __syncthreads();
    }
    sum = block_sum(sum);
    if (i == 0) *out = sum;
}

TEST(MatrixOperations, DoubleBufferedCopies) {
    const int threads = 64, steps = 5, count = threads * 4 * steps, valid = count - 24;
    std::vector<float> in(count);
    float expected = 0.0f;
    for (int i = 0; i < count; ++i) {
        in[i] = static_cast<float>(i % 13);
        if (i < valid) expected += in[i];
    }
    for_each_seed(
        [&] {
            const DeviceBuffer<float> in_device(in), out(1);
            launch(sum_tiles, 1, threads, 2 * threads * 16, nullptr, out.data(), in_device.data(), steps, valid);
            EXPECT_EQ(out.values()[0], expected);
        },
        8);
}

// A warp that produces and one that consumes, through two slots of shared memory.
__global__ void pass_on(float* out, int n) {
    SHARED(float[2][32], slots);
    const int lane = static_cast<int>(threadIdx.x % 32);
    float sum = 0.0f;
    for (int i = 0; i < n; ++i) {
        const int slot = i % 2, full = 1 + slot, empty = 3 + slot;
        if (threadIdx.x < 32) {
            if (i >= 2) named_barrier_sync(empty, 64);
            slots[slot][lane] = static_cast<float>(i * lane);
            named_barrier_arrive(full, 64);
        } else {
            named_barrier_sync(full, 64);
            sum += slots[slot][31 - lane];
            if (i + 2 < n) named_barrier_arrive(empty, 64);
        }
    }
    if (threadIdx.x >= 32) out[lane] = sum;
}

TEST(MatrixOperations, NamedBarriers) {
    for_each_seed(
        [&] {
            const DeviceBuffer<float> out(32);
            launch(pass_on, 1, 64, 0, nullptr, out.data(), 9);
            const std::vector<float> sums = out.values();
            for (int lane = 0; lane < 32; ++lane) EXPECT_EQ(sums[lane], 36.0f * static_cast<float>(31 - lane));
        },
        8);
}

}  // namespace test_matrix_operations_kernels
}  // namespace llmc::cuda
