// A matrix product cut into blocks of its output: an OpenMP loop over them, one single-threaded product per block, our
// own (product.h) or a library's (gemm.h), as the rule says. Each block has one writer and its whole sum runs in one
// thread, so the order in which threads take blocks cannot be seen in the result. Extents of the library's blocks
// depend on the shape alone, since they may decide bits; those of our own do not, and go by caches and threads.
#pragma once

#include "llmc/backend/cpu/gemm.h"
#include "llmc/backend/cpu/product.h"
#include "llmc/backend/cpu/product_rule.h"
#include "llmc/base/check.h"
#include "llmc/base/tensor.h"

#include <omp.h>

#include <array>
#include <cstdint>
#include <span>

namespace llmc::cpu {

struct Extents {
    int64_t rows, cols;
};

/// How the library's products are cut: extents from the largest, and how many blocks are enough.
struct LibraryCut {
    std::span<const Extents> candidates;
    int64_t enough;
    /// The library writes fp32 sums without gaps to scratch memory, from where they are stored, with the residual.
    /// Otherwise it writes to C, and there is no residual.
    bool through_scratch;
};

/// A block of the output.
struct ProductBlock {
    int64_t row, col;    ///< Its first element.
    int64_t rows, cols;  ///< Its extents.
};

class ProductBlocks {
  public:
    /// `whole`: the product.
    ProductBlocks(const GemmSpec& whole, const ProductRule& rule, const LibraryCut& cut, int threads);

    /// Does not depend on the number of threads, and does not shrink as the product grows.
    int64_t bytes_per_thread() const { return bytes_per_thread_; }

    /// Computes all blocks, in parallel. before(block) is called in the block's thread, ahead of its product.
    template <typename Before>
    void run(const ProductOperands& operands, const Tensor& workspace, const Before& before) const {
        CHECK(workspace.bytes() >= threads_ * bytes_per_thread_, workspace.bytes(), threads_, bytes_per_thread_);
        auto* const scratch = static_cast<char*>(workspace.data);
        const int64_t blocks = row_blocks_ * col_blocks_;
#pragma omp parallel for num_threads(threads_) schedule(dynamic) if (blocks > 1 && multiplications_ >= kParallel)
        for (int64_t i = 0; i < blocks; ++i) {
            const ProductBlock block = block_at(i % row_blocks_, i / row_blocks_);
            before(block);
            multiply(block, operands, scratch + omp_get_thread_num() * bytes_per_thread_);
        }
    }
    void run(const ProductOperands& operands, const Tensor& workspace) const {
        run(operands, workspace, [](const ProductBlock&) {});
    }

  private:
    ProductBlock block_at(int64_t i, int64_t j) const;
    void multiply(const ProductBlock& block, const ProductOperands& whole, char* scratch) const;
    void multiply_by_library(const ProductBlock& block, const ProductOperands& part, char* scratch) const;
    void cut_for_library(const LibraryCut& cut);
    void cut_for_own();

    /// Below this many multiplications one thread is done before the others wake.
    static constexpr int64_t kParallel = 1 << 19;

    GemmSpec whole_;
    ProductRule rule_;
    int threads_;
    int64_t multiplications_;
    Extents extents_ = {};
    int64_t row_blocks_ = 1, col_blocks_ = 1;
    int64_t bytes_per_thread_ = 0;
    // The library's.
    bool through_scratch_;
    std::array<std::array<const Gemm*, 2>, 2> kernels_ = {};  ///< [in the last row][in the last column]
    int64_t gemm_bytes_ = 0;
};

}  // namespace llmc::cpu
