// Times from a probe: what a device's own operations did on a few tokens (run/probe.h), scaled to a model's shapes.
// They say how long a plan will take, and nothing else: no size, and no choice that decides bits, may depend on them.
#pragma once

#include "llmc/plan/cost.h"

#include <array>
#include <string>
#include <vector>

namespace llmc {

/// Usual error of a step time from a probe (dev/bench/predict_time.sh measures it).
constexpr double kProbeError = 0.15;

/// What a probe found. Rates are per second.
struct ProbedRates {
    /// A product with a weight (OC, IC), at most kWidest of each.
    struct Product {
        int64_t OC = 0, IC = 0;
        double forward = 0, backward_input = 0, backward_weight = 0;  ///< FLOPs.
    };
    /// Attention of one query of all heads: seconds, and seconds for each key that it sees.
    struct Attention {
        double fixed = 0, per_key = 0;
    };
    static constexpr int64_t kWidest = 512;

    std::string device;
    int64_t workers = 1;  ///< Threads.
    std::vector<Product> products;
    Attention attention_forward, attention_backward;
    /// Bytes (op_cost()) of operations whose operands are in a cache, by kind; 0: not probed.
    std::array<double, kNumOpKinds> forward = {}, backward = {};
    double bandwidth = 0;  ///< Bytes from and to memory, of operands that no cache holds.
    /// Seconds of an element of the flat buffers.
    double zeroing = 0, square_sums = 0, update = 0;
    double launch_seconds = 0;  ///< Of an operation on hardly anything.
};

/// Times of the model's operations by these rates.
OpTimes probed_times(const Model& model, const BatchShape& shape, const Places& places, const ProbedRates& rates,
                     const TokensAtOnce& at_once = {});

}  // namespace llmc
