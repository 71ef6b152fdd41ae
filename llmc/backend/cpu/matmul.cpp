// Matrix products: an OpenMP loop over fixed blocks of the output, one single-threaded library GEMM (gemm.h) per block.
// A block's extents depend on the shape alone, each block has one writer and its whole sum runs in one kernel, so the
// order in which threads take blocks cannot be seen in the result. The extents are those that did best in
// dev/kernels/matmul_blocks.cpp, which also keeps the measured times of the others.
#include "llmc/backend/cpu/cpu_backend.h"

#include "llmc/backend/cpu/gemm.h"
#include "llmc/backend/cpu/parallel.h"
#include "llmc/base/units.h"

#include <omp.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <span>

namespace llmc::cpu {

namespace {

struct Extents {
    int64_t rows, cols;
};

/// How to cut a product: extents from the largest, and how many blocks are enough.
struct Cut {
    std::span<const Extents> candidates;
    int64_t enough;
};

/// A part of the output.
struct Block {
    int64_t row, col;    ///< Its first element.
    int64_t rows, cols;  ///< Its extents.
    const Gemm* gemm;
    char* scratch;  ///< What the running thread has for itself: the GEMM's bytes, then the block's.
};

/// The blocks of one product. `spec` describes the whole product; the last row and column of blocks may be smaller than
/// the others and have kernels of their own.
class BlockGrid {
  public:
    /// `dense_block`: the GEMM writes an fp32 block without gaps at scratch + gemm_bytes(), not a part of C.
    BlockGrid(const GemmSpec& spec, const Cut& cut, bool dense_block);

    int64_t gemm_bytes() const { return gemm_bytes_; }
    int64_t bytes_per_thread() const { return gemm_bytes_ + block_bytes_; }

    /// Calls body(block) for all blocks, in parallel.
    template <typename Body>
    void run(int threads, const Tensor& workspace, const Body& body) const {
        CHECK(workspace.bytes() >= threads * bytes_per_thread(), workspace.bytes(), threads, bytes_per_thread());
        auto* const scratch = static_cast<char*>(workspace.data);
        const int64_t blocks = row_blocks_ * col_blocks_;
#pragma omp parallel for num_threads(threads) schedule(dynamic) if (blocks > 1 && multiplications_ >= kParallel)
        for (int64_t i = 0; i < blocks; ++i)
            body(block(i % row_blocks_, i / row_blocks_, scratch + omp_get_thread_num() * bytes_per_thread()));
    }

  private:
    Block block(int64_t i, int64_t j, char* scratch) const {
        const int64_t row = i * extents_.rows, col = j * extents_.cols;
        return {row,
                col,
                std::min(extents_.rows, m_ - row),
                std::min(extents_.cols, n_ - col),
                kernels_[i == row_blocks_ - 1][j == col_blocks_ - 1],
                scratch};
    }

    /// Below this many multiplications one thread is done before the others wake.
    static constexpr int64_t kParallel = 1 << 19;

    int64_t m_, n_;
    int64_t multiplications_;
    Extents extents_;
    int64_t row_blocks_, col_blocks_;
    std::array<std::array<const Gemm*, 2>, 2> kernels_ = {};  ///< [in the last row][in the last column]
    int64_t gemm_bytes_ = 0;
    int64_t block_bytes_ = 0;
};

/// Cuts `size` into equal parts of at most `largest`, up to rounding: no sliver is left at the end.
int64_t even_extent(int64_t size, int64_t largest) {
    const int64_t parts = ceil_div(size, largest);
    return std::min(size, round_up(ceil_div(size, parts), 16));
}

/// The largest extents that give the threads enough blocks to share out; the last candidate if none does. Enough is
/// less for small products, which smaller blocks would slow down more than threads could speed them up.
Extents choose_extents(const GemmSpec& spec, const Cut& cut) {
    constexpr int64_t kBlockMultiplications = 1 << 24;
    const int64_t enough = std::clamp<int64_t>(spec.m * spec.n * spec.k / kBlockMultiplications, 4, cut.enough);
    const auto gives_enough = [&](const Extents& e) {
        return ceil_div(spec.m, e.rows) * ceil_div(spec.n, e.cols) >= enough;
    };
    const auto found = std::find_if(cut.candidates.begin(), cut.candidates.end() - 1, gives_enough);
    return {even_extent(spec.m, found->rows), even_extent(spec.n, found->cols)};
}

BlockGrid::BlockGrid(const GemmSpec& spec, const Cut& cut, bool dense_block)
    : m_(spec.m),
      n_(spec.n),
      multiplications_(spec.m * spec.n * spec.k),
      extents_(choose_extents(spec, cut)),
      row_blocks_(ceil_div(m_, extents_.rows)),
      col_blocks_(ceil_div(n_, extents_.cols)) {
    for (int last_row = 0; last_row < 2; ++last_row) {
        for (int last_col = 0; last_col < 2; ++last_col) {
            if ((!last_row && row_blocks_ == 1) || (!last_col && col_blocks_ == 1)) continue;
            GemmSpec part = spec;
            part.m = last_row ? m_ - (row_blocks_ - 1) * extents_.rows : extents_.rows;
            part.n = last_col ? n_ - (col_blocks_ - 1) * extents_.cols : extents_.cols;
            if (dense_block) part.ldc = part.n;
            const Gemm* const gemm = find_gemm(part);
            kernels_[last_row][last_col] = gemm;
            gemm_bytes_ = std::max(gemm_bytes_, round_up(gemm_scratch_bytes(gemm), kTensorAlignment));
        }
    }
    if (dense_block) block_bytes_ = round_up(extents_.rows * extents_.cols * size_of(DType::F32), kTensorAlignment);
}

// The three products. oneDNN 2.6 runs its best kernels (brgemm) only on operands without gaps between their rows; parts
// of a larger matrix get others (gemm:jit), which are a little slower in bf16 and want wider blocks.

/// out = x * weight^T. Both operands of a block are whole rows; the result goes through a block without gaps, and the
/// pass that stores it also adds the residual.
BlockGrid forward_grid(DType type, int64_t N, int64_t OC, int64_t IC, bool bias) {
    const GemmSpec spec{.m = N,
                        .n = OC,
                        .k = IC,
                        .lda = IC,
                        .ldb = IC,
                        .ldc = OC,
                        .transpose_b = true,
                        .bias = bias,
                        .ab = type,
                        .c = DType::F32};
    static constexpr Extents kCandidates[] = {{256, 256}, {256, 128}, {256, 64}, {128, 64}, {64, 64}};
    return {spec, {kCandidates, 12}, true};
}

/// d_x = d_out * weight.
BlockGrid backward_input_grid(DType type, int64_t N, int64_t OC, int64_t IC) {
    const GemmSpec spec{.m = N, .n = IC, .k = OC, .lda = OC, .ldb = IC, .ldc = IC, .ab = type, .c = type};
    static constexpr Extents kFp32[] = {{256, 192}, {128, 192}, {64, 192}, {64, 128}, {64, 64}};
    static constexpr Extents kBf16[] = {{256, 768}, {256, 384}, {256, 192}, {256, 128}, {128, 128}, {64, 128}};
    return {spec, type == DType::F32 ? Cut{kFp32, 12} : Cut{kBf16, 6}, false};
}

/// d_weight += d_out^T * x. What shall be overwritten is zeroed block by block, in the cache, and then added to: one
/// kernel, and so the same sums, for both.
BlockGrid backward_weight_grid(DType type, int64_t N, int64_t OC, int64_t IC) {
    const GemmSpec spec{.m = OC,
                        .n = IC,
                        .k = N,
                        .lda = OC,
                        .ldb = IC,
                        .ldc = IC,
                        .transpose_a = true,
                        .accumulate = true,
                        .ab = type,
                        .c = DType::F32};
    static constexpr Extents kCandidates[] = {{256, 768}, {256, 384}, {128, 384}, {128, 192}, {64, 192}};
    return {spec, {kCandidates, 12}, false};
}

/// The address of an element of a row-major matrix.
char* element(const Tensor& matrix, int64_t row, int64_t col) {
    return static_cast<char*>(matrix.data) + (row * matrix.shape[1] + col) * size_of(matrix.dtype);
}

/// Stores a block of sums in `out`, adding the residual if there is one.
template <typename T>
void store_block(const Tensor& out, const Tensor& residual, const Block& block, const float* sums) {
    const int64_t stride = out.shape[1], first = block.row * stride + block.col;
    T* to = out.as<T>() + first;
    const T* from = residual ? residual.as<T>() + first : nullptr;  // May be `to`: each element is read, then written.
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

/// sums (cols) = or += the sums of columns [first, first + cols) of x. Rows are added in groups, so that the rounding
/// error grows with the root of their number.
template <typename T>
void column_sums(float* sums, bool adds, const Tensor& x, int64_t first, int64_t cols) {
    constexpr int64_t kStrip = 256, kGroup = 64;
    const int64_t rows = x.shape[0], stride = x.shape[1];
    for (int64_t strip = 0; strip < cols; strip += kStrip) {
        const int64_t width = std::min(kStrip, cols - strip);
        std::array<float, kStrip> total = {}, part;
        for (int64_t group = 0; group < rows; group += kGroup) {
            part.fill(0);
            const T* from = x.as<T>() + group * stride + first + strip;
            for (int64_t row = group; row < std::min(group + kGroup, rows); ++row, from += stride) {
#pragma omp simd
                for (int64_t j = 0; j < width; ++j) part[j] += to_float(from[j]);
            }
            for (int64_t j = 0; j < width; ++j) total[j] += part[j];
        }
        for (int64_t j = 0; j < width; ++j) sums[strip + j] = adds ? sums[strip + j] + total[j] : total[j];
    }
}

bool is_matrix(const Tensor& t, DType dtype, int64_t rows, int64_t cols) {
    return t.data != nullptr && t.dtype == dtype && t.shape == std::array<int64_t, 3>{rows, cols, 1};
}

}  // namespace

void CpuBackend::matmul_forward(Tensor out, Tensor x, Tensor weight, Tensor bias, Tensor residual, Tensor workspace) {
    const int64_t N = x.shape[0], IC = x.shape[1], OC = weight.shape[0];
    CHECK(is_matrix(x, x.dtype, N, IC) && is_matrix(weight, x.dtype, OC, IC) && is_matrix(out, x.dtype, N, OC), N, OC,
          IC);
    CHECK(!bias || is_matrix(bias, x.dtype, OC, 1), OC, bias.shape[0]);
    CHECK(!residual || is_matrix(residual, x.dtype, N, OC), N, OC);
    const BlockGrid grid = forward_grid(x.dtype, N, OC, IC, bool(bias));
    grid.run(threads_, workspace, [&](const Block& block) {
        auto* const sums = reinterpret_cast<float*>(block.scratch + grid.gemm_bytes());
        const void* const bias_part = bias ? element(bias, block.col, 0) : nullptr;
        run_gemm(block.gemm, element(x, block.row, 0), element(weight, block.col, 0), sums, bias_part, block.scratch);
        (out.dtype == DType::F32 ? store_block<float> : store_block<bf16>)(out, residual, block, sums);
    });
}

void CpuBackend::matmul_backward_input(Tensor d_x, Tensor d_out, Tensor weight, Tensor workspace) {
    const int64_t N = d_out.shape[0], OC = weight.shape[0], IC = weight.shape[1];
    const DType type = d_out.dtype;
    CHECK(is_matrix(d_out, type, N, OC) && is_matrix(weight, type, OC, IC) && is_matrix(d_x, type, N, IC), N, OC, IC);
    backward_input_grid(type, N, OC, IC).run(threads_, workspace, [&](const Block& block) {
        run_gemm(block.gemm, element(d_out, block.row, 0), element(weight, 0, block.col),
                 element(d_x, block.row, block.col), nullptr, block.scratch);
    });
}

void CpuBackend::matmul_backward_weight(Tensor d_weight, Tensor d_bias, bool adds, Tensor d_out, Tensor x,
                                        Tensor workspace) {
    const int64_t N = d_out.shape[0], OC = d_out.shape[1], IC = d_weight.shape[1];
    const DType type = d_out.dtype;
    const auto sums = type == DType::F32 ? column_sums<float> : column_sums<bf16>;
    if (!d_weight) {
        constexpr int64_t kColumns = 256;
        CHECK(is_matrix(d_out, type, N, OC) && is_matrix(d_bias, DType::F32, OC, 1), OC);
        return for_each_range(OC, kColumns, d_out.bytes(), [&](int64_t begin, int64_t end) {
            sums(d_bias.as<float>() + begin, adds, d_out, begin, end - begin);
        });
    }
    CHECK(is_matrix(x, type, N, IC) && is_matrix(d_out, type, N, OC), N, OC, IC);
    CHECK(is_matrix(d_weight, DType::F32, OC, IC) && (!d_bias || is_matrix(d_bias, DType::F32, OC, 1)), OC, IC);
    backward_weight_grid(type, N, OC, IC).run(threads_, workspace, [&](const Block& block) {
        if (d_bias && block.col == 0) sums(d_bias.as<float>() + block.row, adds, d_out, block.row, block.rows);
        if (!adds) {
            for (int64_t row = block.row; row < block.row + block.rows; ++row)
                std::memset(element(d_weight, row, block.col), 0, static_cast<size_t>(block.cols) * sizeof(float));
        }
        run_gemm(block.gemm, element(d_out, 0, block.row), element(x, 0, block.col),
                 element(d_weight, block.row, block.col), nullptr, block.scratch);
    });
}

// Asks the kernels themselves: they are made here if need be, which takes about a millisecond for a new shape, and
// found again by the operations. For a known shape the answer takes 0.3 us.
int64_t CpuBackend::matmul_workspace(DType activations, int64_t N, int64_t OC, int64_t IC) const {
    const int64_t bytes_per_thread = std::max({forward_grid(activations, N, OC, IC, false).bytes_per_thread(),
                                               forward_grid(activations, N, OC, IC, true).bytes_per_thread(),
                                               backward_input_grid(activations, N, OC, IC).bytes_per_thread(),
                                               backward_weight_grid(activations, N, OC, IC).bytes_per_thread()});
    return threads_ * bytes_per_thread;
}

}  // namespace llmc::cpu
