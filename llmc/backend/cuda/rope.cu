// Rotary position embedding, in place: a block has one token, a thread 16 bytes of the lower half of a head and the 16
// bytes they turn with in the upper half. All heads of a token turn by the same angles, which stay in L1. Bound by
// reading and writing the query and key columns once.
#include "llmc/backend/cuda/rope.cuh"

#include "llmc/backend/cuda/cuda_backend.h"
#include "llmc/backend/cuda/elements.cuh"
#include "llmc/base/check.h"

#include <cstdint>

namespace llmc::cuda {

inline namespace rope_kernels {

constexpr int kThreads = 128;

/// Turns the first R columns of a head, kSize pairs at a time: a pack, or one where rows are not aligned. `direction`
/// is -1 to turn back.
/// Bytes: reads and writes the columns of queries and keys that turn: 4 an element of bf16. llama3.2-1b, 4 x 4096,
/// at 3.0 TB/s: 0.056 ms.
template <typename T, int kSize>
__global__ void __launch_bounds__(kThreads)
    rope_kernel(T* qkv, const float* table, int T_, int heads, int HD, int R, int columns, int64_t first,
                const int32_t* more, const int32_t* documents, float direction) {
    T* const row = qkv + int64_t{blockIdx.x} * columns;
    const int slot = static_cast<int>(blockIdx.x) % T_;
    const int position = documents ? slot - documents[blockIdx.x] : slot;
    const float* const cosines = table + (Position{first, more}.value() + position) * R;
    const int half = R / 2, items_per_head = half / kSize;
    for (int item = threadIdx.x; item < heads * items_per_head; item += kThreads) {
        const int pair = item % items_per_head * kSize;
        T* const lower = row + item / items_per_head * HD + pair;
        const float* const cosine = cosines + pair;
        if constexpr (kSize == 1) {
            turn(lower[0], lower[half], cosine[0], direction * cosine[half]);
        } else {
            Pack<T> x = load128(lower), y = load128(lower + half);
#pragma unroll
            for (int i = 0; i < kSize; i += Pack<float>::kSize) {
                const Pack<float> cosine_pack = load128(cosine + i), sine_pack = load128(cosine + half + i);
#pragma unroll
                for (int e = 0; e < Pack<float>::kSize; ++e)
                    turn(x[i + e], y[i + e], cosine_pack[e], direction * sine_pack[e]);
            }
            store128(lower, x);
            store128(lower + half, y);
        }
    }
}

template <typename T>
void rotate(T* qkv, const float* table, int R, const AttentionShape& shape, FirstPosition first, bool inverse,
            cudaStream_t stream) {
    const int HD = static_cast<int>(shape.HD);
    // Where a head is a multiple of a pack, so is a row of qkv; half of R is half a row of the table, too.
    const bool aligned = HD % Pack<T>::kSize == 0 && R % (2 * Pack<T>::kSize) == 0 && all_aligned({qkv, table});
    launch(aligned ? rope_kernel<T, Pack<T>::kSize> : rope_kernel<T, 1>, blocks_of(shape.B * shape.T), kThreads, 0,
           stream, qkv, table, static_cast<int>(shape.T), static_cast<int>(shape.NH + shape.NKV), HD, R,
           static_cast<int>(shape.qkv_columns()), first.offset, elements_of<const int32_t>(first.on_device),
           elements_of<const int32_t>(shape.documents), inverse ? -1.0f : 1.0f);
}

}  // namespace rope_kernels

void CudaBackend::rope(Tensor qkv, Tensor table, const AttentionShape& shape, FirstPosition first, bool inverse) {
    CHECK(qkv.shape[0] == shape.B * shape.T && qkv.shape[1] == shape.qkv_columns(), qkv.shape[0], qkv.shape[1]);
    CHECK(table.shape[1] % 2 == 0 && table.shape[1] <= shape.HD, table.shape[1], shape.HD);
    CHECK(first.offset >= 0 && first.offset + shape.T <= table.shape[0], first.offset, shape.T, table.shape[0]);
    if (qkv.count() == 0) return;
    const float* const angles = elements_of<const float>(table);
    const int R = static_cast<int>(table.shape[1]);
    if (qkv.dtype == DType::F32)
        rotate(elements_of<float>(qkv), angles, R, shape, first, inverse, stream_);
    else
        rotate(elements_of<bf16>(qkv), angles, R, shape, first, inverse, stream_);
}

}  // namespace llmc::cuda
