// Whether there is a CUDA device to use, asked before a backend is made.
#pragma once

#include <string>

namespace llmc::cuda {

/// "0000:41:00.0": of a GPU that is there.
std::string bus_address(int index);

/// Why device `index` cannot be used, in words for a user; "" if it can. Works on machines without a driver.
std::string why_unusable(int index);

/// Whether the device in use can load the kernels for compute capability 9.0, that is, whether this build has them.
bool can_load_hopper_kernels();

}  // namespace llmc::cuda
