// The one place that knows which backends this build has.
#pragma once

#include "llmc/backend/backend.h"

#include <memory>
#include <string>
#include <vector>

namespace llmc {

/// The backend for `device`: "cpu", "cuda" or "cuda:INDEX", or "auto" for a GPU if there is one. `threads` is for the
/// CPU; 0 = one per physical core. A device that this build or this machine lacks is an Error.
/// `cpu_products`: one of cpu_product_names(), which this machine must have.
std::unique_ptr<Backend> make_backend(const std::string& device, int threads, const std::string& cpu_products = "auto");

/// The same for planning only: --device=cuda then needs no GPU, but nothing can be allocated or run.
std::unique_ptr<Backend> make_planning_backend(const std::string& device, int threads,
                                               const std::string& cpu_products = "auto");

/// The kinds of matrix products of a CPU (cpu/product_rule.h), "auto" first.
std::vector<std::string> cpu_product_names();

/// What "auto" is on this processor.
std::string usual_cpu_products();

/// Whether this processor and this build can form them.
bool has_cpu_products(const std::string& name);

/// Whether this build has the CUDA backend, with or without a GPU to run on.
bool has_cuda_backend();

/// Memory of the host, what of it is available and what limits it; nothing else is filled in.
DeviceInfo host_memory();

/// GPUs that --device=auto would take; 0 where there are none, no driver, or this build has no CUDA backend.
int gpu_count();

/// What tells a GPU from the others of its host, whoever counts them: its address on the bus.
std::string gpu_identity(int index);

/// CPU threads of --threads=0, and the processors they may run on, as text: equal for processes that share them.
int usable_cores();
std::string allowed_processors();

/// What processes have that may run on some of this host's processors, and what they would have if nobody had bound
/// them (cpu/binding.h).
struct Binding {
    int processors = 0, cores = 0, cores_if_unbound = 0;
};
/// `processors` as allowed_processors() gives them, of several processes joined by commas.
Binding binding_of(const std::string& processors);

}  // namespace llmc
