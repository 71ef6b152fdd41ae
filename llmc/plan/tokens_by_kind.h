// Committed tables of how many tokens an operation has at a time, by kind of device. Such a number decides the order of
// sums, so the last bits: it comes from model, shape and the table, and from nothing else.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace llmc {

/// A row of such a table.
struct TokensByKind {
    std::string_view kind;   ///< DeviceInfo::kind: "sm_90", "cpu".
    int64_t tokens = 0;      ///< A multiple of 64.
    int64_t least_work = 0;  ///< More tokens where the operations are small: as many as make this many multiply-adds.
};

/// min(N, the row's tokens, or more by its least work at `work` a token: launches must not weigh), more in multiples of
/// `multiple`. A kind that is not in the table takes the rows of the nearest one: a GPU the rows of the newest
/// architecture that is not newer than it (else the oldest), anything else the CPU's.
int64_t tokens_by_kind(std::span<const TokensByKind> table, std::string_view kind, int64_t work, int64_t multiple,
                       int64_t N);

}  // namespace llmc
