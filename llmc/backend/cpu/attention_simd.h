// Vectors for the attention kernels: as wide as the instruction set of the build, written with the compiler's vector
// extensions, so that one source serves SSE, AVX2, AVX-512 and others. Two kinds of matrix product are built on them:
// Fp32Product, and, where the processor has bf16 dot products, Bf16Product. Read next: attention_tile.h.
#pragma once

#include "llmc/base/dtype.h"

#include <cstdint>
#include <utility>

#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif

namespace llmc::cpu {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
constexpr int kMaxVectors = 4;  ///< Vectors of a row of the register block; 32 registers hold 6 x 4 and their operands.
#elif defined(__AVX2__)
constexpr int kLanes = 8;
constexpr int kMaxVectors = 2;  ///< 16 registers hold 6 x 2.
#elif defined(__aarch64__)
constexpr int kLanes = 4;
constexpr int kMaxVectors = 4;  ///< 32 registers hold 6 x 4.
#else
constexpr int kLanes = 4;
constexpr int kMaxVectors = 2;
#endif
constexpr int kMicroRows = 6;

typedef float Vec __attribute__((vector_size(kLanes * 4)));
typedef uint32_t UintVec __attribute__((vector_size(kLanes * 4)));
typedef uint16_t HalfVec __attribute__((vector_size(kLanes * 2)));

typedef float LooseVec __attribute__((vector_size(kLanes * 4), aligned(2), may_alias));  ///< Also of bf16 numbers.
typedef float LooseFloat __attribute__((may_alias));
typedef uint16_t LooseHalfVec __attribute__((vector_size(kLanes * 2), aligned(2), may_alias));
/// 32 bits of a packed operand: one fp32 number, or two bf16 numbers that are neighbours in the summed dimension.
typedef uint32_t Unit __attribute__((may_alias));

inline Vec load(const void* from) { return *static_cast<const LooseVec*>(from); }
inline void store(void* to, Vec value) { *static_cast<LooseVec*>(to) = value; }
inline Vec broadcast(float value) { return value - Vec{}; }

inline Vec load_elements(const float* from) { return load(from); }
inline Vec load_elements(const bf16* from) {
    const HalfVec bits = *reinterpret_cast<const LooseHalfVec*>(from);
    return reinterpret_cast<Vec>(__builtin_convertvector(bits, UintVec) << 16);
}

/// The bits of to_bf16() in the low halves; NaN stays NaN.
inline UintVec bf16_bits(Vec value) {
    const UintVec bits = reinterpret_cast<UintVec>(value);
    const UintVec rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    return value == value ? rounded : (bits >> 16) | 0x40u;
}

inline void store_elements(float* to, Vec value) { store(to, value); }
inline void store_elements(bf16* to, Vec value) {
#if defined(__AVX512BF16__)
    const auto rounded = (__m256i)_mm512_cvtneps_pbh((__m512)value);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), rounded);
#else
    *reinterpret_cast<LooseHalfVec*>(to) = __builtin_convertvector(bf16_bits(value), HalfVec);
#endif
}

inline Vec maximum(Vec a, Vec b) { return a > b ? a : b; }

/// Lanes `step` apart change places.
template <int step, int... lane>
inline Vec swap_lanes(Vec v, std::integer_sequence<int, lane...>) {
    return __builtin_shufflevector(v, v, (lane ^ step)...);
}
template <int step = kLanes / 2>
inline float largest_of(Vec v) {
    v = maximum(swap_lanes<step>(v, std::make_integer_sequence<int, kLanes>()), v);
    if constexpr (step > 1) return largest_of<step / 2>(v);
    return v[0];
}
template <int step = kLanes / 2>
inline float sum_of(Vec v) {
    v += swap_lanes<step>(v, std::make_integer_sequence<int, kLanes>());
    if constexpr (step > 1) return sum_of<step / 2>(v);
    return v[0];
}

/// e^x for x <= 0 (or a little above): 2^n 2^r, |r| <= 1/2 (Cephes' exp2f). 0 below e^-87; NaN stays NaN.
inline Vec exp_of_nonpositive(Vec x) {
    constexpr float kLog2E = 1.44269504088896341f;
    constexpr float kRounding = 0x1.8p23f;  // added, it leaves the nearest integer in the low bits
    const Vec shifted = x * kLog2E + kRounding;
    const Vec r = x * kLog2E - (shifted - kRounding);
    Vec p = 1.535336188319500e-4f * r + 1.339887440266574e-3f;
    p = p * r + 9.618437357674640e-3f;
    p = p * r + 5.550332471162809e-2f;
    p = p * r + 2.402264791363012e-1f;
    p = p * r + 6.931472028550421e-1f;
    p = p * r + 1.0f;
    const Vec result = reinterpret_cast<Vec>(reinterpret_cast<UintVec>(p) + (reinterpret_cast<UintVec>(shifted) << 23));
    return x < -87.0f ? Vec{} : result;
}

/// One step of a transpose: the two vectors exchange their off-diagonal blocks of `step` lanes.
template <int step, int... lane>
inline void exchange_lanes(Vec& a, Vec& b, std::integer_sequence<int, lane...>) {
    const Vec low = __builtin_shufflevector(a, b, ((lane & step) ? kLanes + lane - step : lane)...);
    b = __builtin_shufflevector(a, b, ((lane & step) ? kLanes + lane : lane + step)...);
    a = low;
}
/// Transposes kLanes vectors of kLanes 32-bit numbers.
template <int step = kLanes / 2>
inline void transpose_lanes(Vec (&rows)[kLanes]) {
#pragma GCC unroll 16
    for (int row = 0; row < kLanes; ++row)
        if (!(row & step)) exchange_lanes<step>(rows[row], rows[row + step], std::make_integer_sequence<int, kLanes>());
    if constexpr (step > 1) transpose_lanes<step / 2>(rows);
}

/// Products of fp32 operands, for activations of either type.
struct Fp32Product {
    using Element = float;
    static constexpr int kPerUnit = 1;  ///< Elements of a Unit.
    static Vec spread(const Unit* unit) { return broadcast(*reinterpret_cast<const LooseFloat*>(unit)); }
    static Vec multiply_add(Vec a, Vec b, Vec sum) { return a * b + sum; }
};

#if defined(__AVX512BF16__)
/// Two rows of numbers, rounded to bf16.
class RoundedPair {
  public:
    RoundedPair(Vec even, Vec odd) : rows_((Rows)_mm512_cvtne2ps_pbh((__m512)odd, (__m512)even)) {}
    /// Each row by itself.
    void store_rows(bf16* even, bf16* odd) const { store_rows(even, odd, Lanes()); }
    /// Units of the two rows.
    void store_units(void* to) const { store(to, units(Lanes())); }

  private:
    typedef uint16_t Rows __attribute__((vector_size(2 * sizeof(HalfVec))));
    using Lanes = std::make_integer_sequence<int, kLanes>;

    template <int... lane>
    void store_rows(bf16* even, bf16* odd, std::integer_sequence<int, lane...>) const {
        *reinterpret_cast<LooseHalfVec*>(even) = __builtin_shufflevector(rows_, rows_, lane...);
        *reinterpret_cast<LooseHalfVec*>(odd) = __builtin_shufflevector(rows_, rows_, (kLanes + lane)...);
    }
    template <int... lane>
    Vec units(std::integer_sequence<int, lane...>) const {
        return (Vec)__builtin_shufflevector(rows_, rows_, (lane / 2 + lane % 2 * kLanes)...,
                                            ((kLanes + lane) / 2 + lane % 2 * kLanes)...);
    }
    Rows rows_;  ///< The even row, then the odd one.
};

/// Products of bf16 operands with fp32 sums.
struct Bf16Product {
    using Element = bf16;
    using RowPair = RoundedPair;
    static constexpr int kPerUnit = 2;
    static Vec spread(const Unit* unit) { return reinterpret_cast<Vec>(UintVec{} + *unit); }
    static Vec multiply_add(Vec a, Vec b, Vec sum) {
        return (Vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
    }
};
#endif

/// How products of activations of type T are computed on this processor.
template <typename T>
struct ProductFor {
    using Type = Fp32Product;
};
#if defined(__AVX512BF16__)
template <>
struct ProductFor<bf16> {
    using Type = Bf16Product;
};
#endif

}  // namespace llmc::cpu
