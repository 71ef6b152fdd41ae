// Rotary position embedding: parallel over ranges of tokens. The two halves of a head are contiguous in the rotate-half
// form, so the loop over pairs is plain vector code.
#include "llmc/backend/cpu/cpu_backend.h"
#include "llmc/backend/cpu/documents.h"
#include "llmc/backend/cpu/parallel.h"
#include "llmc/base/check.h"

#include <algorithm>
#include <cstdint>

namespace llmc::cpu {

namespace {

/// Turns the pairs (lower[i], upper[i]) by the angles whose cosines and sines are given.
template <typename T>
void rotate(T* lower, T* upper, const float* cosines, const float* sines, int64_t pairs, float direction) {
#pragma omp simd
    for (int64_t i = 0; i < pairs; ++i) {
        const float x = to_float(lower[i]), y = to_float(upper[i]);
        const float sine = direction * sines[i];
        lower[i] = from_float<T>(x * cosines[i] - y * sine);
        upper[i] = from_float<T>(y * cosines[i] + x * sine);
    }
}

template <typename T>
void rotate_tokens(Tensor qkv, Tensor table, const AttentionShape& shape, int64_t first_position, float direction) {
    const int64_t HD = shape.HD, heads = shape.NH + shape.NKV, N = shape.B * shape.T, R = table.shape[1];
    const int64_t step = std::max<int64_t>(1, kBlockElements / (heads * HD));
    const int64_t bytes = 2 * N * heads * HD * size_of(qkv.dtype);
    T* rows = qkv.as<T>();
    const float* angles = table.as<float>();
    const int32_t* documents = shape.documents ? shape.documents.as<int32_t>() : nullptr;
    for_each_range(N, step, bytes, [&](int64_t begin, int64_t end) {
        for (int64_t n = begin; n < end; ++n) {
            const float* cosines = angles + (first_position + position_of(documents, n, shape.T)) * R;
            T* row = rows + n * shape.qkv_columns();
            for (int64_t head = 0; head < heads; ++head) {
                T* lower = row + head * HD;
                rotate(lower, lower + R / 2, cosines, cosines + R / 2, R / 2, direction);
            }
        }
    });
}

}  // namespace

void CpuBackend::rope(Tensor qkv, Tensor table, const AttentionShape& shape, FirstPosition first, bool inverse) {
    const int64_t first_position = value_of(first);
    CHECK(qkv.shape[0] == shape.B * shape.T && qkv.shape[1] == shape.qkv_columns(), qkv.shape[0], qkv.shape[1]);
    CHECK(table.shape[1] % 2 == 0 && table.shape[1] <= shape.HD, table.shape[1], shape.HD);
    CHECK(first_position >= 0 && first_position + shape.T <= table.shape[0], first_position, shape.T, table.shape[0]);
    const float direction = inverse ? -1.0f : 1.0f;
    if (qkv.dtype == DType::F32)
        rotate_tokens<float>(qkv, table, shape, first_position, direction);
    else
        rotate_tokens<bf16>(qkv, table, shape, first_position, direction);
}

}  // namespace llmc::cpu
