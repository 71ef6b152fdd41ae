// The three matrix products of a layer, in blocks that threads share out (product_blocks.h). Which kernels form them is
// a matter of the processor's row in product_rule.cpp; few rows are always the library's. The library's extents are
// those that did best in dev/kernels/matmul_blocks.cpp, which also keeps the measured times of the others.
#include "llmc/backend/cpu/column_sums.h"
#include "llmc/backend/cpu/cpu_backend.h"
#include "llmc/backend/cpu/parallel.h"
#include "llmc/backend/cpu/product_blocks.h"

#include <algorithm>
#include <array>

namespace llmc::cpu {

namespace {

/// With fewer rows of activations a product reads its weights and does little with them: packing them does not pay.
constexpr int64_t kFewRows = 32;

ProductRule rule_for(const ProductRule& rule, int64_t N) { return N < kFewRows ? ProductRule() : rule; }

// oneDNN 2.6 runs its best kernels (brgemm) only on operands without gaps between their rows; parts of a larger matrix
// get others (gemm:jit), which are a little slower in bf16 and want wider blocks.

/// out = x * weight^T. Both operands of a block are whole rows; the library's sums go through a block without gaps,
/// since its own addition of a residual takes longer.
ProductBlocks forward_blocks(const ProductRules& rules, int threads, DType type, int64_t N, int64_t OC, int64_t IC,
                             bool bias) {
    const GemmSpec spec{.m = N,
                        .n = OC,
                        .k = IC,
                        .lda = IC,
                        .ldb = IC,
                        .ldc = OC,
                        .transpose_b = true,
                        .bias = bias,
                        .ab = type,
                        .c = type};
    static constexpr Extents kCandidates[] = {{256, 256}, {256, 128}, {256, 64}, {128, 64}, {64, 64}};
    return {spec, rule_for(rules.of(type).forward, N), {kCandidates, 12, true}, threads};
}

/// d_x = d_out * weight.
ProductBlocks backward_input_blocks(const ProductRules& rules, int threads, DType type, int64_t N, int64_t OC,
                                    int64_t IC) {
    const GemmSpec spec{.m = N, .n = IC, .k = OC, .lda = OC, .ldb = IC, .ldc = IC, .ab = type, .c = type};
    static constexpr Extents kFp32[] = {{256, 192}, {128, 192}, {64, 192}, {64, 128}, {64, 64}};
    static constexpr Extents kBf16[] = {{256, 768}, {256, 384}, {256, 192}, {256, 128}, {128, 128}, {64, 128}};
    const LibraryCut cut = type == DType::F32 ? LibraryCut{kFp32, 12, false} : LibraryCut{kBf16, 6, false};
    return {spec, rule_for(rules.of(type).backward_input, N), cut, threads};
}

/// d_weight = or += d_out^T * x. The library always adds: one kernel, and so the same sums, for both; what shall be
/// overwritten is zeroed before, block by block, in the cache.
ProductBlocks backward_weight_blocks(const ProductRules& rules, int threads, DType type, bool adds, int64_t N,
                                     int64_t OC, int64_t IC) {
    const ProductRule rule = rule_for(rules.of(type).backward_weight, N);
    const GemmSpec spec{.m = OC,
                        .n = IC,
                        .k = N,
                        .lda = OC,
                        .ldb = IC,
                        .ldc = IC,
                        .transpose_a = true,
                        .accumulate = adds || rule.kind == ProductKind::Library,
                        .ab = type,
                        .c = DType::F32};
    static constexpr Extents kCandidates[] = {{256, 768}, {256, 384}, {128, 384}, {128, 192}, {64, 192}};
    return {spec, rule, {kCandidates, 12, false}, threads};
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
    const ProductBlocks blocks = forward_blocks(products_, threads_, x.dtype, N, OC, IC, bool(bias));
    blocks.run({x.data, weight.data, out.data, bias.data, residual.data}, workspace);
}

void CpuBackend::matmul_backward_input(Tensor d_x, Tensor d_out, Tensor weight, Tensor workspace) {
    const int64_t N = d_out.shape[0], OC = weight.shape[0], IC = weight.shape[1];
    const DType type = d_out.dtype;
    CHECK(is_matrix(d_out, type, N, OC) && is_matrix(weight, type, OC, IC) && is_matrix(d_x, type, N, IC), N, OC, IC);
    const ProductBlocks blocks = backward_input_blocks(products_, threads_, type, N, OC, IC);
    blocks.run({d_out.data, weight.data, d_x.data}, workspace);
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
    const ProductBlocks blocks = backward_weight_blocks(products_, threads_, type, adds, N, OC, IC);
    const bool zeroes = !adds && rule_for(products_.of(type).backward_weight, N).kind == ProductKind::Library;
    blocks.run({d_out.data, x.data, d_weight.data}, workspace, [&](const ProductBlock& block) {
        if (d_bias && block.col == 0) sums(d_bias.as<float>() + block.row, adds, d_out, block.row, block.rows);
        if (!zeroes) return;
        for (int64_t row = block.row; row < block.row + block.rows; ++row)
            std::fill_n(d_weight.as<float>() + row * IC + block.col, block.cols, 0.0f);
    });
}

// Asks the library's kernels themselves: they are made here if need be, which takes about a millisecond for a new
// shape, and found again by the operations. A plan's products may run on fewer rows, too.
int64_t CpuBackend::matmul_workspace(DType activations, int64_t N, int64_t OC, int64_t IC) const {
    int64_t bytes_per_thread = 0;
    for (const int64_t rows : {N, std::min(N, kFewRows - 1)}) {
        const auto needs = [&](const ProductBlocks& blocks) {
            bytes_per_thread = std::max(bytes_per_thread, blocks.bytes_per_thread());
        };
        for (const bool bias : {false, true})
            needs(forward_blocks(products_, threads_, activations, rows, OC, IC, bias));
        needs(backward_input_blocks(products_, threads_, activations, rows, OC, IC));
        needs(backward_weight_blocks(products_, threads_, activations, /*adds=*/true, rows, OC, IC));
    }
    return threads_ * bytes_per_thread;
}

}  // namespace llmc::cpu
