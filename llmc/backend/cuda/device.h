// Whether there is a CUDA device to use, asked before a backend is made.
#pragma once

#include <string>

namespace llmc::cuda {

/// Why device `index` cannot be used, in words for a user; "" if it can. Works on machines without a driver.
std::string why_unusable(int index);

}  // namespace llmc::cuda
