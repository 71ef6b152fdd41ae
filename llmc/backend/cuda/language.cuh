// What only nvcc understands: shared memory, the launch, and the PTX instructions without an intrinsic of their own.
// The functions' contracts are here; dev/cuda_on_cpu/language.h has the same names for kernels on the CPU, and
// dev/cuda_on_cpu/asm_check.sh checks the operands' order. Instructions: "PTX ISA", warp-level matrix instructions.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>
#include <utility>

/// A variable of the block, aligned to 16 bytes: SHARED(float[32][33], tile);
#define SHARED(type, name) __shared__ __align__(16) std::type_identity_t<type> name

/// The block's dynamic shared memory as an array: DYNAMIC_SHARED(bf16, tiles); aligned to 128 bytes.
#define DYNAMIC_SHARED(type, name)                                        \
    extern __shared__ __align__(128) unsigned char llmc_dynamic_shared[]; \
    type* const name = reinterpret_cast<type*>(llmc_dynamic_shared)

namespace llmc::cuda {

template <typename... Parameters, typename... Arguments>
cudaError_t start_kernel(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream,
                         Arguments&&... arguments) {
    kernel<<<grid, block, shared_bytes, stream>>>(std::forward<Arguments>(arguments)...);
    return cudaGetLastError();
}

__device__ __forceinline__ uint32_t shared_address(const void* p) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

/// d = a·b + c on tensor cores, by a whole warp: a is 16x16, b 16x8, c and d 16x8 fp32. With group = lane / 4 and
/// pair = lane % 4, a lane holds
///   a[0], a[1]: rows group, group + 8 of columns 2·pair, 2·pair + 1;  a[2], a[3]: the same rows, columns + 8
///   b[0], b[1]: column group of rows 2·pair, 2·pair + 1;              the same column, rows + 8
///   c[0], c[1]: row group, columns 2·pair, 2·pair + 1;                c[2], c[3]: row group + 8
__device__ __forceinline__ void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                                             const float (&c)[4]) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%10,%11,%12,%13};\n"
        : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "f"(c[0]), "f"(c[1]), "f"(c[2]), "f"(c[3]));
}
/// d += a·b.
__device__ __forceinline__ void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    mma_m16n8k16(d, a, b, d);
}

/// Loads 8x8 matrices of 16-bit elements from shared memory into fragments, by a whole warp. Lane 8·m + r gives the
/// address of row r of matrix m (16 bytes, aligned to 16). A lane gets
/// of matrix m the elements 2·(lane % 4) and + 1 of row lane / 4; transposed, of column lane / 4.
__device__ __forceinline__ void ldmatrix_x4(uint32_t (&r)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}
__device__ __forceinline__ void ldmatrix_x4_trans(uint32_t (&r)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}

/// Starts copying 16 bytes from global to shared memory, both aligned to 16, past the registers. The data is there for
/// this thread after the cp_async_wait of its group, for the others after a barrier that follows.
__device__ __forceinline__ void cp_async_16(void* shared, const void* global) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;\n" ::"r"(shared_address(shared)), "l"(global) : "memory");
}
/// The same if `valid`; else 16 zero bytes, and `global` is not read.
__device__ __forceinline__ void cp_async_16_or_zero(void* shared, const void* global, bool valid) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(shared_address(shared)), "l"(global),
                 "r"(valid ? 16 : 0)
                 : "memory");
}
/// Closes this thread's group of copies.
__device__ __forceinline__ void cp_async_commit() { asm volatile("cp.async.commit_group;\n" ::: "memory"); }
/// Waits until at most the kPending youngest of this thread's groups are under way.
template <int kPending>
__device__ __forceinline__ void cp_async_wait() {
    asm volatile("cp.async.wait_group %0;\n" ::"n"(kPending) : "memory");
}

/// Barrier `id` (1 to 15) among `threads` threads of the block, a multiple of 32: whole warps wait, or only arrive.
__device__ __forceinline__ void named_barrier_sync(int id, int threads) {
    asm volatile("bar.sync %0, %1;\n" ::"r"(id), "r"(threads) : "memory");
}
__device__ __forceinline__ void named_barrier_arrive(int id, int threads) {
    asm volatile("bar.arrive %0, %1;\n" ::"r"(id), "r"(threads) : "memory");
}

/// 2^x, relative error about 2^-22; denormal results are flushed to zero.
__device__ __forceinline__ float exp2_approx(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

}  // namespace llmc::cuda
