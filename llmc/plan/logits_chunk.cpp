#include "llmc/plan/logits_chunk.h"

#include <algorithm>
#include <charconv>

namespace llmc {
namespace {

constexpr int64_t kAnyWidth = 1 << 30;
constexpr LogitsChunkRow kTable[] = {
    {"cpu", kAnyWidth, 1024},   {"sm_80", kAnyWidth, 2048},  {"sm_86", kAnyWidth, 2048},  {"sm_89", kAnyWidth, 2048},
    {"sm_90", kAnyWidth, 4096}, {"sm_100", kAnyWidth, 4096}, {"sm_120", kAnyWidth, 2048},
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

int64_t default_logits_chunk(const Model& model, const BatchShape& shape, std::string_view kind) {
    const std::string_view known = nearest_kind(kind);
    int64_t tokens = 0;
    for (const LogitsChunkRow& row : kTable) {
        if (row.kind != known) continue;
        tokens = row.tokens;
        if (model.config.C <= row.channels) break;
    }
    return std::min(shape.N(), tokens);
}

}  // namespace llmc
