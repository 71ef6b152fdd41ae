#include "llmc/plan/token_blocks.h"

namespace llmc {
namespace {

constexpr TokensByKind kTable[] = {
    {"cpu", 2048, 0},
    {"sm_80", 8192, 200'000'000'000},
    {"sm_86", 4096, 100'000'000'000},
    {"sm_89", 8192, 200'000'000'000},
    {"sm_90", 8192, 450'000'000'000},
    {"sm_100", 8192, 1'000'000'000'000},
    {"sm_120", 8192, 200'000'000'000},
};

}  // namespace

std::span<const TokensByKind> token_blocks_table() { return kTable; }

int64_t layer_work(const Model& model) {
    int64_t work = 0;
    for (const OpRow& row : model.block) {
        if (facts_of(row.kind, Pass::Forward).products == 0 || row.weight == kNone) continue;
        work += model.parameters[static_cast<size_t>(model.parameter_index(0, row.weight))].count();
    }
    return work;
}

int64_t default_block_tokens(const Model& model, const BatchShape& shape, std::string_view kind) {
    return tokens_by_kind(kTable, kind, layer_work(model), kBlockMultiple, shape.N());
}

}  // namespace llmc
