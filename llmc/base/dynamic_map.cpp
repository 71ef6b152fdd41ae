#include "llmc/base/dynamic_map.h"

#include <cmath>

namespace llmc {

const DynamicMap& signed_map() {
    static const DynamicMap map(/*is_signed=*/true);
    return map;
}

const DynamicMap& unsigned_map() {
    static const DynamicMap map(/*is_signed=*/false);
    return map;
}

float quantise_block(uint8_t* codes, const float* x, int64_t count, const DynamicMap& map) {
    float largest = 0;
#pragma omp simd reduction(max : largest)
    for (int64_t i = 0; i < count; ++i) largest = std::max(largest, std::fabs(x[i]));
    const float divisor = largest > 0 ? largest : 1.0f;
    for (int64_t i = 0; i < count; ++i) codes[i] = map.nearest(x[i] / divisor);
    return largest;
}

void dequantise_block(float* x, const uint8_t* codes, float largest, int64_t count, const DynamicMap& map) {
    for (int64_t i = 0; i < count; ++i) x[i] = map[codes[i]] * largest;
}

}  // namespace llmc
