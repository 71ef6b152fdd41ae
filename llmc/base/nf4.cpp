// Compiled so that no product is fused with the sum it enters: both round, as the formulas say.
#include "llmc/base/nf4.h"

#include "llmc/base/check.h"
#include "llmc/base/dynamic_map.h"
#include "llmc/base/units.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

namespace llmc {
namespace {

/// What the library divides by where a block has nothing larger; it also stores it for a short last block.
constexpr float kSmallest = 1e-38f;

/// The middles of neighbouring values, in fp32: a number above bound i has a code above i.
constexpr std::array<float, 15> kBounds = [] {
    std::array<float, 15> bounds = {};
    for (size_t i = 0; i < bounds.size(); ++i) bounds[i] = (kNf4Values[i] + kNf4Values[i + 1]) / 2;
    return bounds;
}();

/// The two values of every byte.
constexpr std::array<std::array<float, 2>, 256> kPairs = [] {
    std::array<std::array<float, 2>, 256> pairs = {};
    for (size_t byte = 0; byte < pairs.size(); ++byte) pairs[byte] = {kNf4Values[byte >> 4], kNf4Values[byte & 15]};
    return pairs;
}();

/// Codes of up to 64 numbers of [-1, 1]. Counting the bounds below has no branches, and vectors do it.
void pack_codes(uint8_t* bytes, const float (&x)[kNf4Block], int64_t count) {
    int32_t codes[kNf4Block] = {};
    for (const float bound : kBounds) {
#pragma omp simd
        for (int64_t i = 0; i < kNf4Block; ++i) codes[i] += x[i] > bound ? 1 : 0;
    }
    for (int64_t k = 0; k < nf4_bytes(count); ++k)
        bytes[k] = static_cast<uint8_t>(codes[2 * k] << 4 | codes[2 * k + 1]);
}

/// One block; returns its largest magnitude.
float quantise_nf4_block(uint8_t* bytes, const float* values, int64_t count) {
    float x[kNf4Block] = {};
    std::copy_n(values, count, x);
    float largest = 0;
#pragma omp simd reduction(max : largest)
    for (int64_t i = 0; i < kNf4Block; ++i) largest = std::max(largest, std::fabs(x[i]));
    const float divisor = std::max(largest, kSmallest);
    if (count == kNf4Block) {
        const float factor = 1.0f / divisor;
#pragma omp simd
        for (int64_t i = 0; i < kNf4Block; ++i) x[i] *= factor;
    } else {
        largest = divisor;
        for (int64_t i = 0; i < count; ++i) x[i] /= divisor;
    }
    pack_codes(bytes, x, count);
    return largest;
}

// ---- the mean, summed in the order of PyTorch's CPU kernel on one thread, on which its last bit depends -------------

constexpr int64_t kLanes = 8, kStreams = 4;  ///< A vector of eight; four of them, so that additions overlap.

/// Sums of rows of kStreams * kWidth numbers, column by column, by a cascade of four levels: a level is added to the
/// next and begun anew every `step` of its own additions.
template <int64_t kWidth>
std::array<float, kStreams * kWidth> cascade_sums(const float* x, int64_t rows) {
    constexpr int kLevels = 4;
    std::array<float, kStreams * kWidth> sums[kLevels] = {};
    const auto add_row = [&](auto& sum, const float* row) {
        for (size_t i = 0; i < sum.size(); ++i) sum[i] += row[i];
    };
    const int log2 = rows <= 2 ? 1 : std::bit_width(static_cast<uint64_t>(rows - 1));
    const int power = std::max(4, log2 / kLevels);
    const int64_t step = int64_t{1} << power;
    int64_t row = 0;
    while (row + step <= rows) {
        for (int64_t k = 0; k < step; ++k, ++row) add_row(sums[0], x + row * kStreams * kWidth);
        for (int level = 1; level < kLevels; ++level) {
            add_row(sums[level], sums[level - 1].data());
            sums[level - 1] = {};
            if ((row & ((step - 1) << (level * power))) != 0) break;
        }
    }
    for (; row < rows; ++row) add_row(sums[0], x + row * kStreams * kWidth);
    for (int level = 1; level < kLevels; ++level) add_row(sums[0], sums[level].data());
    return sums[0];
}

/// The sum of `vectors` vectors of kWidth numbers, lane by lane.
template <int64_t kWidth>
std::array<float, kWidth> lane_sums(const float* x, int64_t vectors) {
    const int64_t rows = vectors / kStreams;
    const auto streams = cascade_sums<kWidth>(x, rows);
    std::array<float, kWidth> sums = {};
    std::copy_n(streams.begin(), kWidth, sums.begin());
    const auto add_vector = [&](const float* vector) {
        for (size_t i = 0; i < kWidth; ++i) sums[i] += vector[i];
    };
    for (int64_t k = rows * kStreams; k < vectors; ++k) add_vector(x + k * kWidth);
    for (int64_t stream = 1; stream < kStreams; ++stream) add_vector(streams.data() + stream * kWidth);
    return sums;
}

float mean_as_torch(std::span<const float> x) {
    const auto count = static_cast<int64_t>(x.size());
    float sum = 0;
    if (count < kLanes) {
        sum = lane_sums<1>(x.data(), count)[0];
    } else {
        const auto lanes = lane_sums<kLanes>(x.data(), count / kLanes);
        for (int64_t i = count / kLanes * kLanes; i < count; ++i) sum += x[static_cast<size_t>(i)];
        for (const float lane : lanes) sum += lane;
    }
    return sum / static_cast<float>(count);
}

// ---------------------------------------------------------------------------------------------------------------------

/// The library looks codes up by x in steps of 2/65535: it takes the nearest to the nearest step.
float at_step(float x) {
    const float step = std::floor((x + 1.0f) * 32767.5f + 0.5f);
    return static_cast<float>(double{step} * 2 / 65535 - 1);
}

void quantise_absmax(Nf4Tensor* tensor) {
    std::vector<float>& absmax = tensor->absmax;
    const auto blocks = static_cast<int64_t>(absmax.size());
    tensor->offset = mean_as_torch(absmax);
    tensor->absmax_codes.resize(absmax.size());
    tensor->nested_absmax.resize(static_cast<size_t>(nf4_nested_blocks(tensor->count)));
    const DynamicMap& map = signed_map();
    for (int64_t first = 0, nested = 0; first < blocks; first += kNf4NestedBlock, ++nested) {
        float* const rest = absmax.data() + first;
        const int64_t count = std::min(kNf4NestedBlock, blocks - first);
        float largest = 0;
        for (int64_t i = 0; i < count; ++i) {
            rest[i] -= tensor->offset;
            largest = std::max(largest, std::fabs(rest[i]));
        }
        tensor->nested_absmax[static_cast<size_t>(nested)] = largest;
        uint8_t* const codes = tensor->absmax_codes.data() + first;
        if (largest == 0) continue;  // Where all are alike, any code times 0 is right; theirs is 0.
        const float factor = 1.0f / largest;
        for (int64_t i = 0; i < count; ++i) codes[i] = map.nearest(at_step(rest[i] * factor));
    }
    absmax.clear();
}

}  // namespace

Nf4Tensor quantise_nf4(std::span<const float> values, bool is_double) {
    Nf4Tensor tensor;
    tensor.count = static_cast<int64_t>(values.size());
    tensor.codes.resize(static_cast<size_t>(nf4_bytes(tensor.count)));
    tensor.absmax.resize(static_cast<size_t>(nf4_blocks(tensor.count)));
    const int64_t blocks = nf4_blocks(tensor.count);
#pragma omp parallel for schedule(static)
    for (int64_t block = 0; block < blocks; ++block) {
        const int64_t first = block * kNf4Block;
        tensor.absmax[static_cast<size_t>(block)] = quantise_nf4_block(
            tensor.codes.data() + first / 2, values.data() + first, std::min(kNf4Block, tensor.count - first));
    }
    if (is_double) quantise_absmax(&tensor);
    return tensor;
}

Nf4Layout nf4_layout(int64_t count, bool is_double) {
    Nf4Layout layout;
    const auto place = [&](int64_t bytes) {
        const int64_t begin = layout.bytes;
        layout.bytes += round_up(bytes, kNf4Alignment);
        return begin;
    };
    constexpr int64_t kFloat = sizeof(float);
    layout.codes = place(nf4_bytes(count));
    layout.absmax = place(nf4_blocks(count) * (is_double ? 1 : kFloat));
    if (!is_double) return layout;
    layout.nested_absmax = place(nf4_nested_blocks(count) * kFloat);
    layout.offset = place(kFloat);
    return layout;
}

void pack_nf4(const Nf4Tensor& tensor, std::span<std::byte> out) {
    const bool is_double = !tensor.absmax_codes.empty();
    const Nf4Layout layout = nf4_layout(tensor.count, is_double);
    CHECK(static_cast<int64_t>(out.size()) == layout.bytes, out.size(), layout.bytes);
    std::fill(out.begin(), out.end(), std::byte{0});
    const auto put = [&](int64_t offset, const auto& values) {
        std::memcpy(out.data() + offset, values.data(), values.size() * sizeof(values[0]));
    };
    put(layout.codes, tensor.codes);
    if (!is_double) return put(layout.absmax, tensor.absmax);
    put(layout.absmax, tensor.absmax_codes);
    put(layout.nested_absmax, tensor.nested_absmax);
    put(layout.offset, std::array<float, 1>{tensor.offset});
}

Nf4Tensor unpack_nf4(std::span<const std::byte> bytes, int64_t count, bool is_double) {
    const Nf4Layout layout = nf4_layout(count, is_double);
    CHECK(static_cast<int64_t>(bytes.size()) == layout.bytes, bytes.size(), layout.bytes);
    Nf4Tensor tensor;
    tensor.count = count;
    const auto take = [&](int64_t offset, int64_t elements, auto* values) {
        values->resize(static_cast<size_t>(elements));
        std::memcpy(values->data(), bytes.data() + offset, values->size() * sizeof((*values)[0]));
    };
    take(layout.codes, nf4_bytes(count), &tensor.codes);
    if (!is_double) {
        take(layout.absmax, nf4_blocks(count), &tensor.absmax);
        return tensor;
    }
    take(layout.absmax, nf4_blocks(count), &tensor.absmax_codes);
    take(layout.nested_absmax, nf4_nested_blocks(count), &tensor.nested_absmax);
    std::memcpy(&tensor.offset, bytes.data() + layout.offset, sizeof(float));
    return tensor;
}

float nf4_absmax(uint8_t code, float nested_absmax, float offset) {
    return signed_map()[code] * nested_absmax + offset;
}

std::vector<float> nf4_absmax(std::span<const uint8_t> absmax_codes, std::span<const float> nested_absmax,
                              float offset) {
    std::vector<float> absmax(absmax_codes.size());
    for (size_t i = 0; i < absmax.size(); ++i) {
        absmax[i] = nf4_absmax(absmax_codes[i], nested_absmax[i / kNf4NestedBlock], offset);
    }
    return absmax;
}

template <typename Out>
void dequantise_nf4_block(Out* out, const uint8_t* codes, float absmax, int64_t count) {
    float x[kNf4Block];
    for (int64_t k = 0; k < nf4_bytes(count); ++k) {
        const std::array<float, 2>& pair = kPairs[codes[k]];
        x[2 * k] = pair[0];
        x[2 * k + 1] = pair[1];
    }
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) out[i] = from_float<Out>(x[i] * absmax);
}
template void dequantise_nf4_block(float* out, const uint8_t* codes, float absmax, int64_t count);
template void dequantise_nf4_block(bf16* out, const uint8_t* codes, float absmax, int64_t count);

void dequantise_nf4(std::span<float> out, std::span<const uint8_t> codes, std::span<const float> absmax) {
    const auto count = static_cast<int64_t>(out.size());
    CHECK(static_cast<int64_t>(codes.size()) == nf4_bytes(count), codes.size(), count);
    CHECK(static_cast<int64_t>(absmax.size()) == nf4_blocks(count), absmax.size(), count);
#pragma omp parallel for schedule(static)
    for (int64_t block = 0; block < nf4_blocks(count); ++block) {
        const int64_t first = block * kNf4Block;
        dequantise_nf4_block(out.data() + first, codes.data() + first / 2, absmax[static_cast<size_t>(block)],
                             std::min(kNf4Block, count - first));
    }
}

std::vector<float> dequantise_nf4(const Nf4Tensor& tensor) {
    std::vector<float> values(static_cast<size_t>(tensor.count));
    const bool is_double = !tensor.absmax_codes.empty();
    dequantise_nf4(values, tensor.codes,
                   is_double ? nf4_absmax(tensor.absmax_codes, tensor.nested_absmax, tensor.offset) : tensor.absmax);
    return values;
}

}  // namespace llmc
