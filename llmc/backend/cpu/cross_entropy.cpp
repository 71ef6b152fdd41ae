// Cross-entropy: parallel over rows. A row is read from memory once: its log-sum-exp is gathered from chunks that stay
// in the first cache (Milakov & Gimelshein 2018), and the gradient then finds the row in the second. Sums of a chunk
// are fp32 in vector lanes, sums of chunks are fp64.
#include "llmc/backend/cpu/cpu_backend.h"

#include "llmc/backend/cpu/parallel.h"
#include "llmc/backend/cpu/vector_math.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace llmc::cpu {
namespace {

constexpr int64_t kChunk = 4096;
constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

template <typename T>
float maximum(const T* x, int64_t count) {
    float result = kMinusInfinity;
#pragma omp simd reduction(max : result)
    for (int64_t i = 0; i < count; ++i) result = std::max(result, to_float(x[i]));
    return result;
}

template <typename T>
float sum_of_exponentials(const T* x, int64_t count, float shift) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < count; ++i) sum += fast_exp(to_float(x[i]) - shift);
    return sum;
}

template <typename T>
void scaled_exponentials(T* x, int64_t count, float shift, float scale) {
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) x[i] = from_float<T>(fast_exp(to_float(x[i]) - shift) * scale);
}

/// The largest logit, and the sum of exp(logit - largest).
struct ExponentialSum {
    float largest = kMinusInfinity;
    double sum = 0;
};

template <typename T>
ExponentialSum exponential_sum(const T* x, int64_t V) {
    ExponentialSum row;
    for (int64_t begin = 0; begin < V; begin += kChunk) {
        const int64_t count = std::min(kChunk, V - begin);
        const float largest = maximum(x + begin, count);
        // Where every logit so far is -infinity or NaN, a shift of 0 makes zeros of the former and keeps the latter.
        const double sum = sum_of_exponentials(x + begin, count, largest == kMinusInfinity ? 0.0f : largest);
        if (largest > row.largest) {
            row.sum = row.sum == 0 ? sum : row.sum * std::exp(double{row.largest} - largest) + sum;
            row.largest = largest;
        } else {
            row.sum += sum == 0 ? 0 : sum * std::exp(double{largest} - row.largest);
        }
    }
    return row;
}

/// Returns the loss; with d_scale overwrites the logits by their gradient.
template <typename T>
float row_loss(T* logits, int32_t target, int64_t V, int64_t Vp, const float* d_scale) {
    if (target < 0) {
        if (d_scale) std::fill(logits, logits + Vp, from_float<T>(0));
        return 0;
    }
    CHECK(target < V, target, V);
    const ExponentialSum row = exponential_sum(logits, V);
    const float distance = to_float(logits[target]) - row.largest;
    if (d_scale) {
        scaled_exponentials(logits, V, row.largest, static_cast<float>(*d_scale / row.sum));
        logits[target] = from_float<T>(static_cast<float>((fast_exp(distance) / row.sum - 1) * *d_scale));
        std::fill(logits + V, logits + Vp, from_float<T>(0));
    }
    return static_cast<float>(std::log(row.sum) - distance);
}

template <typename T>
void cross_entropy_rows(Tensor losses, Tensor logits, Tensor targets, int64_t V, const float* d_scale) {
    const int64_t n = logits.shape[0], Vp = logits.shape[1];
    float* loss = losses.as<float>();
    T* rows = logits.as<T>();
    const int32_t* target = targets.as<int32_t>();
    const int64_t step = std::max<int64_t>(1, kBlockElements / Vp);
    for_each_range(n, step, 4 * logits.bytes(), [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) loss[i] = row_loss(rows + i * Vp, target[i], V, Vp, d_scale);
    });
}

}  // namespace

void CpuBackend::cross_entropy(Tensor losses, Tensor logits, Tensor targets, int64_t V, Tensor d_scale) {
    const int64_t n = logits.shape[0];
    CHECK(losses.count() == n && targets.count() == n && V <= logits.shape[1], losses.count(), targets.count(), n, V);
    const float* const scale = d_scale ? d_scale.as<float>() : nullptr;
    logits.dtype == DType::BF16 ? cross_entropy_rows<bf16>(losses, logits, targets, V, scale)
                                : cross_entropy_rows<float>(losses, logits, targets, V, scale);
}

void CpuBackend::accumulate_loss(Tensor total, bool adds, Tensor losses) {
    const float* loss = losses.as<float>();
    double sum = 0;
    for (int64_t i = 0; i < losses.count(); ++i) sum += loss[i];
    *total.as<double>() = adds ? *total.as<double>() + sum : sum;
}

}  // namespace llmc::cpu
