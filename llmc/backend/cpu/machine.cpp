#include "llmc/backend/cpu/machine.h"

#include "llmc/base/log.h"
#include "llmc/base/prepare_process.h"
#include "llmc/base/units.h"

#include <omp.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <optional>
#include <sstream>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace llmc::cpu {
namespace {

/// Version 1 of control groups says "no limit" by about so many bytes.
constexpr int64_t kNoLimit = int64_t{1} << 62;

/// The number a file begins with, or nothing: no such file, or a word such as "max".
std::optional<int64_t> read_number(const std::string& path) {
    std::ifstream file(path);
    int64_t number = 0;
    if (file >> number) return number;
    return std::nullopt;
}

/// The number after `key` in a file of "key number" or "key: number kB" lines.
std::optional<int64_t> read_field(const std::string& path, const std::string& key) {
    std::ifstream file(path);
    for (std::string line; std::getline(file, line);) {
        std::istringstream words(line);
        std::string name, unit;
        int64_t number = 0;
        if (!(words >> name >> number) || (name != key && name != key + ":")) continue;
        return words >> unit && unit == "kB" ? number * 1024 : number;
    }
    return std::nullopt;
}

bool lists(const std::string& comma_separated, const std::string& word) {
    return ("," + comma_separated + ",").find("," + word + ",") != std::string::npos;
}

/// Folders of the control groups around this process that may limit `controller`, innermost first. Inside a container
/// the path in /proc/self/cgroup is often the host's, and the mount shows our own group as its root; so every parent is
/// a candidate, and a folder need not exist.
std::vector<std::string> control_groups(const std::string& root, const std::string& controller) {
    std::vector<std::string> folders;
    std::ifstream file(root + "/proc/self/cgroup");
    for (std::string line; std::getline(file, line);) {  // hierarchy:controllers:path
        const size_t first = line.find(':');
        const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
        if (second == std::string::npos) continue;
        const std::string controllers = line.substr(first + 1, second - first - 1);
        if (!controllers.empty() && !lists(controllers, controller)) continue;
        const std::string mount = root + "/sys/fs/cgroup" + (controllers.empty() ? "" : "/" + controller);
        for (std::string path = line.substr(second + 1);; path.resize(path.rfind('/'))) {
            while (path.ends_with('/')) path.pop_back();
            folders.push_back(mount + path);
            if (path.find('/') == std::string::npos) break;
        }
    }
    return folders;
}

/// Bytes a group's limit leaves: what it uses, less its file caches, which the system drops under pressure.
std::optional<int64_t> group_available(const std::string& folder, int64_t limit) {
    std::optional<int64_t> used = read_number(folder + "/memory.current");
    const std::string prefix = used ? "" : "total_";
    if (!used) used = read_number(folder + "/memory.usage_in_bytes");
    if (!used) return std::nullopt;
    int64_t caches = 0;
    for (const char* list : {"inactive_file", "active_file"})
        caches += read_field(folder + "/memory.stat", prefix + list).value_or(0);
    return std::max<int64_t>(0, limit - std::max<int64_t>(0, *used - caches));
}

/// Processors' worth of time the control groups grant, or nothing.
std::optional<double> processor_quota(const std::string& root) {
    std::optional<double> least;
    for (const std::string& folder : control_groups(root, "cpu")) {
        double quota = 0, period = 0;
        if (std::ifstream v2(folder + "/cpu.max"); !(v2 >> quota >> period)) {
            quota = static_cast<double>(read_number(folder + "/cpu.cfs_quota_us").value_or(-1));
            period = static_cast<double>(read_number(folder + "/cpu.cfs_period_us").value_or(0));
        }
        if (quota > 0 && period > 0) least = std::min(least.value_or(quota / period), quota / period);
    }
    return least;
}

}  // namespace

namespace {

/// Where every mapping is counted whether it is used or not: what may still be mapped.
std::optional<int64_t> committable(const std::string& root) {
    constexpr int64_t kStrict = 2;
    if (read_number(root + "/proc/sys/vm/overcommit_memory") != kStrict) return std::nullopt;
    const auto limit = read_field(root + "/proc/meminfo", "CommitLimit");
    const auto used = read_field(root + "/proc/meminfo", "Committed_AS");
    if (!limit || !used) return std::nullopt;
    return std::max<int64_t>(0, *limit - *used);
}

void tighten(MachineMemory* memory, int64_t total, int64_t available, const std::string& limit) {
    memory->total = std::min(memory->total, total);
    if (available >= memory->available) return;
    memory->available = available;
    memory->limit = limit;
}

}  // namespace

MachineMemory machine_memory(const std::string& root) {
    MachineMemory memory;
    memory.total = read_field(root + "/proc/meminfo", "MemTotal").value_or(0);
    memory.available = read_field(root + "/proc/meminfo", "MemAvailable").value_or(0);
    if (const auto left = committable(root)) tighten(&memory, memory.total, *left, "vm.overcommit_memory=2");
    for (const std::string& folder : control_groups(root, "memory")) {
        for (const char* file : {"/memory.max", "/memory.high", "/memory.limit_in_bytes"}) {
            const std::optional<int64_t> limit = read_number(folder + file);
            if (!limit || *limit >= kNoLimit) continue;
            tighten(&memory, *limit, group_available(folder, *limit).value_or(*limit),
                    folder.substr(root.size()) + file);
        }
    }
    return memory;
}

std::vector<int> allowed_processors() {
    std::vector<int> allowed = processors_at_start();
    if (allowed.empty()) allowed = this_topology().processors();  // More than a cpu_set_t holds.
    std::vector<int> bound;
    for (int place = 0; omp_get_proc_bind() != omp_proc_bind_false && place < omp_get_num_places(); ++place) {
        std::vector<int> ids(static_cast<size_t>(omp_get_place_num_procs(place)));
        omp_get_place_proc_ids(place, ids.data());
        for (const int id : ids)
            if (std::find(allowed.begin(), allowed.end(), id) != allowed.end()) bound.push_back(id);
    }
    return bound.empty() ? allowed : bound;
}

int usable_cores(const std::vector<int>& processors, const Topology& topology, const std::string& root) {
    int count = topology.cores_of(processors);
    if (const std::optional<double> quota = processor_quota(root); quota && *quota < static_cast<double>(count))
        count = std::max(1, static_cast<int>(*quota + 0.999));
    return count;
}

std::string processor_name(std::string model) {
    for (const char* noise : {" Processor", "(R)", "(TM)", " CPU"})
        for (size_t at; (at = model.find(noise)) != std::string::npos;) model.erase(at, std::string(noise).size());
    return model.empty() ? "CPU" : model;
}

std::string vector_extension() {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f")) return "AVX-512";
    if (__builtin_cpu_supports("avx2")) return "AVX2";
    if (__builtin_cpu_supports("avx")) return "AVX";
    return "SSE2";
#else
    return "";
#endif
}

bool has_bf16_dot_products() {
#if defined(__x86_64__)
    __builtin_cpu_init();
    unsigned a = 0, b = 0, c = 0, d = 0;
    // Supporting AVX-512 includes that the system saves its registers; AMX exists only on processors with AVX-512 bf16.
    if (!__builtin_cpu_supports("avx512f") || !__get_cpuid_count(7, 1, &a, &b, &c, &d)) return false;
    return (a & (1u << 5)) != 0;
#else
    return false;
#endif
}

bool has_amx_bf16() {
#if defined(__x86_64__)
    unsigned a = 0, b = 0, c = 0, d = 0;
    constexpr unsigned kSavesRegisters = 1u << 27, kAmxBf16 = 1u << 22, kTiles = 3u << 17;
    if (!__get_cpuid(1, &a, &b, &c, &d) || (c & kSavesRegisters) == 0) return false;
    unsigned low = 0, high = 0;
    asm("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (low & kTiles) == kTiles && __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & kAmxBf16) != 0;
#else
    return false;
#endif
}

int64_t second_cache_bytes() {
    constexpr int64_t kUsual = 1 << 20;
    static const int64_t bytes = sysconf(_SC_LEVEL2_CACHE_SIZE);
    return bytes > 0 ? bytes : kUsual;
}

double measured_flops_per_core() {
#if defined(__AVX512F__)
    constexpr int kBytes = 64;
#elif defined(__AVX__)
    constexpr int kBytes = 32;
#else
    constexpr int kBytes = 16;
#endif
    using Vector __attribute__((vector_size(kBytes))) = float;
    constexpr int kChains = 12, kRounds = 40000, kLanes = kBytes / 4;  // Latency 4-5 times 2 units < 12 chains.
    const auto measure = [] {
        double best = 0;
        for (int repeat = 0; repeat < 8; ++repeat) {
            Vector sums[kChains] = {}, factor = {}, addend = {};
            for (Vector& sum : sums) asm volatile("" : "+x"(sum));  // Values the compiler cannot know.
            asm volatile("" : "+x"(factor), "+x"(addend));
            const double start = now_seconds();
            for (int round = 0; round < kRounds; ++round) {
#pragma GCC unroll 12
                for (Vector& sum : sums) sum = sum * factor + addend;
            }
            for (Vector& sum : sums) asm volatile("" : "+x"(sum));
            best = std::max(best, 2.0 * kChains * kLanes * kRounds / (now_seconds() - start));
        }
        return best;
    };
    static const double flops = measure();
    return flops;
}

}  // namespace llmc::cpu
