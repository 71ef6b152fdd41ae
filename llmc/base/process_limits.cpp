#include "llmc/base/process_limits.h"

#include "llmc/base/error.h"
#include "llmc/base/units.h"

#include <fcntl.h>
#include <malloc.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <string_view>
#include <vector>

namespace llmc {
namespace {

/// The number of kB after `key` in /proc/self/status, in bytes; 0 where it is not given.
int64_t mapped_bytes(std::string_view key) {
    std::ifstream file("/proc/self/status");
    for (std::string line; std::getline(file, line);) {
        if (line.starts_with(key)) return std::atoll(line.c_str() + key.size()) * 1024;
    }
    return 0;
}

struct LimitRow {
    decltype(RLIMIT_AS) resource;
    const char* mapped;  ///< Key in /proc/self/status.
    const char* name;
};
constexpr LimitRow kLimits[] = {{RLIMIT_AS, "VmSize:", "address space (ulimit -v)"},
                                {RLIMIT_DATA, "VmData:", "data (ulimit -d)"}};

}  // namespace

std::optional<ProcessLimit> memory_limit_of_process() {
    std::optional<ProcessLimit> tightest;
    for (const LimitRow& row : kLimits) {
        rlimit limit = {};
        if (getrlimit(row.resource, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) continue;
        const auto total = static_cast<int64_t>(std::min<rlim_t>(limit.rlim_cur, INT64_MAX));
        const int64_t available = std::max<int64_t>(0, total - mapped_bytes(row.mapped));
        if (!tightest || available < tightest->available) tightest = ProcessLimit{available, total, row.name};
    }
    return tightest;
}

std::string memory_limit_in_words() {
    const std::optional<ProcessLimit> limit = memory_limit_of_process();
    return limit ? fmt::format(" ({} is limited to {})", limit->name, format_bytes(limit->total)) : "";
}

void require_room_to_work() {
    constexpr int64_t kNeeded = 64 << 20;
    const std::optional<ProcessLimit> limit = memory_limit_of_process();
    if (!limit || limit->available >= kNeeded) return;
    fail(
        "{} is limited to {}, of which {} are left once the program is loaded; beside the model it needs {}: raise the "
        "limit",
        limit->name, format_bytes(limit->total), format_bytes(limit->available), format_bytes(kNeeded));
}

void require_files(int more) {
    std::vector<int> opened;
    for (int descriptor; static_cast<int>(opened.size()) < more && (descriptor = open("/", O_PATH | O_CLOEXEC)) >= 0;) {
        opened.push_back(descriptor);
    }
    const auto count = static_cast<int>(opened.size());
    for (const int descriptor : opened) close(descriptor);
    if (count == more) return;
    rlimit limit = {};
    getrlimit(RLIMIT_NOFILE, &limit);
    fail("{} files may be open at a time (ulimit -n), which leaves {}; a training needs {}", limit.rlim_cur, count,
         more);
}

std::string out_of_host_memory() { return "out of memory on the host" + memory_limit_in_words(); }

void spare_address_space() {
    if (memory_limit_of_process()) mallopt(M_ARENA_MAX, 1);
}

void keep_freed_memory() {
    if (memory_limit_of_process()) return;
    mallopt(M_MMAP_THRESHOLD, 32 << 20);  // What glibc takes at most.
    mallopt(M_TRIM_THRESHOLD, 512 << 20);
}

void give_back_freed_memory() { malloc_trim(0); }

}  // namespace llmc
