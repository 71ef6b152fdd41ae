// The instances of gemm_hopper.cuh, and how they are started.
#include "llmc/backend/cuda/gemm_hopper.cuh"

#include <algorithm>
#include <climits>
#include <utility>

namespace llmc::cuda {

namespace {

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

template <HopperKind kKind, Applied kApplied>
void start(const HopperProduct& product, int multiprocessors, cudaStream_t stream) {
    using Layout = GemmLayout<kKind>;
    const bool paired = kApplied == Applied::Swiglu;
    const int64_t columns =
        paired ? ceil_div(product.columns / 2, GemmTiling::kHalf) : ceil_div(product.columns, GemmTiling::kColumns);
    const GemmTiles tiles = {static_cast<int>(ceil_div(product.rows, GemmTiling::kRows)), static_cast<int>(columns), 1};
    const GemmMaps maps = {operand_map(Layout::kLeft, product.left, product.rows, product.depth),
                           operand_map(Layout::kRight, product.right, product.columns, product.depth)};
    const int64_t count = int64_t{tiles.rows} * tiles.columns * tiles.parts;
    CHECK(count + multiprocessors <= INT_MAX, count);
    launch(gemm_hopper_kernel<kKind, kApplied>, blocks_of(std::min<int64_t>(multiprocessors, count)),
           GemmTiling::kThreads, GemmTiling::kBytes, stream, product, tiles, maps);
}

}  // namespace

HopperKind hopper_kind(const GemmShape& shape) {
    return shape.transpose_a ? HopperKind::Forward : HopperKind::InputGradient;
}

bool hopper_gemm_takes(const GemmShape& shape) {
    constexpr int64_t kRowMultiple = 8;  // 16 bytes, of operands and of what is stored.
    const bool is_forward = shape.transpose_a && !shape.transpose_b &&
                            (shape.epilogue == Epilogue::None || shape.epilogue == Epilogue::Bias);
    const bool is_input_gradient = !shape.transpose_a && !shape.transpose_b && !shape.adds_c &&
                                   (shape.epilogue == Epilogue::None || shape.epilogue == Epilogue::GeluGradient);
    const bool is_bf16 = shape.input == DType::BF16 && shape.output == DType::BF16;
    return (is_forward || is_input_gradient) && is_bf16 && shape.m % kRowMultiple == 0 && shape.k % kRowMultiple == 0 &&
           std::max({shape.m, shape.n, shape.k}) <= INT_MAX / 2;
}

void gemm_hopper(const HopperProduct& product, HopperKind kind, Applied applied, int multiprocessors,
                 cudaStream_t stream) {
    using enum HopperKind;
    using enum Applied;
    const auto is = [&](HopperKind of, Applied with) { return kind == of && applied == with; };
    if (is(Forward, Nothing)) return start<Forward, Nothing>(product, multiprocessors, stream);
    if (is(Forward, Gelu)) return start<Forward, Gelu>(product, multiprocessors, stream);
    if (is(Forward, Swiglu)) return start<Forward, Swiglu>(product, multiprocessors, stream);
    if (is(InputGradient, Nothing)) return start<InputGradient, Nothing>(product, multiprocessors, stream);
    if (is(InputGradient, GeluGradient)) return start<InputGradient, GeluGradient>(product, multiprocessors, stream);
    if (is(InputGradient, SwigluGradient))
        return start<InputGradient, SwigluGradient>(product, multiprocessors, stream);
    CHECK(false, static_cast<int>(kind), static_cast<int>(applied));
}

}  // namespace llmc::cuda
