// Reports of faults: what was wrong, in which kernel, by which thread, at which line.
//
// A fault in a kernel ends the launch and becomes a sticky CUDA error, as on a GPU, and a text (control.h:
// last_report).
#pragma once

#include <cuda_runtime_api.h>

#include <cstring>
#include <source_location>
#include <string>

namespace cuda_on_cpu {

using Where = std::source_location;
inline bool same_place(const Where& a, const Where& b) {
    const char *one = a.file_name(), *other = b.file_name();
    return a.line() == b.line() && (one == other || std::strcmp(one, other) == 0);
}

/// "norm.cu:41" or, through inlined functions, "device.cuh:80 < norm.cu:41": where the code at `pc` came from.
std::string lines_of(const void* pc);

/// The same for a call: its own line, and from where that was inlined.
std::string lines_of(const void* return_address, const Where& where);

/// The function at `pc`, demangled, without its arguments.
std::string function_at(const void* pc);

/// "file.cu:41".
std::string text_of(const Where& where);

std::string format(const char* pattern, ...) __attribute__((format(printf, 1, 2)));

/// Adds a report and makes `error` sticky.
void report(cudaError_t error, const std::string& text);

/// In a kernel: reports with block and thread in front, and ends the launch.
[[noreturn]] void kernel_fault(const std::string& text, cudaError_t error = cudaErrorLaunchFailure);

/// The sticky error: every later call returns it.
cudaError_t sticky_error();

}  // namespace cuda_on_cpu
