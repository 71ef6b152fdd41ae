#include "llmc/backend/cpu/product_blocks.h"

#include "llmc/backend/backend.h"
#include "llmc/backend/cpu/machine.h"
#include "llmc/backend/cpu/product_tile.h"
#include "llmc/base/units.h"

#include <algorithm>

namespace llmc::cpu {
namespace {

/// Cuts `size` into equal parts of at most `largest`, up to rounding: no sliver is left at the end.
int64_t even_extent(int64_t size, int64_t largest, int64_t multiple) {
    const int64_t parts = ceil_div(size, largest);
    return std::min(size, round_up(ceil_div(size, parts), multiple));
}

/// The largest extents that give the threads enough blocks to share out; the last candidate if none does. Enough is
/// less for small products, which smaller blocks would slow down more than threads could speed them up.
Extents library_extents(const GemmSpec& spec, const LibraryCut& cut) {
    constexpr int64_t kBlockMultiplications = 1 << 24;
    const int64_t enough = std::clamp<int64_t>(spec.m * spec.n * spec.k / kBlockMultiplications, 4, cut.enough);
    const auto gives_enough = [&](const Extents& e) {
        return ceil_div(spec.m, e.rows) * ceil_div(spec.n, e.cols) >= enough;
    };
    const auto found = std::find_if(cut.candidates.begin(), cut.candidates.end() - 1, gives_enough);
    return {even_extent(spec.m, found->rows, 16), even_extent(spec.n, found->cols, 16)};
}

/// Rows over which a packed right operand is used: from here on its packing takes no more than 2 % of the time.
constexpr int64_t kOwnRows = 74 * kTileRows;
/// Where sums need scratch memory of their own.
constexpr int64_t kOwnRowsOfSums = 37 * kTileRows;

/// Columns of our own blocks: as many as the packed right operand has room for in the second cache. Half as much again
/// pays where it is not transposed, so that packing it costs little, and the left operand is read less often.
int64_t own_columns(const GemmSpec& spec, int64_t depth) {
    const int64_t share = second_cache_bytes() / 4 * (spec.transpose_b ? 3 : 6);
    return std::clamp<int64_t>(share / (depth * 4) / 96 * 96, 192, 768);
}

int64_t own_rows(const GemmSpec& spec) { return spec.c == DType::F32 ? kOwnRows : kOwnRowsOfSums; }

/// In how many rows of blocks: so that there is work for all threads, and, if it costs little, a multiple of it. What
/// takes less than kBlockMultiplications is not worth a thread.
int64_t own_row_blocks(const GemmSpec& spec, int64_t col_blocks, int threads) {
    constexpr int64_t kBlockMultiplications = 1 << 21;
    const int64_t most = ceil_div(spec.m, 2 * kTileRows);
    const int64_t least = ceil_div(spec.m, own_rows(spec));
    const int64_t worth = std::max<int64_t>(1, spec.m * spec.n * spec.k / kBlockMultiplications / col_blocks);
    const int64_t wanted = ceil_div(threads == 1 ? 1 : int64_t{2} * threads, col_blocks);
    const int64_t blocks = std::min(std::max(least, std::min(wanted, worth)), std::max(least, most));
    for (int64_t more = blocks; more < blocks + threads && more <= std::min(most, std::max(least, worth)); ++more)
        if (more * col_blocks % threads == 0) return more;
    return blocks;
}

char* element(const void* matrix, int64_t row, int64_t stride, int64_t col, DType type) {
    return static_cast<char*>(const_cast<void*>(matrix)) + (row * stride + col) * size_of(type);
}

/// Stores a block of sums, adding the residual if there is one.
template <typename T>
void store_block(void* out, const void* residual, int64_t stride, const ProductBlock& block, const float* sums) {
    auto* to = static_cast<T*>(out);
    const auto* from = static_cast<const T*>(residual);  // May be `to`: each element is read, then written.
    for (int64_t i = 0; i < block.rows; ++i, sums += block.cols, to += stride) {
        if (from) {
#pragma omp simd
            for (int64_t j = 0; j < block.cols; ++j) to[j] = from_float<T>(to_float(from[j]) + sums[j]);
            from += stride;
        } else {
#pragma omp simd
            for (int64_t j = 0; j < block.cols; ++j) to[j] = from_float<T>(sums[j]);
        }
    }
}

}  // namespace

ProductBlocks::ProductBlocks(const GemmSpec& whole, const ProductRule& rule, const LibraryCut& cut, int threads)
    : whole_(whole),
      rule_(rule),
      threads_(threads),
      multiplications_(whole.m * whole.n * whole.k),
      through_scratch_(cut.through_scratch) {
    rule_.kind == ProductKind::Library ? cut_for_library(cut) : cut_for_own();
}

void ProductBlocks::cut_for_library(const LibraryCut& cut) {
    extents_ = library_extents(whole_, cut);
    row_blocks_ = ceil_div(whole_.m, extents_.rows);
    col_blocks_ = ceil_div(whole_.n, extents_.cols);
    for (int last_row = 0; last_row < 2; ++last_row) {
        for (int last_col = 0; last_col < 2; ++last_col) {
            if ((!last_row && row_blocks_ == 1) || (!last_col && col_blocks_ == 1)) continue;
            GemmSpec part = whole_;
            part.m = last_row ? whole_.m - (row_blocks_ - 1) * extents_.rows : extents_.rows;
            part.n = last_col ? whole_.n - (col_blocks_ - 1) * extents_.cols : extents_.cols;
            if (through_scratch_) part.c = DType::F32, part.ldc = part.n;
            const Gemm* const gemm = find_gemm(part);
            kernels_[last_row][last_col] = gemm;
            gemm_bytes_ = std::max(gemm_bytes_, round_up(gemm_scratch_bytes(gemm), kTensorAlignment));
        }
    }
    bytes_per_thread_ = gemm_bytes_;
    if (through_scratch_)
        bytes_per_thread_ += round_up(extents_.rows * extents_.cols * size_of(DType::F32), kTensorAlignment);
}

void ProductBlocks::cut_for_own() {
    const int64_t columns = own_columns(whole_, rule_.depth);
    extents_.cols = even_extent(whole_.n, columns, kTileColumns);
    col_blocks_ = ceil_div(whole_.n, extents_.cols);
    row_blocks_ = own_row_blocks(whole_, col_blocks_, threads_);
    extents_.rows = even_extent(whole_.m, ceil_div(whole_.m, row_blocks_), kTileRows);
    row_blocks_ = ceil_div(whole_.m, extents_.rows);
    GemmSpec largest = whole_;
    largest.m = std::min(own_rows(whole_) + kTileRows, whole_.m), largest.n = std::min(columns, whole_.n);
    bytes_per_thread_ = product_scratch_bytes(largest, rule_);
}

ProductBlock ProductBlocks::block_at(int64_t i, int64_t j) const {
    const int64_t row = i * extents_.rows, col = j * extents_.cols;
    return {row, col, std::min(extents_.rows, whole_.m - row), std::min(extents_.cols, whole_.n - col)};
}

void ProductBlocks::multiply(const ProductBlock& block, const ProductOperands& whole, char* scratch) const {
    const DType ab = whole_.ab;
    ProductOperands part;
    part.a =
        whole_.transpose_a ? element(whole.a, 0, 0, block.row, ab) : element(whole.a, block.row, whole_.lda, 0, ab);
    part.b =
        whole_.transpose_b ? element(whole.b, block.col, whole_.ldb, 0, ab) : element(whole.b, 0, 0, block.col, ab);
    part.c = element(whole.c, block.row, whole_.ldc, block.col, whole_.c);
    if (whole.bias) part.bias = element(whole.bias, 0, 0, block.col, ab);
    if (whole.residual) part.residual = element(whole.residual, block.row, whole_.ldc, block.col, whole_.c);
    if (rule_.kind == ProductKind::Library) return multiply_by_library(block, part, scratch);
    GemmSpec spec = whole_;
    spec.m = block.rows, spec.n = block.cols;
    run_product(spec, rule_, part, scratch);
}

void ProductBlocks::multiply_by_library(const ProductBlock& block, const ProductOperands& part, char* scratch) const {
    const Gemm* const gemm = kernels_[block.row + block.rows == whole_.m][block.col + block.cols == whole_.n];
    auto* const sums = reinterpret_cast<float*>(scratch + gemm_bytes_);
    run_gemm(gemm, part.a, part.b, through_scratch_ ? sums : part.c, part.bias, scratch);
    if (!through_scratch_) return;
    const auto store = whole_.c == DType::F32 ? store_block<float> : store_block<bf16>;
    store(part.c, part.residual, whole_.ldc, block, sums);
}

}  // namespace llmc::cpu
