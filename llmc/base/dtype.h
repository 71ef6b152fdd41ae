// Element types of tensors, and bfloat16 on the host.
#pragma once

#include <bit>
#include <cstdint>
#include <string_view>

namespace llmc {

enum class DType : uint8_t { F32, BF16, F16, F64, I32, I64, U16, U8 };

/// Bytes of one element.
constexpr int64_t size_of(DType dtype) {
    switch (dtype) {
        case DType::F64:
        case DType::I64: return 8;
        case DType::F32:
        case DType::I32: return 4;
        case DType::BF16:
        case DType::F16:
        case DType::U16: return 2;
        case DType::U8: return 1;
    }
    return 0;
}

/// The name used in options, file headers and messages: "fp32", "bf16", ...
constexpr std::string_view name_of(DType dtype) {
    switch (dtype) {
        case DType::F32: return "fp32";
        case DType::BF16: return "bf16";
        case DType::F16: return "fp16";
        case DType::F64: return "fp64";
        case DType::I32: return "int32";
        case DType::I64: return "int64";
        case DType::U16: return "uint16";
        case DType::U8: return "uint8";
    }
    return "?";
}

/// The upper half of an IEEE fp32: 8 exponent bits, 7 mantissa bits. Plain bits, so that loops over it vectorise.
struct bf16 {
    uint16_t bits;
};

/// Exact.
inline float to_float(bf16 value) { return std::bit_cast<float>(static_cast<uint32_t>(value.bits) << 16); }
inline float to_float(float value) { return value; }

/// Round to nearest, ties to even. A NaN stays a NaN (made quiet); overflow rounds to infinity.
inline bf16 to_bf16(float value) {
    const uint32_t bits = std::bit_cast<uint32_t>(value);
    const uint32_t rounded = bits + 0x7fffu + ((bits >> 16) & 1u);
    const bool is_nan = (bits & 0x7fffffffu) > 0x7f800000u;
    return {static_cast<uint16_t>((is_nan ? (bits | 0x00400000u) : rounded) >> 16)};
}

/// An IEEE half, 5 exponent bits and 10 mantissa bits, from its bits. Exact.
inline float fp16_to_float(uint16_t bits) {
    const uint32_t sign = static_cast<uint32_t>(bits & 0x8000u) << 16;
    const uint32_t exponent = (bits >> 10) & 31u, mantissa = bits & 0x3ffu;
    if (exponent == 0) {  // Zero or subnormal: a multiple of 2^-24.
        const float magnitude = static_cast<float>(mantissa) * 0x1.0p-24f;
        return sign != 0 ? -magnitude : magnitude;
    }
    const uint32_t widened = exponent == 31 ? 255u : exponent + (127u - 15u);
    return std::bit_cast<float>(sign | (widened << 23) | (mantissa << 13));
}

template <typename T>
T from_float(float value);
template <>
inline float from_float<float>(float value) {
    return value;
}
template <>
inline bf16 from_float<bf16>(float value) {
    return to_bf16(value);
}

template <typename T>
constexpr DType dtype_of();
template <>
constexpr DType dtype_of<float>() {
    return DType::F32;
}
template <>
constexpr DType dtype_of<double>() {
    return DType::F64;
}
template <>
constexpr DType dtype_of<bf16>() {
    return DType::BF16;
}
template <>
constexpr DType dtype_of<int32_t>() {
    return DType::I32;
}

}  // namespace llmc
