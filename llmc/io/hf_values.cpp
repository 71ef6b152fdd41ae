#include "llmc/io/hf_values.h"

#include <algorithm>

namespace llmc {

void transpose(const float* x, int64_t rows, int64_t cols, float* out) {
    constexpr int64_t kTile = 32;
    for (int64_t r0 = 0; r0 < rows; r0 += kTile) {
        for (int64_t c0 = 0; c0 < cols; c0 += kTile) {
            for (int64_t c = c0; c < std::min(cols, c0 + kTile); ++c) {
                for (int64_t r = r0; r < std::min(rows, r0 + kTile); ++r) out[c * rows + r] = x[r * cols + c];
            }
        }
    }
}

std::span<const float> HfValues::of(const HfPart& part) {
    if (part.parameter != parameter_) values_ = weights_.values(parameter_ = part.parameter);
    const int64_t cols = weights_.model().parameters[static_cast<size_t>(part.parameter)].cols;
    return {values_.data() + part.first_row * cols, static_cast<size_t>(part.rows * cols)};
}

std::span<const float> HfValues::as_stored(const HfPart& part) {
    const std::span<const float> values = of(part);
    if (!part.transposed) return values;
    transposed_.resize(values.size());
    transpose(values.data(), part.rows, static_cast<int64_t>(values.size()) / part.rows, transposed_.data());
    return transposed_;
}

}  // namespace llmc
