#include "llmc/io/gguf/gguf_type.h"

#include "llmc/base/check.h"
#include "llmc/base/dtype.h"
#include "llmc/base/fp16.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>

namespace llmc {
namespace {

constexpr int64_t kBlock = 32;      ///< Elements of a Q8_0 block.
constexpr float kMostLevels = 127;  ///< Of its signed bytes.
constexpr float kHalfOverflow = 65520, kUnlimited = std::numeric_limits<float>::infinity();
constexpr float kBf16Overflow = 0x1.ffp127f;  // Halfway from the largest bf16 to the next power of two.

constexpr std::array kTypes = {
    GgufTypeFacts{GgufType::F32, "f32", 0, 1, 4, kUnlimited},
    GgufTypeFacts{GgufType::F16, "f16", 1, 1, 2, kHalfOverflow},
    GgufTypeFacts{GgufType::BF16, "bf16", 32, 1, 2, kBf16Overflow},
    GgufTypeFacts{GgufType::Q8_0, "q8_0", 7, kBlock, 2 + kBlock, kHalfOverflow* kMostLevels},
};

void put_half(float value, std::byte* out) {
    const uint16_t bits = float_to_fp16(value);
    std::memcpy(out, &bits, sizeof bits);
}

void encode_q8_block(const float* x, std::byte* out) {
    float largest = 0;
    for (int64_t i = 0; i < kBlock; ++i) largest = std::max(largest, std::fabs(x[i]));
    const float scale = largest / kMostLevels;
    const float inverse = scale != 0 ? 1 / scale : 0;  // Of the scale as computed, not as stored: so does ggml.
    put_half(scale, out);
    for (int64_t i = 0; i < kBlock; ++i) {
        const float level = std::clamp(std::round(x[i] * inverse), -kMostLevels, kMostLevels);
        out[2 + i] = static_cast<std::byte>(static_cast<int8_t>(level));
    }
}

}  // namespace

const GgufTypeFacts& facts_of(GgufType type) {
    return *std::find_if(kTypes.begin(), kTypes.end(), [&](const GgufTypeFacts& row) { return row.type == type; });
}

GgufType gguf_type(std::string_view name) {
    const auto found =
        std::find_if(kTypes.begin(), kTypes.end(), [&](const GgufTypeFacts& row) { return row.name == name; });
    CHECK(found != kTypes.end(), name);
    return found->type;
}

int64_t bytes_of(GgufType type, int64_t elements) {
    const GgufTypeFacts& facts = facts_of(type);
    CHECK(elements % facts.block_elements == 0, facts.name, elements);
    return elements / facts.block_elements * facts.block_bytes;
}

void encode(GgufType type, std::span<const float> values, std::byte* out) {
    const GgufTypeFacts& facts = facts_of(type);
    const int64_t blocks = bytes_of(type, static_cast<int64_t>(values.size())) / facts.block_bytes;
    if (type == GgufType::F32) {
        std::memcpy(out, values.data(), values.size_bytes());
        return;
    }
    for (int64_t block = 0; block < blocks; ++block, out += facts.block_bytes) {
        const float* x = values.data() + block * facts.block_elements;
        switch (type) {
            case GgufType::F32: break;
            case GgufType::F16: put_half(*x, out); break;
            case GgufType::BF16: {
                const bf16 rounded = to_bf16(*x);
                std::memcpy(out, &rounded, sizeof rounded);
                break;
            }
            case GgufType::Q8_0: encode_q8_block(x, out); break;
        }
    }
}

}  // namespace llmc
