// fp32 to IEEE half; the way back, fp16_to_float(), is in dtype.h with the other element types. Files alone need this.
#pragma once

#include <bit>
#include <cstdint>

namespace llmc {

/// The bits of the nearest IEEE half, ties to even. Beyond 65504 it is infinite; a NaN stays one.
inline uint16_t float_to_fp16(float value) {
    constexpr uint32_t kInfinity = 0x7f800000u, kOverflow = 0x477ff000u, kNormal = 0x38800000u;  // 65520, 2^-14
    const uint32_t bits = std::bit_cast<uint32_t>(value), magnitude = bits & 0x7fffffffu;
    uint32_t half = 0x7c00u;
    if (magnitude > kInfinity) {
        half = 0x7e00u;
    } else if (magnitude < kNormal) {  // Beside 0.5 the last place of fp32 is 2^-24, that of a subnormal half.
        half = std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) + 0.5f) - std::bit_cast<uint32_t>(0.5f);
    } else if (magnitude < kOverflow) {
        half = (magnitude + 0xfffu + ((magnitude >> 13) & 1u) - ((127u - 15u) << 23)) >> 13;
    }
    return static_cast<uint16_t>((bits >> 16 & 0x8000u) | half);
}

}  // namespace llmc
