// How many tokens the classifier takes at a time. The number decides the order of sums, so the last bits: it comes from
// the model, the shape and a committed table per kind of device, and from nothing else.
#pragma once

#include "llmc/model/model.h"
#include "llmc/plan/tokens_by_kind.h"

#include <span>
#include <string>
#include <string_view>

namespace llmc {

/// The smallest chunks whose classifier takes at most 2 % longer than one chunk of all tokens; dev/bench/chunks.sh
/// prints what they cost, and measures the rows of the processor it runs on.
std::span<const TokensByKind> logits_chunk_table();

/// What a token costs in the classifier, in multiply-adds of its products; its passes over memory are as much again as
/// 256 channels.
int64_t logits_work(const ModelConfig& config);

/// By the table's row for this kind of device, its least work in units of logits_work().
int64_t default_logits_chunk(const Model& model, const BatchShape& shape, std::string_view kind);

}  // namespace llmc
