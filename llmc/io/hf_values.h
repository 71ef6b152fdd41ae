// The values of a Hugging Face folder's tensors, from weights that are to be written to one.
#pragma once

#include "llmc/io/hf_names.h"
#include "llmc/io/weights.h"

#include <cstdint>
#include <span>
#include <vector>

namespace llmc {

/// out (cols, rows) = x (rows, cols) transposed, in tiles that stay in the cache.
void transpose(const float* x, int64_t rows, int64_t cols, float* out);

/// Part by part, best in the order of hf_parts(): a parameter is read once for all of its parts that follow each other.
class HfValues {
  public:
    explicit HfValues(const WeightSource& weights) : weights_(weights) {}
    /// (out, in). Valid until the next call.
    std::span<const float> of(const HfPart& part);
    /// As a plain folder stores it, which may be transposed. Valid until the next call.
    std::span<const float> as_stored(const HfPart& part);

  private:
    const WeightSource& weights_;
    int parameter_ = kNone;
    std::vector<float> values_, transposed_;
};

}  // namespace llmc
