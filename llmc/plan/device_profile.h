// What a device can do, as numbers: the basis of analytic times (cost.h), and of the memory that a plan for a device
// that is not here may take.
#pragma once

#include "llmc/base/arithmetic.h"
#include "llmc/base/dtype.h"

#include <cstdint>
#include <string>
#include <vector>

namespace llmc {

/// What kernels of attention reach: a share of the peak, of the products that really run; and what a row costs besides
/// its products (the tile that the diagonal cuts, filling and draining the pipeline), as if its sequence had so many
/// more tokens.
struct AttentionRate {
    double share = 0.8;
    double more_tokens = 0;
};

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
    // What our own kernels reach of it: of attention, those that run on every card (see AttentionRate).
    double attention_forward = 0.8, attention_backward = 0.8;
    int attention_backward_products = 5;
    int64_t attention_overhead = 0;
    bool hopper_attention = false;      ///< Attention is on the kernels for compute capability 9.0 where they take it.
    bool tf32 = false;                  ///< See Arithmetic.
    double bandwidth_efficiency = 1.0;  ///< Share of the bandwidth that what is bound by it reaches.
    std::string kind = "cpu";           ///< Kind of device; see DeviceInfo.
    double usual_error = 0;             ///< Of predicted step times, as measured on such a device; 0: unknown.
    int64_t memory_bytes = 0;           ///< As the driver reports it; 0: unknown.
    int64_t reserve_bytes = 0;          ///< Of it, what a run cannot have: CUDA's context, and a desktop's screen.

    int64_t usable_bytes() const { return memory_bytes - reserve_bytes; }
    double flops(DType dtype) const { return dtype == DType::BF16 ? flops_bf16 : flops_fp32; }
    /// Of the library's products.
    double product_flops(DType dtype) const {
        return tf32 && dtype != DType::BF16 ? flops_bf16 / kTf32Operands : flops(dtype);
    }
    /// Whether attention of heads of so many channels is on kernels that no card has timed yet.
    bool estimates_attention(DType dtype, int64_t HD) const {
        return hopper_attention && hopper_kernels_take(dtype, HD);
    }
    AttentionRate attention_rate(DType dtype, int64_t HD, bool backward) const;
    bool operator==(const DeviceProfile&) const = default;
};

/// Common devices by their published attributes, for planning without them.
const std::vector<DeviceProfile>& device_profiles();

/// Null if there is none of that name.
const DeviceProfile* known_device_profile(const std::string& name);
/// One of the table; fails (exit code 2) with the list if there is none of that name.
const DeviceProfile& find_device_profile(const std::string& name);

/// The profile whose name is in that of a device ("NVIDIA GeForce RTX 4090"), the longest such; null if there is none.
const DeviceProfile* profile_of_device(const std::string& device_name);

}  // namespace llmc
