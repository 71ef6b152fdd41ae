// Kernels that go element by element, on tensors of more than 2^32 elements: activations, conversions, and what works
// on flat buffers.
#include "llmc/base/dynamic_map.h"
#include "llmc/base/nf4.h"
#include "tests/backend/optimizer_testing.h"
#include "tests/cuda_on_cpu/offsets.h"

namespace llmc {
namespace {

using Fill = RowOperand::Fill;

constexpr int64_t kColumns = 2048, kRows = (1 << 21) + 64;

/// An operation on tensors of one shape, the first of them written.
void expect_elements(DType dtype, int tensors, const RowOperation& operation) {
    std::vector<RowOperand> operands = {{"out", dtype, kColumns, Fill::Nothing}};
    for (int i = 1; i < tensors; ++i) operands.push_back({"operand", dtype, kColumns});
    expect_rows(kRows, 1, operands, operation);
}

void run_activation(void (Backend::*operation)(Tensor, Tensor)) {
    for (const DType dtype : kActivationTypes)
        expect_elements(dtype, 2, [&](Backend& b, const auto& x, auto&, auto&) { (b.*operation)(x[0], x[1]); });
}
void run_activation_backward(void (Backend::*operation)(Tensor, Tensor, Tensor)) {
    for (const DType dtype : kActivationTypes)
        expect_elements(dtype, 3, [&](Backend& b, const auto& x, auto&, auto&) { (b.*operation)(x[0], x[1], x[2]); });
}

void run_swiglu(bool backward) {
    for (const DType dtype : kActivationTypes) {
        if (!backward)
            expect_rows(kRows, 1, {{"out", dtype, kColumns, Fill::Nothing}, {"gate_up", dtype, 2 * kColumns}},
                        [](Backend& b, const auto& x, auto&, auto&) { b.swiglu_forward(x[0], x[1]); });
        else
            expect_rows(kRows, 1,
                        {{"d_gate_up", dtype, 2 * kColumns, Fill::Nothing},
                         {"d_out", dtype, kColumns},
                         {"gate_up", dtype, 2 * kColumns}},
                        [](Backend& b, const auto& x, auto&, auto&) { b.swiglu_backward(x[0], x[1], x[2]); });
    }
}

void run_convert() {
    for (const auto& [to, from] : {std::pair(DType::BF16, DType::F32), std::pair(DType::F32, DType::BF16)})
        expect_rows(kRows, 1, {{"out", to, kColumns, Fill::Nothing}, {"x", from, kColumns}},
                    [](Backend& b, const auto& x, auto&, auto&) { b.convert(x[0], x[1]); });
}

void run_add() {
    expect_rows(kRows, 1, {{"out", DType::F32, kColumns}, {"x", DType::F32, kColumns}},
                [](Backend& b, const auto& x, auto&, auto&) { b.add(x[0], x[1]); });
}

void run_nf4() {
    constexpr int64_t kOfRow = kNf4Block * kNf4NestedBlock, kNf4Rows = (1 << 18) + 64;
    const TestBuffer offset(DType::F32, 1, 1, Values{0.25});
    for (const bool is_double : {false, true})
        for (const DType dtype : kActivationTypes)
            expect_rows(kNf4Rows, 1,
                        {{"out", dtype, kOfRow, Fill::Nothing},
                         {"codes", DType::U8, kOfRow / 2, Fill::Bytes},
                         {"absmax", is_double ? DType::U8 : DType::F32, kOfRow / kNf4Block,
                          is_double ? Fill::Bytes : Fill::Normals},
                         {"nested", DType::F32, 1}},
                        [&](Backend& b, const auto& x, const auto& on, auto&) {
                            Nf4Operands operands = {flat(x[1]), flat(x[2])};
                            if (is_double) operands.nested_absmax = flat(x[3]), operands.offset = on(offset);
                            b.dequantize_nf4(x[0], operands);
                        });
}

// ---- flat buffers ---------------------------------------------------------------------------------------------------

constexpr int64_t kFlatColumns = 16384, kFlatRows = (1 << 18) + 64;

/// All of the huge buffers as one range, or each row as one that says where it is among them.
std::vector<ParameterRange> flat_ranges(const Places& places) {
    if (places.empty()) return {{0, kFlatRows * kFlatColumns, true, 3, 0}};
    std::vector<ParameterRange> ranges;
    for (size_t i = 0; i < places.size(); ++i)
        ranges.push_back({static_cast<int64_t>(i) * kFlatColumns, kFlatColumns, true, 3, places[i] * kFlatColumns});
    return ranges;
}

const TestBuffer& factors() {
    static const TestBuffer buffer(DType::F32, kNumFactors, 1, Values{1, 0.5, 0.999, 1e-3, 1.5, 1e-3});
    return buffer;
}
const TestBuffer& controls() {
    static const TestBuffer buffer(DType::F64, kNumControls, 1, Values{1e-3, 7, 2});
    return buffer;
}

void run_update(OptimizerKind kind, bool mixed, DType moments, DType gradients, bool has_master) {
    const bool in_blocks = moments == DType::U8, has_v = optimizer_row(kind).second_moment;
    const Fill of_moments = in_blocks ? Fill::Bytes : Fill::Nothing;
    OptimizerSettings settings;
    settings.kind = kind;
    settings.seed = 11;
    expect_rows(kFlatRows, 1,
                {{"parameters", mixed ? DType::BF16 : DType::F32, kFlatColumns},
                 {"master", DType::F32, kFlatColumns},
                 {"m", moments, kFlatColumns, of_moments},
                 {"v", moments, kFlatColumns, Fill::Nothing},
                 {"gradients", gradients, kFlatColumns},
                 {"m scales", DType::F32, kFlatColumns / kStateBlock},
                 {"v scales", DType::F32, kFlatColumns / kStateBlock}},
                [&](Backend& b, const auto& x, const auto& on, const Places& places) {
                    UpdateOperands operands = {flat(x[0]), has_master ? flat(x[1]) : Tensor(), flat(x[2]),
                                               has_v ? flat(x[3]) : Tensor(), flat(x[4])};
                    if (in_blocks) operands.m_scales = flat(x[5]), operands.v_scales = flat(x[6]);
                    operands.controls = on(controls());
                    b.update(operands, flat_ranges(places), settings, on(factors()));
                });
}

void run_updates() {
    run_update(OptimizerKind::AdamW, true, DType::F32, DType::F32, true);
    run_update(OptimizerKind::Lion, false, DType::F32, DType::F32, false);
}

void run_update_formats() {
    run_update(OptimizerKind::AdamW, true, DType::BF16, DType::BF16, false);
    run_update(OptimizerKind::AdamW, true, DType::U8, DType::F32, true);
}

void run_add_rounded() {
    for (const bool adds : {false, true})
        expect_rows(kFlatRows, 1, {{"out", DType::BF16, kFlatColumns}, {"x", DType::F32, kFlatColumns}},
                    [&](Backend& b, const auto& x, const auto& on, const Places& places) {
                        b.add_rounded(flat(x[0]), adds, flat(x[1]), flat_ranges(places), 11, on(controls()));
                    });
}

/// A row is a chunk.
void run_square_sums(int64_t chunk, int64_t chunks_per_block) {
    const int64_t chunks = (int64_t{1} << 32) / chunk + 64;
    for (const DType dtype : kActivationTypes)
        expect_rows(chunks, chunks_per_block, {{"sums", DType::F64, 1, Fill::Nothing}, {"gradients", dtype, chunk}},
                    [&](Backend& b, const auto& x, auto&, auto&) { b.square_sums(flat(x[0]), flat(x[1]), chunk); });
}

}  // namespace

std::vector<OffsetCase> offset_cases_of_elements() {
    constexpr int64_t kCount = kRows * kColumns, kFlatCount = kFlatRows * kFlatColumns;
    return {
        {"Gelu", {{"gelu_kernel", kCount}}, [] { run_activation(&Backend::gelu_forward); }},
        {"GeluBackward", {{"gelu_backward_kernel", kCount}}, [] { run_activation_backward(&Backend::gelu_backward); }},
        {"GeluExact", {{"gelu_exact_kernel", kCount}}, [] { run_activation(&Backend::gelu_exact_forward); }},
        {"GeluExactBackward",
         {{"gelu_exact_backward_kernel", kCount}},
         [] { run_activation_backward(&Backend::gelu_exact_backward); }},
        {"Swiglu", {{"swiglu_kernel", 2 * kCount}}, [] { run_swiglu(false); }},
        {"SwigluBackward", {{"swiglu_backward_kernel", 2 * kCount}}, [] { run_swiglu(true); }},
        {"Convert", {{"convert_kernel", kCount}}, run_convert},
        {"Add", {{"add_kernel", kCount}}, run_add},
        {"Nf4", {{"dequantize_nf4_kernel", ((1 << 18) + 64) * kNf4Block * kNf4NestedBlock}}, run_nf4},
        {"Update", {{"update_kernel", kFlatCount}}, run_updates},
        {"UpdateFormats", {{"update_formats_kernel", kFlatCount}}, run_update_formats},
        {"AddRounded", {{"add_rounded_kernel", kFlatCount}}, run_add_rounded},
        {"SquaresByWarp",
         {{"squares_by_warp_kernel", (int64_t{1} << 32) + 64 * 4096}},
         [] { run_square_sums(4096, 8); }},
        {"SquaresByBlock",
         {{"squares_by_block_kernel", (int64_t{1} << 32) + 64 * 65536}},
         [] { run_square_sums(65536, 1); }},
    };
}

}  // namespace llmc
