// Time: what each operation of a model takes at one shape on one device, and with it what a plan takes. The times are
// analytic (FLOPs and bytes against a device profile), from a probe (probed_times.h) or measured (run/calibrate.h).
#pragma once

#include "llmc/model/model.h"
#include "llmc/plan/device_profile.h"
#include "llmc/plan/step.h"

#include <functional>
#include <string>
#include <vector>

namespace llmc {

/// Seconds of every operation of one micro-batch and of the update.
struct OpTimes {
    struct Row {
        double forward = 0;
        double backward = 0;         ///< All of it; of a split backward, BackwardInput only.
        double backward_weight = 0;  ///< Of a split backward.
        double backward_bias = 0;    ///< The same where the weight is frozen, and the bias is not.
    };
    std::vector<Row> block;  ///< By row of Model::block.
    Row embedding, final_norm, scored_rows;
    Row dropout;         ///< Of the embedding.
    int64_t tokens = 0;  ///< Of a micro-batch: all of the above; a tile takes its share.
    // Of one chunk of so many tokens.
    Row classifier;
    Row cross_entropy;  ///< forward: losses only.
    int64_t chunk_tokens = 1;
    double loss_sum = 0;
    std::vector<double> fused;  ///< By Plan::fusions, where measured; else a step is the sum of its parts' shares.
    // Per element of gradients or parameters.
    double zeroing = 0, square_sums = 0, update = 0;
    double unpacking = 0;  ///< Per byte that is read or written; so of gradients that take their inputs' places.
    double begin_update = 0;
    double host_bandwidth = DeviceProfile().host_bandwidth;  ///< Of copies; never measured.
    double link_bandwidth = DeviceProfile().link_bandwidth;  ///< Between ranks; so are these two.
    double link_latency = 10e-6;                             ///< Seconds of a reduction or gather without a byte.
    std::string source;      ///< For people: "measured on NAME", or "analytic, NAME" and what is known of the error.
    double usual_error = 0;  ///< Of step times, where they are not measured and that is known; a fraction.
    bool measured = false;
};

/// Where a step's time stands in a table of times; its unit is the step's tokens, elements or nothing.
double& time_of(OpTimes& times, const Step& step);
/// How many units a step has: chunks, elements, else 1.
double units_of(const OpTimes& times, const Step& step);

/// How many tokens operations have at a time; 0: all of them.
struct TokensAtOnce {
    TokensAtOnce(int64_t of_classifier = 0, int64_t of_token_wise = 0)
        : logits_chunk(of_classifier), block(of_token_wise) {}
    int64_t logits_chunk;
    int64_t block;
};

/// Seconds of one call of an operation.
using OpPrice = std::function<double(const OpCall& call)>;
/// Times of the operations by such a price; those of the update stay 0.
OpTimes times_by(const OpPrice& price, const Model& model, const BatchShape& shape, const TokensAtOnce& at_once);

/// That times were not measured, and by how much they are usually off: in words.
std::string uncalibrated(double usual_error);
/// The source of times, for a step of which they turned out to be `error` off (a fraction): what is usual is left out
/// where it was not so.
std::string source_in_hindsight(const OpTimes& times, double error);

/// By the attributes of a device.
OpTimes analytic_times(const Model& model, const BatchShape& shape, const Places& places, const DeviceProfile& profile,
                       const TokensAtOnce& at_once = {});

/// The micro-batch of a plan that is an update's first and last; in training the update before it is pending, where
/// the plan delays it.
Turn only_turn(const Plan& plan);

/// Seconds of one step, and of all steps of one micro-batch (with the update, if it is the last). A copy takes no time
/// itself but runs beside the operations, one at a time in each direction; the wait for it takes what it is then short
/// of. So do reductions and gathers, one at a time.
double step_seconds(const OpTimes& times, const Step& step);
double plan_seconds(const OpTimes& times, const Plan& plan, Turn turn);
inline double plan_seconds(const OpTimes& times, const Plan& plan) {
    return plan_seconds(times, plan, only_turn(plan));
}

/// Bytes that a step begins to copy from or to host memory; those of a whole update.
int64_t copied_bytes(const Plan& plan, const Step& step);
struct HostTraffic {
    int64_t in = 0, out = 0;
};
HostTraffic host_traffic_per_update(const Plan& plan);

/// Seconds of the reduction or gather that a step begins.
double transfer_seconds(const OpTimes& times, const Plan& plan, const Step& step);

/// Seconds of a whole update: Parallel::micro_batches micro-batches and what comes after the last; where the plan
/// delays it, of an update that is followed by another.
double update_seconds(const OpTimes& times, const Plan& plan);

/// Bytes that a rank sends in one micro-batch (and the update, if it is the last); in a whole update.
int64_t communication_bytes(const Plan& plan, Turn turn);
inline int64_t communication_bytes(const Plan& plan) { return communication_bytes(plan, only_turn(plan)); }
int64_t communication_bytes_per_update(const Plan& plan);

/// The smallest link bandwidth at which communication adds at most the share `slack` to the time of an update of one
/// micro-batch without any (links without end, and no latency); 0 where there is none, infinity where 1e15 bytes per
/// second are too few.
double bandwidth_to_hide(OpTimes times, const Plan& plan, double slack = 0.02);

}  // namespace llmc
