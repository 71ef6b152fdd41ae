// The device that --device-profile names: one of the table (plan/device_profile.h), or a TOML file of a device of your
// own, as --calibrate writes it:
//
//   name = "my card"        kind = "sm_89"         what kernels it takes; "cpu" for a processor
//   memory-gib = 23.99      reserve-gib = 1        of the memory, what a run cannot have
//   fp32-tflops = 82.6      bf16-tflops = 165      peak of matrix products
//   bandwidth-gbs = 1008    link-gbs = 25          of its memory; to the host's memory, each way
//
// and, where they are known better than for the other cards: card-link-gbs, network-gbs, launch-us,
// matmul-efficiency, bandwidth-efficiency, attention-forward, attention-backward, attention-products, attention-tokens.
#pragma once

#include "llmc/plan/device_profile.h"
#include "llmc/train/options.h"

#include <string>

namespace llmc {

/// Whether the text names a file, and not one of the table.
bool is_profile_file(const std::string& name);

/// Reads --device-profile, with --link-gbs in it. Fails (exit code 2) on a name that is none, with the nearest that is
/// one, and on a file that is none or lacks a rate. A file is read once.
DeviceProfile device_profile_of(const Options& options);

/// The profile with another link to the host's memory, and to the cards of its host where that is the same link; as it
/// is for 0.
DeviceProfile with_link(DeviceProfile profile, double gigabytes_per_second);

/// "24.0 GiB of rtx4090, less 1.00 GiB for CUDA and the screen": what a plan for it may take, and why.
std::string describe_memory(const DeviceProfile& profile);

/// The profile as such a file.
std::string to_toml(const DeviceProfile& profile);
DeviceProfile read_device_profile(const std::string& path);

}  // namespace llmc
