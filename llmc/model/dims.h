// The legend: one capital letter (or two) per dimension, everywhere in the code, in comments and in messages.
//
//   B     sequences in a micro-batch            T     tokens in a sequence          N = B*T tokens in a micro-batch
//   L     transformer layers                    C     channels of the residual stream
//   NH    query heads                           NKV   key/value heads, NH % NKV == 0 (grouped-query attention)
//   HD    channels of one head                  QKV   (NH + 2*NKV)*HD, columns of the fused query/key/value projection
//   F     hidden channels of the MLP            V     vocabulary; Vp = V rounded up to kVocabularyMultiple
//   maxT  longest sequence the model can take   I, X  bytes of one layer's internals, of one residual-stream tensor
//
// Shapes are written (rows, columns), row-major. Weights are stored (out, in).
#pragma once

#include <cstdint>

namespace llmc {

/// The vocabulary is padded to a multiple of this, so that GEMMs see even sizes. Padding rows are zero and stay zero.
constexpr int64_t kVocabularyMultiple = 64;

}  // namespace llmc
