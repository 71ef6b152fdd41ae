#include "llmc/plan/logits_chunk.h"

#include <algorithm>
#include <charconv>

namespace llmc {
namespace {

constexpr LogitsChunkRow kTable[] = {
    {"cpu", 1024, 0},
    {"sm_80", 2048, 50'000'000'000},
    {"sm_86", 2048, 50'000'000'000},
    {"sm_89", 4096, 100'000'000'000},
    {"sm_90", 4096, 100'000'000'000},
    {"sm_100", 4096, 100'000'000'000},
    {"sm_120", 2048, 50'000'000'000},
};

/// 90 of "sm_90"; 0 of what is no GPU.
int architecture_of(std::string_view kind) {
    int number = 0;
    if (kind.starts_with("sm_")) std::from_chars(kind.data() + 3, kind.data() + kind.size(), number);
    return number;
}

std::string_view nearest_kind(std::string_view kind) {
    const int wanted = architecture_of(kind);
    std::string_view nearest;
    for (const LogitsChunkRow& row : kTable) {
        const int architecture = architecture_of(row.kind);
        if ((architecture == 0) != (wanted == 0)) continue;
        if (nearest.empty() || architecture <= wanted) nearest = row.kind;
    }
    return nearest;
}

}  // namespace

std::span<const LogitsChunkRow> logits_chunk_table() { return kTable; }

int64_t logits_work(const ModelConfig& config) { return config.Vp() * (config.C + 256); }

int64_t default_logits_chunk(const Model& model, const BatchShape& shape, std::string_view kind) {
    const std::string_view known = nearest_kind(kind);
    const LogitsChunkRow& row = *std::ranges::find(kTable, known, &LogitsChunkRow::kind);
    const int64_t work = logits_work(model.config);
    const int64_t for_work = (row.least_work + 64 * work - 1) / (64 * work) * 64;
    return std::min(shape.N(), std::max(row.tokens, for_work));
}

}  // namespace llmc
