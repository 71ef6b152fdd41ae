// How many tokens the classifier takes at a time. The number decides the order of sums, so the last bits: it comes from
// the model, the shape and a committed table per kind of device, and from nothing else.
#pragma once

#include "llmc/model/model.h"

#include <span>
#include <string>
#include <string_view>

namespace llmc {

/// A row of the table: how many tokens are taken at a time on this kind of device.
struct LogitsChunkRow {
    std::string_view kind;   ///< DeviceInfo::kind: "sm_90", "cpu".
    int64_t tokens = 0;      ///< A multiple of 64.
    int64_t least_work = 0;  ///< More tokens where the classifier is small: as many as make this, see logits_work().
};

/// The smallest chunks whose classifier takes at most 2 % longer than one chunk of all tokens; dev/bench/chunks.sh
/// prints what they cost, and measures the rows of the processor it runs on.
std::span<const LogitsChunkRow> logits_chunk_table();

/// What a token costs in the classifier, in multiply-adds of its products; its passes over memory are as much again as
/// 256 channels.
int64_t logits_work(const ModelConfig& config);

/// min(N, the row's tokens, or more by its least work: launches must not weigh). A kind that is not in the table takes
/// the rows of the nearest one: a GPU the rows of the newest architecture that is not newer than it (else the oldest),
/// anything else the CPU's.
int64_t default_logits_chunk(const Model& model, const BatchShape& shape, std::string_view kind);

}  // namespace llmc
