// The instances of gemm_hopper.cuh, and how they are started.
#include "llmc/backend/cuda/gemm_hopper.cuh"

#include <algorithm>
#include <climits>
#include <utility>

namespace llmc::cuda {

inline namespace gemm_hopper_kernels {

/// Of a row-major matrix, for boxes of 64 rows of 64 columns.
CUtensorMap matrix_map(const bf16* data, int rows, int columns) {
    const uint64_t row_bytes = static_cast<uint64_t>(columns) * sizeof(bf16);
    return tensor_map({data,
                       {static_cast<uint64_t>(columns), 1, static_cast<uint64_t>(rows), 1},
                       {row_bytes, row_bytes, row_bytes * static_cast<uint64_t>(rows)},
                       {64, 1, 64, 1}});
}
CUtensorMap operand_map(Major major, const bf16* data, int rows, int depth) {
    return major == Major::K ? matrix_map(data, rows, depth) : matrix_map(data, depth, rows);
}

/// out = residual + the parts' sums, in their order; four elements to a thread. residual may be out, or null.
/// Bytes: reads 4 an element of each part and of residual, writes 4.
__global__ void add_parts_kernel(int64_t count, float* out, const float* residual, const float* sums, int parts) {
    constexpr int kSize = 4;
    const int64_t i = group_begin<kSize>();
    if (i >= count) return;
    Group<float, kSize> sum = load_group<kSize>(sums + i);
#pragma unroll 4
    for (int part = 1; part < parts; ++part) {
        const Group<float, kSize> next = load_group<kSize>(sums + part * count + i);
#pragma unroll
        for (int k = 0; k < kSize; ++k) sum[k] += next[k];
    }
    if (residual != nullptr) {
        const Group<float, kSize> before = load_group<kSize>(residual + i);
#pragma unroll
        for (int k = 0; k < kSize; ++k) sum[k] += before[k];
    }
    store_group(out + i, sum);
}

/// Of how many parts a weight gradient's sums over `depth` tokens are, so that all of a large card's multiprocessors
/// have work: by the sizes alone, since it decides the order of the sums. Storing and adding a tile once more is taken
/// to cost as much as summing it over 1,024 tokens: by arithmetic, 128 KiB to memory and back at a multiprocessor's 23
/// GB/s, and 64 tokens of a tile in 0.75 us.
int64_t parts_of(int64_t rows, int64_t columns, int64_t depth) {
    constexpr int64_t kMultiprocessors = 132, kMost = 8, kTokensOfAdding = 1024;
    constexpr int64_t kMostNumbers = (32 << 20) / int64_t{sizeof(float)};
    const int64_t tiles = ceil_div(rows, GemmTiling::kRows) * ceil_div(columns, GemmTiling::kColumns);
    int64_t best = 1, least = ceil_div(tiles, kMultiprocessors) * depth;
    for (int64_t parts = 2; parts <= std::min(kMost, ceil_div(depth, GemmTiling::kK)); ++parts) {
        const int64_t numbers = parts * rows * columns;
        if (numbers > kMostNumbers || numbers > depth * (rows + columns)) break;
        const int64_t turns = ceil_div(tiles * parts, kMultiprocessors);
        const int64_t tokens = turns * (ceil_div(depth, parts) + kTokensOfAdding);
        if (tokens < least) best = parts, least = tokens;
    }
    return best;
}

template <HopperKind kKind, Applied kApplied>
void start(const HopperProduct& product, int multiprocessors, cudaStream_t stream) {
    using Layout = GemmLayout<kKind>;
    const bool paired = kApplied == Applied::Swiglu;
    const int64_t columns =
        paired ? ceil_div(product.columns / 2, GemmTiling::kHalf) : ceil_div(product.columns, GemmTiling::kColumns);
    const bool is_divided = kKind == HopperKind::WeightGradient;
    const int64_t parts = is_divided ? parts_of(product.rows, product.columns, product.depth) : 1;
    const GemmTiles tiles = {static_cast<int>(ceil_div(product.rows, GemmTiling::kRows)), static_cast<int>(columns),
                             static_cast<int>(parts)};
    HopperProduct of_parts = product;
    if (parts > 1) of_parts.out = product.workspace, of_parts.residual = nullptr;
    const GemmMaps maps = {operand_map(Layout::kLeft, product.left, product.rows, product.depth),
                           operand_map(Layout::kRight, product.right, product.columns, product.depth)};
    const int64_t count = int64_t{tiles.rows} * tiles.columns * tiles.parts;
    CHECK(count + multiprocessors <= INT_MAX, count);
    launch(gemm_hopper_kernel<kKind, kApplied>, blocks_of(std::min<int64_t>(multiprocessors, count)),
           GemmTiling::kThreads, GemmTiling::kBytes, stream, of_parts, tiles, maps);
    if (parts == 1) return;
    const int64_t elements = int64_t{product.rows} * product.columns;
    launch(add_parts_kernel, blocks_of(ceil_div(elements / 4, kElementThreads)), kElementThreads, 0, stream, elements,
           static_cast<float*>(product.out), static_cast<const float*>(product.residual), product.workspace,
           static_cast<int>(parts));
}

}  // namespace gemm_hopper_kernels

HopperKind hopper_kind(const GemmShape& shape) {
    return shape.transpose_a   ? HopperKind::Forward
           : shape.transpose_b ? HopperKind::WeightGradient
                               : HopperKind::InputGradient;
}

bool hopper_gemm_takes(const GemmShape& shape) {
    constexpr int64_t kRowMultiple = 8;  // 16 bytes, of operands and of what is stored.
    if (shape.transpose_a && shape.transpose_b) return false;
    const HopperKind kind = hopper_kind(shape);
    const bool is_of_weight = kind == HopperKind::WeightGradient;
    const bool takes_epilogue =
        shape.epilogue == Epilogue::None || (kind == HopperKind::Forward && shape.epilogue == Epilogue::Bias) ||
        (kind == HopperKind::InputGradient && shape.epilogue == Epilogue::GeluGradient && !shape.adds_c);
    return takes_epilogue && shape.input == DType::BF16 && shape.output == (is_of_weight ? DType::F32 : DType::BF16) &&
           shape.m % kRowMultiple == 0 && (is_of_weight ? shape.n : shape.k) % kRowMultiple == 0 &&
           std::max({shape.m, shape.n, shape.k}) <= INT_MAX / 2;
}

int64_t hopper_gemm_workspace(const GemmShape& shape) {
    const int64_t parts = hopper_kind(shape) == HopperKind::WeightGradient ? parts_of(shape.n, shape.m, shape.k) : 1;
    return parts > 1 ? parts * shape.n * shape.m * int64_t{sizeof(float)} : 0;
}

void gemm_hopper(const HopperProduct& product, HopperKind kind, Applied applied, int multiprocessors,
                 cudaStream_t stream) {
    using enum HopperKind;
    using enum Applied;
    const auto is = [&](HopperKind of, Applied with) { return kind == of && applied == with; };
    if (is(Forward, Nothing)) return start<Forward, Nothing>(product, multiprocessors, stream);
    if (is(Forward, Gelu)) return start<Forward, Gelu>(product, multiprocessors, stream);
    if (is(Forward, Swiglu)) return start<Forward, Swiglu>(product, multiprocessors, stream);
    if (is(Forward, Rope)) return start<Forward, Rope>(product, multiprocessors, stream);
    if (is(InputGradient, Nothing)) return start<InputGradient, Nothing>(product, multiprocessors, stream);
    if (is(InputGradient, GeluGradient)) return start<InputGradient, GeluGradient>(product, multiprocessors, stream);
    if (is(InputGradient, SwigluGradient))
        return start<InputGradient, SwigluGradient>(product, multiprocessors, stream);
    if (is(WeightGradient, Nothing)) return start<WeightGradient, Nothing>(product, multiprocessors, stream);
    CHECK(false, static_cast<int>(kind), static_cast<int>(applied));
}

}  // namespace llmc::cuda
