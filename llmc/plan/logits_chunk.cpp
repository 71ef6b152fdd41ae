#include "llmc/plan/logits_chunk.h"

namespace llmc {
namespace {

constexpr TokensByKind kTable[] = {
    {"cpu", 1024, 0},
    {"sm_80", 2048, 50'000'000'000},
    {"sm_86", 2048, 50'000'000'000},
    {"sm_89", 4096, 100'000'000'000},
    {"sm_90", 4096, 100'000'000'000},
    {"sm_100", 4096, 100'000'000'000},
    {"sm_120", 2048, 50'000'000'000},
};

}  // namespace

std::span<const TokensByKind> logits_chunk_table() { return kTable; }

int64_t logits_work(const ModelConfig& config) { return config.Vp() * (config.C + 256); }

int64_t default_logits_chunk(const Model& model, const BatchShape& shape, std::string_view kind) {
    return tokens_by_kind(kTable, kind, logits_work(model.config), /*multiple=*/64, shape.N());
}

}  // namespace llmc
