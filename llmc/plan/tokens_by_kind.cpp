#include "llmc/plan/tokens_by_kind.h"

#include "llmc/base/check.h"

#include <algorithm>
#include <charconv>

namespace llmc {
namespace {

/// 90 of "sm_90"; 0 of what is no GPU.
int architecture_of(std::string_view kind) {
    int number = 0;
    if (kind.starts_with("sm_")) std::from_chars(kind.data() + 3, kind.data() + kind.size(), number);
    return number;
}

const TokensByKind& nearest(std::span<const TokensByKind> table, std::string_view kind) {
    const int wanted = architecture_of(kind);
    const TokensByKind* nearest = nullptr;
    for (const TokensByKind& row : table) {
        const int architecture = architecture_of(row.kind);
        if ((architecture == 0) != (wanted == 0)) continue;
        if (nearest == nullptr || architecture <= wanted) nearest = &row;
    }
    CHECK(nearest != nullptr, kind);
    return *nearest;
}

}  // namespace

int64_t tokens_by_kind(std::span<const TokensByKind> table, std::string_view kind, int64_t work, int64_t multiple,
                       int64_t N) {
    const TokensByKind& row = nearest(table, kind);
    const int64_t for_work = (row.least_work + multiple * work - 1) / (multiple * work) * multiple;
    return std::min(N, std::max(row.tokens, for_work));
}

}  // namespace llmc
