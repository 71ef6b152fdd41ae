#include "llmc/model/op.h"

namespace llmc {
namespace {

// Attention's backward is listed with the five products that the formulas have (scores again, dP, dV, dQ, dK); a kernel
// may run more of them (OpCall::attention_backward_products).
constexpr OpFacts kFacts[kNumOpKinds] = {
    {.kind = OpKind::Embedding,
     .name = "embedding",
     .passes = {{.reads_parameters = true, .out = 2}, {.writes_gradients = true, .out = 3}}},
    {.kind = OpKind::LayerNorm,
     .name = "layernorm",
     .backward_reads = {.in = true, .stats = true},
     .passes = {{.reads_parameters = true, .in = 1, .out = 1},
                {.reads_parameters = true, .writes_gradients = true, .in = 3, .out = 1}}},
    {.kind = OpKind::RmsNorm,
     .name = "rmsnorm",
     .backward_reads = {.in = true, .stats = true},
     .passes = {{.reads_parameters = true, .in = 1, .out = 1},
                {.reads_parameters = true, .writes_gradients = true, .in = 3, .out = 1}}},
    {.kind = OpKind::HeadNorm,
     .name = "headnorm",
     .backward_reads = {.in = true, .stats = true},
     .d_in_replaces_d_out = true,
     .passes = {{.reads_parameters = true, .in = 1, .out = 1},
                {.reads_parameters = true, .writes_gradients = true, .in = 2, .out = 1}}},
    {.kind = OpKind::Matmul,
     .name = "matmul",
     .backward_reads = {.in = true},
     .splits_backward = true,
     .passes = {{.reads_parameters = true, .products = 1, .in = 1, .residual = 1, .out = 1, .weight = 1},
                {},
                {.writes_gradients = true, .products = 1, .in = 1, .out = 1, .weight_sums = 2},
                {.reads_parameters = true, .products = 1, .in = 1, .out = 1, .weight = 1}}},
    {.kind = OpKind::Attention,
     .name = "attention",
     .backward_reads = {.in = true, .out = true, .stats = true},
     .d_in_replaces_in = true,
     .passes = {{.products = 2, .in = 1, .out = 1}, {.products = 5, .in = 2, .out = 2}}},
    {.kind = OpKind::Gelu,
     .name = "gelu",
     .backward_reads = {.in = true},
     .d_in_replaces_d_out = true,
     .passes = {{.in = 1, .out = 1}, {.in = 2, .out = 1}}},
    {.kind = OpKind::GeluExact,
     .name = "exact gelu",
     .backward_reads = {.in = true},
     .d_in_replaces_d_out = true,
     .passes = {{.in = 1, .out = 1}, {.in = 2, .out = 1}}},
    {.kind = OpKind::Swiglu,
     .name = "swiglu",
     .backward_reads = {.in = true},
     .passes = {{.in = 1, .out = 1}, {.in = 2, .out = 1}}},
    {.kind = OpKind::ScoredRows, .name = "scored rows", .passes = {{.in = 1, .out = 1}, {.in = 1, .out = 1}}},
    {.kind = OpKind::Classifier,
     .name = "classifier",
     .splits_backward = true,
     .passes = {{.reads_parameters = true, .products = 1, .in = 1, .out = 1, .weight = 1},
                {},
                {.writes_gradients = true, .products = 1, .in = 1, .out = 1, .weight_sums = 2},
                {.reads_parameters = true, .products = 1, .in = 1, .out = 1, .weight = 1}}},
    {.kind = OpKind::CrossEntropy, .name = "cross-entropy", .passes = {{.in = 1}, {.in = 3}}},
    {.kind = OpKind::LossSum, .name = "sum of losses", .passes = {{.in = 1}}},
    {.kind = OpKind::AdapterDown,
     .name = "adapter's A",
     .backward_reads = {.in = true},
     .splits_backward = true,
     .passes = {{.reads_parameters = true, .products = 1, .in = 1, .out = 1, .weight = 1},
                {},
                {.writes_gradients = true, .products = 1, .in = 1, .out = 1, .weight_sums = 2},
                {.reads_parameters = true, .products = 1, .in = 2, .out = 1, .weight = 1}}},
    {.kind = OpKind::AdapterUp,
     .name = "adapter's B",
     .backward_reads = {.in = true},
     .splits_backward = true,
     .out_replaces_residual = true,
     .passes = {{.reads_parameters = true, .products = 1, .in = 1, .residual = 1, .out = 1, .weight = 1},
                {},
                {.writes_gradients = true, .products = 1, .in = 1, .out = 1, .weight_sums = 2},
                {.reads_parameters = true, .products = 1, .in = 1, .out = 1, .weight = 1}}},
    {.kind = OpKind::Dropout, .name = "dropout", .passes = {{.in = 1, .residual = 1, .out = 1}, {.in = 1, .out = 1}}},
};

constexpr bool in_order() {
    for (int i = 0; i < kNumOpKinds; ++i) {
        if (kFacts[i].kind != static_cast<OpKind>(i)) return false;
    }
    return true;
}
static_assert(in_order(), "the table is indexed by the kind");

}  // namespace

const OpFacts& facts_of(OpKind kind) { return kFacts[static_cast<size_t>(kind)]; }

}  // namespace llmc
