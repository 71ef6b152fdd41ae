// setmaxnreg: the block's pool of registers, which warpgroups give to and take from.
#pragma once

#include "dev/cuda_on_cpu/report.h"

#include <string>

namespace cuda_on_cpu {

/// By all threads of a warpgroup; an increase waits until the pool can serve it.
void set_registers(int count, bool increase, const Where& where);

/// Of a thread that waits for it.
std::string text_of_registers();
void reset_registers();

}  // namespace cuda_on_cpu
