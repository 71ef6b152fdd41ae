// Time: what each operation of a model takes at one shape on one device, and with it what a plan takes. The times are
// analytic (FLOPs and bytes against a device profile) or measured (run/calibrate.h); plans and searches cannot tell.
#pragma once

#include "llmc/model/model.h"
#include "llmc/plan/step.h"

#include <string>
#include <vector>

namespace llmc {

/// What a device can do; the basis of analytic times.
struct DeviceProfile {
    std::string name;
    double flops_fp32 = 0;  ///< Peak matrix FLOP/s.
    double flops_bf16 = 0;
    double bandwidth = 0;       ///< Memory bytes per second.
    double launch_seconds = 0;  ///< Fixed cost of one operation.
    double efficiency = 0.8;    ///< Share of the peak that matrix products reach.
    double host_bandwidth =
        25e9;  ///< Bytes per second between its memory and the host's, each way: PCIe 4 as measured.
    // Bytes per second that a rank sends while it receives as many: to others of its host, and to other hosts. Where
    // nothing is known: processes on CPUs, which send through the host's memory or its usual network.
    double link_bandwidth = 5e9;
    double node_bandwidth = 5e9;
};

/// Profiles of common devices by their published attributes, for planning without them; fails (exit code 2) with the
/// list if there is none of that name.
const DeviceProfile& find_device_profile(const std::string& name);
const std::vector<DeviceProfile>& device_profiles();

/// Seconds of every operation of one micro-batch.
struct OpTimes {
    struct Row {
        double forward = 0;
        double backward = 0;         ///< All of it; for a matmul, BackwardInput only.
        double backward_weight = 0;  ///< Matmul.
    };
    std::vector<Row> block;  ///< By row of Model::block.
    Row embedding, final_norm;
    double classifier = 0;  ///< Forward and backward of all chunks.
    double optimizer = 0;   ///< Zeroing, global norm and update: once per step, not per micro-batch.
    double host_bandwidth = DeviceProfile().host_bandwidth;  ///< Of copies; never measured.
    double link_bandwidth = DeviceProfile().link_bandwidth;  ///< Between ranks; so are these two.
    double link_latency = 10e-6;                             ///< Seconds of a reduction or gather without a byte.
    std::string source;                                      ///< "analytic, NAME" or "measured on NAME".
    bool measured = false;
};

OpTimes analytic_times(const Model& model, const BatchShape& shape, DType dtype, const DeviceProfile& profile);

/// Seconds of one step, and of all steps of a micro-batch. A copy takes no time itself but runs beside the operations,
/// one at a time in each direction; the wait for it takes what it is then short of. So do reductions and gathers, one
/// at a time. Without `reduces`, gradients are not reduced: ZeRO 0 and 1 may do so in the last micro-batch only.
double step_seconds(const OpTimes& times, const Step& step);
double plan_seconds(const OpTimes& times, const Plan& plan, bool reduces = true);

/// Seconds of the reduction or gather that a step begins.
double transfer_seconds(const OpTimes& times, const Plan& plan, const Step& step);

/// Seconds of the gather of all parameters after the update, where a plan's ZeRO stage asks for one: 1 and 2.
double update_gather_seconds(const OpTimes& times, const Plan& plan);

/// Seconds of a whole update of `parallel.micro_batches` plans on every rank, the optimiser's part included.
double update_seconds(const OpTimes& times, const Plan& plan, const Parallel& parallel);

/// Bytes that a rank sends in one micro-batch.
int64_t communication_bytes(const Plan& plan, bool reduces = true);

/// The smallest link bandwidth at which communication adds at most the share `slack` to the plan's time without any
/// (links without end, and no latency); 0 where there is none, infinity where 1e15 bytes per second are too few.
double bandwidth_to_hide(OpTimes times, const Plan& plan, double slack = 0.02);

}  // namespace llmc
