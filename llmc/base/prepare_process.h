// What must be right before the libraries of a process are loaded, or before it opens its first file.
#pragma once

#include <string>
#include <vector>

namespace llmc {

/// To be called first in main(), before any thread exists. Descriptors 0 to 2 are open afterwards, to /dev/null where
/// they were closed: files that get their numbers would be written to by whoever prints. Settings that libgomp reads
/// only when it is loaded are made, and such as would end the process are taken back: places (GOMP_CPU_AFFINITY,
/// OMP_PLACES) on processors that are not there, stacks (OMP_STACKSIZE) that cannot be had. For that it may start the
/// program again, with the same arguments and another environment.
void prepare_process(char** argv);

/// What prepare_process() took back, in words, for the log.
std::vector<std::string> settings_taken_back();

/// The processors that this process may run on, as it was started: libgomp narrows the mask of the first thread to its
/// place when it is loaded. Empty where the system does not say (more processors than a cpu_set_t holds).
std::vector<int> processors_at_start();

}  // namespace llmc
