// NF4 (Dettmers et al. 2023, "QLoRA"): weights in 4 bits, each the index of one of 16 quantiles of the normal
// distribution, times the largest magnitude in its block of 64. "Double": those magnitudes in turn are 8-bit codes of
// signed_map() (dynamic_map.h) in blocks of 256, after their mean is taken off. Everything to the byte as bitsandbytes
// makes it on the CPU. Byte k holds elements 2k, in its upper half, and 2k + 1; a lone last one is followed by a zero.
#pragma once

#include "llmc/base/dtype.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace llmc {

/// Elements that share a largest magnitude, and magnitudes that share one in turn; last blocks may be short.
constexpr int64_t kNf4Block = 64;
constexpr int64_t kNf4NestedBlock = 256;
constexpr uint8_t kNf4Zero = 7;  ///< The code of 0.

constexpr std::array<float, 16> kNf4Values = {-1.0f,
                                              -0.6961928009986877f,
                                              -0.5250730514526367f,
                                              -0.39491748809814453f,
                                              -0.28444138169288635f,
                                              -0.18477343022823334f,
                                              -0.09105003625154495f,
                                              0.0f,
                                              0.07958029955625534f,
                                              0.16093020141124725f,
                                              0.24611230194568634f,
                                              0.33791524171829224f,
                                              0.44070982933044434f,
                                              0.5626170039176941f,
                                              0.7229568362236023f,
                                              1.0f};

/// Bytes of codes, blocks, and blocks of blocks of so many elements.
constexpr int64_t nf4_bytes(int64_t count) { return (count + 1) / 2; }
constexpr int64_t nf4_blocks(int64_t count) { return (count + kNf4Block - 1) / kNf4Block; }
constexpr int64_t nf4_nested_blocks(int64_t count) {
    return (nf4_blocks(count) + kNf4NestedBlock - 1) / kNf4NestedBlock;
}

/// A tensor in NF4. Of a double one, `absmax` is empty and the last three are there.
struct Nf4Tensor {
    int64_t count = 0;
    std::vector<uint8_t> codes;         ///< nf4_bytes(count)
    std::vector<float> absmax;          ///< nf4_blocks(count)
    std::vector<uint8_t> absmax_codes;  ///< nf4_blocks(count)
    std::vector<float> nested_absmax;   ///< nf4_nested_blocks(count)
    float offset = 0;                   ///< Mean of the largest magnitudes.
};

/// Quantises finite values, on all threads.
Nf4Tensor quantise_nf4(std::span<const float> values, bool is_double);

/// A tensor in NF4 as bytes in one piece: where its parts begin, at multiples of kNf4Alignment.
constexpr int64_t kNf4Alignment = 256;
struct Nf4Layout {
    int64_t codes = 0, absmax = 0, nested_absmax = 0, offset = 0;
    int64_t bytes = 0;
};
Nf4Layout nf4_layout(int64_t count, bool is_double);
/// out (nf4_layout().bytes) = the tensor; gaps are zero.
void pack_nf4(const Nf4Tensor& tensor, std::span<std::byte> out);
/// The tensor that pack_nf4() made these bytes of.
Nf4Tensor unpack_nf4(std::span<const std::byte> bytes, int64_t count, bool is_double);

/// The largest magnitude of a block of a double tensor: signed_map()[code] * nested_absmax + offset in fp32, where the
/// product is rounded before the sum.
float nf4_absmax(uint8_t code, float nested_absmax, float offset);
/// Those of all blocks.
std::vector<float> nf4_absmax(std::span<const uint8_t> absmax_codes, std::span<const float> nested_absmax,
                              float offset);

/// Up to kNf4Block elements of one block: out[i] = kNf4Values[code] * absmax, rounded once to out's type.
template <typename Out>
void dequantise_nf4_block(Out* out, const uint8_t* codes, float absmax, int64_t count);

/// out (n) = the values of the codes, on all threads.
void dequantise_nf4(std::span<float> out, std::span<const uint8_t> codes, std::span<const float> absmax);
/// The values of a tensor.
std::vector<float> dequantise_nf4(const Nf4Tensor& tensor);

}  // namespace llmc
