#include "llmc/backend/make_backend.h"

#include "llmc/backend/cpu/binding.h"
#include "llmc/backend/cpu/cpu_backend.h"
#include "llmc/backend/cpu/machine.h"
#include "llmc/base/error.h"
#include "llmc/base/log.h"

#ifdef LLMC_WITH_CUDA
#include "llmc/backend/cuda/cuda_backend.h"
#include "llmc/backend/cuda/device.h"
#endif

#include <charconv>
#include <cstdlib>
#include <filesystem>
#include <set>
#include <sstream>
#include <string_view>
#include <system_error>
#include <unistd.h>
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

std::unique_ptr<Backend> make_cpu_backend(int threads) {
    if (threads < 0) fail_usage("--threads={} is negative; give a count, or 0 for one per physical core", threads);
    return std::make_unique<cpu::CpuBackend>(threads);
}

}  // namespace

std::unique_ptr<Backend> make_backend(const std::string& device, int threads) {
    std::unique_ptr<Backend> backend = make_cuda_backend(device);
    return backend != nullptr ? std::move(backend) : make_cpu_backend(threads);
}

std::unique_ptr<Backend> make_planning_backend(const std::string& device, int threads) {
#ifdef LLMC_WITH_CUDA
    const int index = cuda_index(device);
    if (index >= 0 && !cuda::why_unusable(index).empty()) {
        return std::make_unique<cuda::CudaBackend>(cuda::PlanningOnly());
    }
    if (device == "auto" && !cuda::why_unusable(0).empty()) return make_cpu_backend(threads);
#endif
    return make_backend(device, threads);
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

namespace {

constexpr const char* kSelf = "/proc/self/exe";

/// This program; or, from a package, the one beside it that was built for processors with wider vectors.
std::string best_program() {
#if defined(__x86_64__) && !defined(__AVX512BF16__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vl")) {
        std::error_code error;
        const auto self = std::filesystem::read_symlink(kSelf, error);
        const auto wide = self.parent_path() / "lib/avx512-bf16" / self.filename();
        if (!error && std::filesystem::exists(wide, error)) return wide.string();
    }
#endif
    return kSelf;
}

}  // namespace

// How long an idle OpenMP thread spins before it sleeps, which libgomp decides before main() begins. Time of a series
// of parallel regions, each thread 30 % uneven, over the time their work needs; two cores of a virtual AMD Zen 5, where
// waking a sleeping thread takes 40 us; 2-20 us regions / 20-200 us / 200-4000 us:
//
//                           nothing else running        another process wants a core
//   default (about 5 ms)    1.09 / 1.02 / 1.06          27-565 / 42-64 / 9-13
//   never (passive)         3.9  / 2.9  / 2.8           2.5-4.7 / 3.6-5.3 / 3.0-4.5
//   passive, 300 spins      5.3  / 2.2  / 1.9           7-12 / 3.9-7.6 / 3.2-4.6
//   passive, 1000 spins     1.05 / 1.04 / 1.01          13-20 / 2.7-4.5 / 3.2-4.8    <- chosen
//   passive, 2000 spins     1.06 / 1.02 / 1.02          22-33 / 6-8 / 5-6
//   passive, 10000 spins    1.11 / 1.02 / 1.00          93 / 13 / 4
//
// 1000 spins (about 20 us) bridge the gaps between operations, and give the core away soon when another wants it.
void prepare_process(char** argv) {
    constexpr const char* kGuard = "LLMC_PROCESS_PREPARED";
    if (std::getenv(kGuard) != nullptr) return;
    const bool is_set = std::getenv("OMP_WAIT_POLICY") != nullptr || std::getenv("GOMP_SPINCOUNT") != nullptr;
    const std::string program = best_program();
    if (is_set && program == kSelf) return;
    setenv(kGuard, "1", 0);
    if (!is_set) {
        setenv("OMP_WAIT_POLICY", "passive", 0);
        setenv("GOMP_SPINCOUNT", "1000", 0);
    }
    execv(program.c_str(), argv);  // Returns only if it fails; then the run is right, only slower.
}

}  // namespace llmc
