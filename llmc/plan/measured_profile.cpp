#include "llmc/plan/measured_profile.h"

#include "llmc/base/dynamic_map.h"

#include <algorithm>

namespace llmc {
namespace {

/// FLOPs and seconds of some calls.
struct Work {
    double flops = 0, seconds = 0;
    void add(double more_flops, double more_seconds) {
        if (more_seconds <= 0) return;
        flops += more_flops, seconds += more_seconds;
    }
    double rate() const { return seconds > 0 ? flops / seconds : 0; }
};

}  // namespace

DeviceProfile measured_profile(DeviceProfile assumed, const Model& model, const BatchShape& shape, const Places& places,
                               const OpTimes& times) {
    const DType dtype = places.activations();
    assumed.hopper_attention = false;  // Whichever kernels they were, their rates are what is measured.
    Work products, attention_forward, attention_backward;
    for (size_t i = 0; i < model.block.size(); ++i) {
        const OpRow& row = model.block[i];
        const OpTimes::Row& took = times.block[i];
        const auto flops = [&](Pass pass) {
            OpCall call = {row.kind, pass, &row, shape.N()};
            call.attention_backward_products = assumed.attention_backward_products;
            return op_cost(model, call, shape.T, size_of(places.activations())).flops;
        };
        if (row.kind == OpKind::Attention) {
            const double more = 1 + static_cast<double>(assumed.attention_overhead) / static_cast<double>(shape.T);
            attention_forward.add(flops(Pass::Forward) * more, took.forward - assumed.launch_seconds);
            attention_backward.add(flops(Pass::Backward) * more, took.backward - assumed.launch_seconds);
        } else if (row.kind == OpKind::Matmul) {
            products.add(flops(Pass::Forward), took.forward - assumed.launch_seconds);
            products.add(flops(Pass::BackwardInput), took.backward - assumed.launch_seconds);
            products.add(flops(Pass::BackwardWeight), took.backward_weight - assumed.launch_seconds);
        }
    }
    if (products.rate() > 0) {
        const double scale = products.rate() / assumed.efficiency / assumed.product_flops(dtype);
        assumed.flops_fp32 *= scale, assumed.flops_bf16 *= scale;
    }
    const double peak = assumed.flops(dtype);
    if (attention_forward.rate() > 0) assumed.attention_forward = attention_forward.rate() / peak;
    if (attention_backward.rate() > 0) assumed.attention_backward = attention_backward.rate() / peak;
    if (times.update > 0) {
        assumed.bandwidth = places.update_bytes() / times.update / assumed.bandwidth_efficiency;
    }
    return assumed;
}

}  // namespace llmc
