// Kernels that go row by row, on tensors of more than 2^32 elements.
#include "llmc/backend/cuda/gemm_hopper.h"
#include "tests/cuda_on_cpu/offsets.h"

namespace llmc {
namespace {

using Fill = RowOperand::Fill;

constexpr int64_t kColumns = 2048, kRows = (1 << 21) + 64, kCount = kRows * kColumns;

void run_gather() {
    for (const DType dtype : kActivationTypes)
        expect_rows(
            kRows, 1,
            {{"out", dtype, kColumns, Fill::Nothing}, {"x", dtype, kColumns}, {"rows", DType::I32, 1, Fill::Rows}},
            [](Backend& b, const auto& x, auto&, auto&) { b.gather_rows(x[0], x[1], flat(x[2])); });
}

void run_embed() {
    for (const DType dtype : kActivationTypes)
        expect_rows(kRows, 1,
                    {{"out", dtype, kColumns, Fill::Nothing},
                     {"tokens", DType::I32, 1, Fill::Rows},
                     {"wte", dtype, kColumns},
                     {"wpe", dtype, kColumns}},
                    [](Backend& b, const auto& x, auto&, auto&) {
                        b.embedding_forward(x[0], flat(x[1]), x[2], x[3], x[0].shape[0], {}, {});
                    });
}

Dropout dropout_of(const Tensor& rows) { return {0.25f, 5, 1, 2, rows}; }

void run_dropout() {
    for (const DType dtype : kActivationTypes)
        expect_rows(kRows, 1,
                    {{"out", dtype, kColumns, Fill::Nothing},
                     {"x", dtype, kColumns},
                     {"residual", dtype, kColumns},
                     {"rows", DType::I32, 2, Fill::Integers, 1000}},
                    [](Backend& b, const auto& x, auto&, auto&) { b.dropout(x[0], x[1], x[2], dropout_of(x[3])); });
}

constexpr AttentionShape kHeads = {.B = 1, .T = 0, .NH = 16, .NKV = 8, .HD = 64};

AttentionShape heads_of(const Tensor& qkv) {
    AttentionShape shape = kHeads;
    shape.T = qkv.shape[0];
    return shape;
}

void run_rope() {
    for (const DType dtype : kActivationTypes)
        for (const bool inverse : {false, true})
            expect_rows(
                kRows, 1, {{"qkv", dtype, kHeads.qkv_columns()}, {"table", DType::F32, 64}},
                [&](Backend& b, const auto& x, auto&, auto&) { b.rope(x[0], x[1], heads_of(x[0]), {}, inverse); });
}

void run_head_norm() {
    for (const DType dtype : kActivationTypes) {
        const TestBuffer q_weight = random_buffer(dtype, 64, 1, 1, 21), k_weight = random_buffer(dtype, 64, 1, 1, 22);
        expect_rows(kRows, 1,
                    {{"out", dtype, kHeads.qkv_columns(), Fill::Nothing},
                     {"rstd", DType::F32, 24, Fill::Nothing},
                     {"qkv", dtype, kHeads.qkv_columns()}},
                    [&](Backend& b, const auto& x, const auto& on, auto&) {
                        b.head_norm_forward(x[0], x[1], x[2], on(q_weight), on(k_weight), heads_of(x[2]), 1e-5f);
                    });
    }
}

void run_norm() {
    for (const DType dtype : kActivationTypes) {
        const TestBuffer weight = random_buffer(dtype, kColumns, 1, 1, 21),
                         bias = random_buffer(dtype, kColumns, 1, 1, 22);
        const std::vector<RowOperand> operands = {{"out", dtype, kColumns, Fill::Nothing},
                                                  {"mean", DType::F32, 1, Fill::Nothing},
                                                  {"rstd", DType::F32, 1, Fill::Nothing},
                                                  {"x", dtype, kColumns}};
        expect_rows(kRows, 1, operands, [&](Backend& b, const auto& x, const auto& on, auto&) {
            b.layernorm_forward(x[0], flat(x[1]), flat(x[2]), x[3], on(weight), on(bias), 1e-5f);
        });
        expect_rows(kRows, 1, operands, [&](Backend& b, const auto& x, const auto& on, auto&) {
            b.rmsnorm_forward(x[0], flat(x[2]), x[3], on(weight), 1e-5f);
        });
    }
}

constexpr int64_t kGemmRows = (1 << 24) + 64, kGemmColumns = 256;

/// A block to a tile of 128 rows.
void run_gemm() {
    constexpr int64_t kTile = 128;
    constexpr int kBlocks = 1 << 20;
    const TestBuffer weight = random_buffer(DType::BF16, kGemmColumns, kGemmColumns, 0.2, 21),
                     bias = random_buffer(DType::BF16, 1, kGemmColumns, 1, 22);
    const auto data = [](const Tensor& tensor) { return static_cast<__nv_bfloat16*>(tensor.data); };
    for (const cuda::Applied applied : {cuda::Applied::Nothing, cuda::Applied::Gelu, cuda::Applied::Swiglu})
        expect_rows(
            kGemmRows, kTile,
            {{"out", DType::BF16, kGemmColumns, Fill::Nothing},
             {"activated", DType::BF16, kGemmColumns / (applied == cuda::Applied::Swiglu ? 2 : 1), Fill::Nothing},
             {"x", DType::BF16, kGemmColumns},
             {"residual", DType::BF16, kGemmColumns}},
            [&](Backend& b, const auto& x, const auto& on, auto&) {
                cuda::gemm_hopper({.out = x[0].data,
                                   .activated = data(x[1]),
                                   .left = data(x[2]),
                                   .right = data(on(weight)),
                                   .bias = data(on(bias)),
                                   .residual = x[3].data,
                                   .pre = nullptr,
                                   .rows = static_cast<int>(x[0].shape[0]),
                                   .columns = kGemmColumns,
                                   .depth = kGemmColumns},
                                  cuda::HopperKind::Forward, applied, kBlocks, static_cast<cudaStream_t>(b.stream()));
            });
    for (const cuda::Applied applied : {cuda::Applied::GeluGradient, cuda::Applied::SwigluGradient}) {
        const int64_t columns = kGemmColumns * (applied == cuda::Applied::SwigluGradient ? 2 : 1);
        expect_rows(kGemmRows, kTile,
                    {{"d_pre", DType::BF16, columns, Fill::Nothing},
                     {"d_out", DType::BF16, kGemmColumns},
                     {"pre", DType::BF16, columns}},
                    [&](Backend& b, const auto& x, const auto& on, auto&) {
                        cuda::gemm_hopper({.out = nullptr,
                                           .activated = data(x[0]),
                                           .left = data(x[1]),
                                           .right = data(on(weight)),
                                           .bias = nullptr,
                                           .residual = nullptr,
                                           .pre = data(x[2]),
                                           .rows = static_cast<int>(x[0].shape[0]),
                                           .columns = kGemmColumns,
                                           .depth = kGemmColumns},
                                          cuda::HopperKind::InputGradient, applied, kBlocks,
                                          static_cast<cudaStream_t>(b.stream()));
                    });
    }
}

constexpr int64_t kPartsTokens = 1216, kPartsOC = 256, kPartsIC = 256, kPartNumbers = 8 * kPartsOC * kPartsIC;

/// Parts of sums are 32 MiB at most: those of one product, whole.
void run_parts() {
    const TestBuffer d_out = whole_numbers(DType::BF16, kPartsTokens, kPartsOC, 21),
                     x = whole_numbers(DType::BF16, kPartsTokens, kPartsIC, 22);
    const GemmShape shape = {.m = kPartsIC, .n = kPartsOC, .k = kPartsTokens, .transpose_b = true};
    const TestBuffer d_weight(DType::F32, kPartsOC, kPartsIC),
        workspace = workspace_buffer(cuda::hopper_gemm_workspace(shape));
    ASSERT_EQ(workspace.tensor().bytes(), kPartNumbers * size_of(DType::F32));
    huge_counts.insert(kPartNumbers);  // In the workspace.
    const auto data = [](const Tensor& tensor) { return static_cast<__nv_bfloat16*>(tensor.data); };
    with_blocks({}, [&] {
        run_on_cuda([&](Backend& b, auto on) {
            const cuda::HopperProduct product = {.out = on(d_weight).data,
                                                 .activated = nullptr,
                                                 .left = data(on(d_out)),
                                                 .right = data(on(x)),
                                                 .bias = nullptr,
                                                 .residual = nullptr,
                                                 .pre = nullptr,
                                                 .rows = kPartsOC,
                                                 .columns = kPartsIC,
                                                 .depth = kPartsTokens,
                                                 .workspace = static_cast<float*>(on(workspace).data)};
            cuda::gemm_hopper(product, cuda::HopperKind::WeightGradient, cuda::Applied::Nothing, 16,
                              static_cast<cudaStream_t>(b.stream()));
        });
    });
    const Values of_out = d_out.values(), of_x = x.values();
    Values exact(static_cast<size_t>(kPartsOC * kPartsIC), 0.0);
    for (int64_t n = 0; n < kPartsTokens; ++n)
        for (size_t i = 0; i < exact.size(); ++i)
            exact[i] += of_out[n * kPartsOC + static_cast<int64_t>(i) / kPartsIC] *
                        of_x[n * kPartsIC + static_cast<int64_t>(i) % kPartsIC];
    EXPECT_TRUE(same_values(d_weight, TestBuffer(DType::F32, kPartsOC, kPartsIC, exact)));
}

constexpr int64_t kVocabulary = 65536, kLogitRows = (1 << 16) + 64;

void run_cross_entropy() {
    const TestBuffer scale = scalar(0.25f);
    for (const DType dtype : kActivationTypes)
        expect_rows(kLogitRows, 1,
                    {{"losses", DType::F32, 1, Fill::Nothing},
                     {"logits", dtype, kVocabulary},
                     {"targets", DType::I32, 1, Fill::Integers, kVocabulary}},
                    [&](Backend& b, const auto& x, const auto& on, auto&) {
                        b.cross_entropy(flat(x[0]), x[1], flat(x[2]), kVocabulary - 5, on(scale));
                    });
}

// ---- adapters -------------------------------------------------------------------------------------------------------

constexpr int64_t kIn = 4096, kRank = 16, kAdapterRows = (1 << 20) + 64;

/// Without dropout's rows: of the operation without it.
Dropout adapter_dropout(bool drops, const Tensor& rows) { return drops ? dropout_of(rows) : Dropout(); }

void run_adapter(bool down) {
    const AdapterShape shape = {kRank, {{0, kIn, 1}}};
    const TestBuffer a = random_buffer(DType::F32, kRank, kIn, 1, 21);
    for (const bool drops : {false, true})
        expect_rows(kAdapterRows, down ? 64 : 16,
                    {{"x", DType::BF16, kIn}, {"z", DType::F32, kRank}, {"rows", DType::I32, 2, Fill::Integers, 1000}},
                    [&](Backend& b, const auto& x, const auto& on, auto&) {
                        const Dropout dropout = adapter_dropout(drops, x[2]);
                        if (down)
                            b.adapter_down_forward(x[1], x[0], on(a), shape, dropout, {});
                        else
                            b.adapter_down_backward_input(x[0], x[1], on(a), shape, dropout, {});
                    });
}

}  // namespace

std::vector<OffsetCase> offset_cases_of_rows() {
    return {
        {"Gather", {{"gather_rows_kernel", kCount}}, run_gather},
        {"Embed", {{"embed_kernel", kCount}}, run_embed},
        {"Dropout", {{"dropout_kernel", kCount}}, run_dropout},
        {"Rope", {{"rope_kernel", kCount}}, run_rope},
        {"HeadNorm", {{"head_norm_forward_kernel", kCount}}, run_head_norm},
        {"Norm", {{"norm_forward_kernel", kCount}}, run_norm},
        {"Gemm", {{"gemm_hopper_kernel", kGemmRows * 2 * kGemmColumns}}, run_gemm},
        {"GemmParts", {{"gemm_hopper_kernel", kPartNumbers}, {"add_parts_kernel", kPartNumbers}}, run_parts},
        {"CrossEntropy", {{"cross_entropy_kernel", kLogitRows * kVocabulary}}, run_cross_entropy},
        {"AdapterDown", {{"dot_kernel", kAdapterRows * kIn}}, [] { run_adapter(true); }},
        {"AdapterDownInput", {{"spread_kernel", kAdapterRows * kIn}}, [] { run_adapter(false); }},
    };
}

}  // namespace llmc
