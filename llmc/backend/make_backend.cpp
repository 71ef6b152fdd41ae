#include "llmc/backend/make_backend.h"

#include "llmc/backend/cpu/binding.h"
#include "llmc/backend/cpu/cpu_backend.h"
#include "llmc/backend/cpu/machine.h"
#include "llmc/backend/cpu/product_rule.h"
#include "llmc/base/error.h"
#include "llmc/base/log.h"

#ifdef LLMC_WITH_CUDA
#include "llmc/backend/cuda/cuda_backend.h"
#include "llmc/backend/cuda/device.h"
#endif

#include <charconv>
#include <set>
#include <sstream>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

namespace llmc {
namespace {

[[noreturn]] void refuse(const std::string& device) {
    fail_usage("--device={} is unknown; use cpu, cuda, cuda:INDEX or auto", device);
}

/// The device's number, of "cuda" or "cuda:INDEX"; -1 for "auto" and "cpu".
int cuda_index(const std::string& device) {
    if (device == "cuda") return 0;
    if (device == "auto" || device == "cpu") return -1;
    constexpr std::string_view kPrefix = "cuda:";
    if (!device.starts_with(kPrefix)) refuse(device);
    int index = -1;
    const char* end = device.data() + device.size();
    const auto [rest, error] = std::from_chars(device.data() + kPrefix.size(), end, index);
    if (error != std::errc() || rest != end || index < 0) refuse(device);
    return index;
}

#ifdef LLMC_WITH_CUDA

/// Null for the CPU. Says why, where the CPU was not asked for.
std::unique_ptr<Backend> make_cuda_backend(const std::string& device) {
    const int index = cuda_index(device);
    if (device == "cpu") return nullptr;
    if (device != "auto") return std::make_unique<cuda::CudaBackend>(index);
    std::string reason = cuda::why_unusable(0);
    try {
        if (reason.empty()) return std::make_unique<cuda::CudaBackend>(0);
    } catch (const Error& error) {  // A card that this build has no kernels for.
        reason = error.what();
    }
    spdlog::info("device  the CPU: {}", reason);
    return nullptr;
}

#else

std::unique_ptr<Backend> make_cuda_backend(const std::string& device) {
    if (cuda_index(device) < 0) return nullptr;
    fail_usage("--device={}: this build has no CUDA backend (make found no nvcc); use cpu or auto", device);
}

#endif

std::unique_ptr<Backend> make_cpu_backend(int threads, const std::string& products) {
    if (threads < 0) fail_usage("--threads={} is negative; give a count, or 0 for one per physical core", threads);
    return std::make_unique<cpu::CpuBackend>(threads, products);
}

}  // namespace

std::unique_ptr<Backend> make_backend(const std::string& device, int threads, const std::string& cpu_products) {
    std::unique_ptr<Backend> backend = make_cuda_backend(device);
    return backend != nullptr ? std::move(backend) : make_cpu_backend(threads, cpu_products);
}

DeviceInfo host_memory() { return cpu::host_memory(); }

std::unique_ptr<Backend> make_planning_backend(const std::string& device, int threads,
                                               const std::string& cpu_products) {
#ifdef LLMC_WITH_CUDA
    const int index = cuda_index(device);
    if (index >= 0 && !cuda::why_unusable(index).empty()) {
        return std::make_unique<cuda::CudaBackend>(cuda::PlanningOnly());
    }
    if (device == "auto" && !cuda::why_unusable(0).empty()) return make_cpu_backend(threads, cpu_products);
#endif
    return make_backend(device, threads, cpu_products);
}

std::vector<std::string> cpu_product_names() {
    std::vector<std::string> names = {"auto"};
    for (const cpu::ProductRules& rules : cpu::product_table()) names.emplace_back(rules.name);
    return names;
}

std::string usual_cpu_products() { return cpu::rules_of_this_processor().name; }

bool has_cpu_products(const std::string& name) { return cpu::can_form_products(name); }

bool has_cuda_backend() {
#ifdef LLMC_WITH_CUDA
    return true;
#else
    return false;
#endif
}

int gpu_count() {
#ifdef LLMC_WITH_CUDA
    int count = 0;
    while (cuda::why_unusable(count).empty()) ++count;
    return count;
#else
    return 0;
#endif
}

std::string gpu_identity([[maybe_unused]] int index) {
#ifdef LLMC_WITH_CUDA
    return cuda::bus_address(index);
#else
    return "";
#endif
}

int usable_cores() { return cpu::usable_cores(cpu::allowed_processors()); }

std::string allowed_processors() { return fmt::format("{}", fmt::join(cpu::allowed_processors(), ",")); }

Binding binding_of(const std::string& processors) {
    std::istringstream text(processors);
    std::set<int> ids;
    for (std::string id; std::getline(text, id, ',');) ids.insert(std::stoi(id));
    const std::vector<int> bound(ids.begin(), ids.end());
    return {static_cast<int>(bound.size()), cpu::usable_cores(bound), cpu::usable_cores(cpu::processors_if_unbound())};
}

}  // namespace llmc
