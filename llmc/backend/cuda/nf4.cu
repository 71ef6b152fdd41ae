// Weights in four bits: element by element, at the speed of memory. A thread takes the eight elements of four bytes,
// which lie in one block. The 16 values lie in shared memory, each in a bank of its own.
#include "llmc/backend/cuda/cuda_backend.h"
#include "llmc/backend/cuda/elements.cuh"
#include "llmc/base/dynamic_map.h"
#include "llmc/base/nf4.h"

#include <algorithm>

namespace llmc::cuda {
inline namespace nf4_kernels {

constexpr int kGroup = 8;
static_assert(kNf4Block % kGroup == 0);

struct Input {
    const uint8_t* codes;
    const float* absmax;  ///< Or null, and then the next three.
    const uint8_t* absmax_codes;
    const float *nested_absmax, *offset;
};

struct Tables {
    float values[16], map[256];
};

__device__ __forceinline__ float absmax_of(const Input& x, int64_t block, const Tables& tables) {
    if (x.absmax != nullptr) return x.absmax[block];
    const float product = __fmul_rn(tables.map[x.absmax_codes[block]], x.nested_absmax[block / kNf4NestedBlock]);
    return __fadd_rn(product, *x.offset);
}

template <int kSize, typename Out>
__device__ __forceinline__ void store_values(Out* out, const float (&values)[kSize]) {
    if constexpr (std::is_same_v<Out, float>) {
        store_floats(out, values);
    } else {
        Group<Out, kSize> group;
#pragma unroll
        for (int i = 0; i < kSize; ++i) group[i] = from_float<Out>(values[i]);
        store_group(out, group);
    }
}

/// Elements [first, count).
template <typename Out, int kSize>
__global__ void dequantize_nf4_kernel(int64_t first, int64_t count, Out* out, Input x, Tables tables) {
    SHARED(float[16], values);
    if (threadIdx.x < 16) values[threadIdx.x] = tables.values[threadIdx.x];
    __syncthreads();
    const int64_t i = first + group_begin<kSize>();
    if (i >= count) return;
    const float absmax = absmax_of(x, i / kNf4Block, tables);
    float result[kSize];
    if constexpr (kSize == 1) {
        const int byte = x.codes[i / 2];
        result[0] = values[i % 2 == 0 ? byte >> 4 : byte & 15] * absmax;
    } else {
        const Group<uint8_t, kSize / 2> bytes = load_group_streaming<kSize / 2>(x.codes + i / 2);
#pragma unroll
        for (int k = 0; k < kSize; ++k) {
            result[k] = values[k % 2 == 0 ? bytes[k / 2] >> 4 : bytes[k / 2] & 15] * absmax;
        }
    }
    store_values(out + i, result);
}

Tables make_tables() {
    Tables tables;
    std::copy(kNf4Values.begin(), kNf4Values.end(), tables.values);
    std::copy(signed_map().values().begin(), signed_map().values().end(), tables.map);
    return tables;
}

template <typename Out>
void dequantize(cudaStream_t stream, Tensor out, const Input& x) {
    static const Tables tables = make_tables();
    const int64_t count = out.count();
    Out* const to = elements_of<Out>(out);
    const bool aligned = all_aligned({to}) && reinterpret_cast<uintptr_t>(x.codes) % (kGroup / 2) == 0;
    const int64_t grouped = aligned ? count / kGroup * kGroup : 0;
    const auto start = [&](auto kernel, int64_t first, int64_t end, int64_t size) {
        if (end > first)
            launch(kernel, blocks_of(ceil_div((end - first) / size, kElementThreads)), kElementThreads, 0, stream,
                   first, end, to, x, tables);
    };
    start(dequantize_nf4_kernel<Out, kGroup>, 0, grouped, kGroup);
    start(dequantize_nf4_kernel<Out, 1>, grouped, count, 1);
}

}  // namespace nf4_kernels

void CudaBackend::dequantize_nf4(Tensor out, const Nf4Operands& x) {
    x.check(out);
    Input input = {static_cast<const uint8_t*>(x.codes.data), nullptr, nullptr, nullptr, nullptr};
    if (x.absmax.dtype == DType::F32) {
        input.absmax = x.absmax.as<float>();
    } else {
        input.absmax_codes = static_cast<const uint8_t*>(x.absmax.data);
        input.nested_absmax = x.nested_absmax.as<float>();
        input.offset = x.offset.as<float>();
    }
    if (out.dtype == DType::BF16)
        dequantize<bf16>(stream_, out, input);
    else
        dequantize<float>(stream_, out, input);
}

}  // namespace llmc::cuda
