// Gathers of rows: a block to a piece of a row that is written, 16 bytes to a thread.
#include "llmc/backend/cuda/cuda_backend.h"
#include "llmc/backend/cuda/elements.cuh"
#include "llmc/base/check.h"

namespace llmc::cuda {
inline namespace rows_kernels {

template <typename E, int kSize>
__global__ void gather_rows_kernel(E* out, const E* x, const int32_t* rows, int64_t C, int pieces) {
    const int64_t i = blockIdx.x / pieces;
    const int64_t c = (static_cast<int64_t>(blockIdx.x % pieces) * blockDim.x + threadIdx.x) * kSize;
    if (c >= C) return;
    const int64_t row = rows[i];
    Group<E, kSize> group;
#pragma unroll
    for (int k = 0; k < kSize; ++k) group[k] = from_float<E>(0.0f);
    if (row >= 0) group = load_group<kSize>(x + row * C + c);
    store_group(out + i * C + c, group);
}

template <typename E>
void gather(cudaStream_t stream, Tensor out, Tensor x, Tensor rows) {
    constexpr int kSize = Pack<E>::kSize;
    const int64_t n = out.shape[0], C = out.shape[1];
    const bool whole = C % kSize == 0 && all_aligned({out.data, x.data});
    const RowPieces cut(C, whole ? kSize : 1);
    launch(whole ? gather_rows_kernel<E, kSize> : gather_rows_kernel<E, 1>, blocks_of(n * cut.pieces), cut.threads, 0,
           stream, elements_of<E>(out), elements_of<const E>(x), elements_of<const int32_t>(rows), C,
           static_cast<int>(cut.pieces));
}

}  // namespace rows_kernels

void CudaBackend::gather_rows(Tensor out, Tensor x, Tensor rows) {
    CHECK(rows.count() == out.shape[0] && x.shape[1] == out.shape[1] && x.dtype == out.dtype, rows.count(),
          out.shape[0], x.shape[1], out.shape[1]);
    out.dtype == DType::BF16 ? gather<bf16>(stream_, out, x, rows) : gather<float>(stream_, out, x, rows);
}

}  // namespace llmc::cuda
