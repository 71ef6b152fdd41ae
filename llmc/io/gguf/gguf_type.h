// Element types of GGUF files, and how fp32 becomes one of them. Q8_0 holds blocks of 32 elements of a row: a scale as
// an IEEE half, d = max|x| / 127, then 32 signed bytes, x / d rounded to the nearest, halves away from zero.
// https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, and quantize_row_q8_0_ref in src/ggml-quants.c
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace llmc {

/// The values are those of ggml_type.
enum class GgufType : uint32_t { F32 = 0, F16 = 1, Q8_0 = 8, BF16 = 30 };

struct GgufTypeFacts {
    GgufType type;
    std::string_view name;   ///< As --gguf-type takes it.
    uint32_t file_type;      ///< general.file_type of a file whose matrices have it.
    int64_t block_elements;  ///< Columns of a row must be a multiple of this.
    int64_t block_bytes;
    float limit;  ///< Values of this magnitude, and above, cannot be stored.
};

const GgufTypeFacts& facts_of(GgufType type);
/// The type of that name, which must be one.
GgufType gguf_type(std::string_view name);

/// Bytes of that many elements, whole blocks.
int64_t bytes_of(GgufType type, int64_t elements);

/// Encodes whole blocks into bytes_of(type, values.size()) bytes.
void encode(GgufType type, std::span<const float> values, std::byte* out);

}  // namespace llmc
