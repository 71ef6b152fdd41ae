#include "llmc/plan/probed_times.h"

#include "llmc/base/check.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>

namespace llmc {
namespace {

class ProbedPricing {
  public:
    ProbedPricing(const Model& model, const BatchShape& shape, DType dtype, const ProbedRates& rates)
        : model_(model), shape_(shape), dtype_(dtype), rates_(rates) {}

    double operator()(const OpCall& call) const {
        // Of the shorter of the two, half is hidden behind the longer one.
        const double computing = in_cache(call), moving = from_memory(call);
        return std::max(computing, moving) + 0.5 * std::min(computing, moving) + rates_.launch_seconds;
    }

  private:
    OpCost cost_of(const OpCall& call) const { return op_cost(model_, call, shape_.T, size_of(dtype_)); }

    double from_memory(const OpCall& call) const { return cost_of(call).bytes / rates_.bandwidth; }

    /// Where all operands are in a cache.
    double in_cache(const OpCall& call) const {
        if (call.kind == OpKind::Attention) {
            const auto& [fixed, per_key] =
                call.pass == Pass::Forward ? rates_.attention_forward : rates_.attention_backward;
            const double keys = attention_span(model_.config, shape_.T) / 2;
            return static_cast<double>(call.tokens) * (fixed + per_key * keys) * unevenness(call.pass);
        }
        const OpCost cost = cost_of(call);
        const bool is_product = call.kind == OpKind::Matmul || call.kind == OpKind::Classifier ||
                                call.kind == OpKind::AdapterDown || call.kind == OpKind::AdapterUp;
        if (is_product) return cost.flops / product_rate(call.pass, call.row);
        const auto& by_kind = call.pass == Pass::Forward ? rates_.forward : rates_.backward;
        const double own = by_kind[static_cast<size_t>(call.kind)];
        const double rate = own > 0 ? own : by_kind[static_cast<size_t>(model_.norm)];
        return rate > 0 ? cost.bytes / rate : 0;
    }

    /// How much longer attention takes since its heads cannot be shared out evenly: a backward hands out whole
    /// key/value heads, or cuts them, which costs seven products for five.
    double unevenness(Pass pass) const {
        const int64_t heads = shape_.B * (pass == Pass::Forward ? model_.config.NH : model_.config.NKV);
        const int64_t slots = (heads + rates_.workers - 1) / rates_.workers * rates_.workers;
        const double share = static_cast<double>(slots) / static_cast<double>(heads);
        return pass == Pass::Forward ? 1 : std::min(share, 7.0 / 5.0);
    }

    /// Of the probed product whose shape is nearest; a null row is the classifier's.
    double product_rate(Pass pass, const OpRow* row) const {
        const int index = row == nullptr ? model_.head : model_.parameter_index(0, row->weight);
        const ParameterRow& weight = model_.parameters[static_cast<size_t>(index)];
        const auto distance = [&](const ProbedRates::Product& product) {
            const auto apart = [](int64_t a, int64_t b) {
                b = std::min(b, ProbedRates::kWidest);
                return std::abs(std::log2(static_cast<double>(a) / static_cast<double>(b)));
            };
            return apart(product.OC, weight.rows) + apart(product.IC, weight.cols);
        };
        CHECK(!rates_.products.empty());
        const ProbedRates::Product& nearest =
            *std::min_element(rates_.products.begin(), rates_.products.end(),
                              [&](const auto& a, const auto& b) { return distance(a) < distance(b); });
        return pass == Pass::Forward         ? nearest.forward
               : pass == Pass::BackwardInput ? nearest.backward_input
                                             : nearest.backward_weight;
    }

    const Model& model_;
    BatchShape shape_;
    DType dtype_;
    const ProbedRates& rates_;
};

}  // namespace

OpTimes probed_times(const Model& model, const BatchShape& shape, const Places& places, const ProbedRates& rates,
                     const TokensAtOnce& at_once) {
    const ProbedPricing price(model, shape, places.activations(), rates);
    OpTimes times = times_by(price, model, shape, at_once);
    times.source = fmt::format("a probe of {}; {}", rates.device, uncalibrated(kProbeError));
    times.usual_error = kProbeError;
    times.zeroing = rates.zeroing;
    times.square_sums = rates.square_sums;
    // The probe's has its state in fp32.
    const Places plain(places.activations(), places.optimizer());
    times.update = rates.update * places.update_bytes() / plain.update_bytes();
    times.begin_update = rates.launch_seconds;
    times.unpacking = 1 / rates.bandwidth;
    return times;
}

}  // namespace llmc
