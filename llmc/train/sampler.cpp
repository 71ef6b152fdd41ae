#include "llmc/train/sampler.h"

#include "llmc/base/rng.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace llmc {

int32_t sample_token(std::span<const float> logits, const SamplerSettings& settings, uint32_t text, uint64_t position) {
    std::vector<int32_t> order;
    order.reserve(logits.size());
    for (size_t i = 0; i < logits.size(); ++i) {
        if (logits[i] > -std::numeric_limits<float>::infinity()) order.push_back(static_cast<int32_t>(i));
    }
    if (order.empty()) return -1;
    const auto more_likely = [&](int32_t a, int32_t b) {
        const float x = logits[static_cast<size_t>(a)], y = logits[static_cast<size_t>(b)];
        return x != y ? x > y : a < b;
    };
    const int32_t best = *std::min_element(order.begin(), order.end(), more_likely);
    const float largest = logits[static_cast<size_t>(best)];
    if (settings.temperature <= 0 || !std::isfinite(largest)) return best;
    const bool limited = settings.top_k > 0 && settings.top_k < static_cast<int64_t>(order.size());
    if (limited || settings.top_p < 1) std::sort(order.begin(), order.end(), more_likely);
    if (limited) order.resize(static_cast<size_t>(settings.top_k));
    std::vector<double> probability(order.size());
    double total = 0;
    for (size_t i = 0; i < order.size(); ++i) {
        const double logit = logits[static_cast<size_t>(order[i])] - largest;
        total += probability[i] = std::exp(logit / settings.temperature);
    }
    if (settings.top_p < 1) {
        double sum = 0;
        size_t kept = 0;
        while (kept < order.size() && sum < settings.top_p * total) sum += probability[kept++];
        order.resize(kept);
        total = sum;
    }
    double draw = uniform(settings.seed, RngStream::Sample, text, position) * total;
    for (size_t i = 0; i + 1 < order.size(); ++i) {
        if ((draw -= probability[i]) < 0) return order[i];
    }
    return order.back();
}

}  // namespace llmc
