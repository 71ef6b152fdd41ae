// The instances of gemm_hopper.cuh, and how they are started.
#include "llmc/backend/cuda/gemm_hopper.cuh"

#include <algorithm>
#include <climits>
#include <initializer_list>

namespace llmc::cuda {

namespace {

/// For boxes of 64 rows of 64 columns.
CUtensorMap matrix_map(const bf16* data, int rows, int columns) {
    const uint64_t row_bytes = static_cast<uint64_t>(columns) * sizeof(bf16);
    return tensor_map({data,
                       {static_cast<uint64_t>(columns), 1, static_cast<uint64_t>(rows), 1},
                       {row_bytes, row_bytes, row_bytes * static_cast<uint64_t>(rows)},
                       {64, 1, 64, 1}});
}

template <Applied kApplied>
void start(const HopperProduct& product, int multiprocessors, cudaStream_t stream) {
    const bool paired = kApplied == Applied::Swiglu;
    const int64_t columns =
        paired ? ceil_div(product.OC / 2, GemmTiling::kHalf) : ceil_div(product.OC, GemmTiling::kColumns);
    const GemmTiles tiles = {static_cast<int>(ceil_div(product.N, GemmTiling::kRows)), static_cast<int>(columns)};
    const GemmMaps maps = {matrix_map(product.x, product.N, product.IC),
                           matrix_map(product.weight, product.OC, product.IC)};
    const int64_t count = int64_t{tiles.rows} * tiles.columns;
    CHECK(count + multiprocessors <= INT_MAX, count);
    launch(gemm_hopper_kernel<kApplied>, blocks_of(std::min<int64_t>(multiprocessors, count)), GemmTiling::kThreads,
           GemmTiling::kBytes, stream, product, tiles, maps);
}

}  // namespace

bool hopper_gemm_takes(const GemmShape& shape) {
    constexpr int64_t kRowMultiple = 8;  // 16 bytes, of operands and of what is stored.
    const bool is_forward = shape.transpose_a && !shape.transpose_b &&
                            (shape.epilogue == Epilogue::None || shape.epilogue == Epilogue::Bias);
    const bool is_bf16 = shape.input == DType::BF16 && shape.output == DType::BF16;
    return is_forward && is_bf16 && shape.m % kRowMultiple == 0 && shape.k % kRowMultiple == 0 &&
           std::max({shape.m, shape.n, shape.k}) <= INT_MAX / 2;
}

void gemm_hopper(const HopperProduct& product, Applied applied, int multiprocessors, cudaStream_t stream) {
    switch (applied) {
        case Applied::Nothing: return start<Applied::Nothing>(product, multiprocessors, stream);
        case Applied::Gelu: return start<Applied::Gelu>(product, multiprocessors, stream);
        case Applied::Swiglu: return start<Applied::Swiglu>(product, multiprocessors, stream);
    }
}

}  // namespace llmc::cuda
