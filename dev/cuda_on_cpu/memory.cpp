#include "dev/cuda_on_cpu/memory.h"

#include "dev/cuda_on_cpu/control.h"
#include "dev/cuda_on_cpu/race_checker.h"
#include "dev/cuda_on_cpu/report.h"
#include "dev/cuda_on_cpu/sparse_memory.h"

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <sys/mman.h>

namespace cuda_on_cpu {

namespace {

constexpr size_t kPage = 4096;
constexpr size_t kAlignment = 256;
constexpr size_t kRegion = size_t{32} << 30;
constexpr unsigned char kGuard = 0xa5;

struct Allocation {
    char* data;
    size_t bytes;
    char* mapping;
    size_t mapped;
    int device;
};

// By the address of the mapping, so that the neighbours of an address are found.
std::map<char*, Allocation> allocations;
std::map<const char*, size_t> pinned;
char* region = nullptr;
char* next_mapping = nullptr;
int open_count = 0;
bool host_check = true;

constexpr size_t round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }

char* device_region() {
    if (region) return region;
    void* p = mmap(nullptr, kRegion, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) {
        std::perror("CUDA on the CPU: address range of the device memory");
        std::abort();
    }
    region = next_mapping = static_cast<char*>(p);
    race::attach(region, kRegion);
    prepare_fault_handler();
    return region;
}

// Unused address space for a mapping with a guard page behind it. Freed ranges come again last, so that a use after
// free meets no new owner.
char* find_range(size_t mapped) {
    for (int round = 0; round < 2; ++round) {
        auto after = allocations.lower_bound(next_mapping);
        while (true) {
            char* const end = after == allocations.end() ? region + kRegion : after->first;
            if (next_mapping + mapped + kPage <= end) return next_mapping;
            if (after == allocations.end()) break;
            next_mapping = after->first + after->second.mapped + kPage;
            ++after;
        }
        next_mapping = region;
    }
    return nullptr;
}

const Allocation* find(const void* p) {
    auto* address = static_cast<char*>(const_cast<void*>(p));
    auto after = allocations.upper_bound(address);
    if (after == allocations.begin()) return nullptr;
    const Allocation& found = std::prev(after)->second;
    return address >= found.data && address < found.data + found.bytes ? &found : nullptr;
}

void protect(bool open) {
    for (const auto& [start, one] : allocations) {
        mprotect(one.mapping, one.mapped, open ? PROT_READ | PROT_WRITE : PROT_NONE);
    }
}

bool guards_are_intact(const Allocation& one) {
    for (const char* p = one.mapping; p < one.data; ++p) {
        if (static_cast<unsigned char>(*p) != kGuard) return false;
    }
    for (const char* p = one.data + one.bytes; p < one.mapping + one.mapped; ++p) {
        if (static_cast<unsigned char>(*p) != kGuard) return false;
    }
    return true;
}

}  // namespace

DeviceAccess::DeviceAccess() {
    if (open_count++ == 0 && host_check) protect(true);
}

DeviceAccess::~DeviceAccess() {
    if (--open_count == 0 && host_check) protect(false);
}

void set_host_check(bool on) {
    if (on == host_check) return;
    host_check = on;
    protect(!on);
}

void* allocate_device(size_t bytes, int device) {
    device_region();
    const size_t mapped = round_up(bytes, kPage);
    char* const mapping = find_range(mapped);
    if (!mapping) return nullptr;
    if (mprotect(mapping, mapped, PROT_READ | PROT_WRITE) != 0) return nullptr;
    next_mapping = mapping + mapped + kPage;
    const Allocation one{mapping + mapped - round_up(bytes, kAlignment), bytes, mapping, mapped, device};
    std::memset(mapping, kGuard, static_cast<size_t>(one.data - mapping));
    std::memset(one.data, 0xff, bytes);
    std::memset(one.data + bytes, kGuard, static_cast<size_t>(mapping + mapped - one.data) - bytes);
    if (host_check && open_count == 0) mprotect(mapping, mapped, PROT_NONE);
    allocations[mapping] = one;
    race::allocated(one.data, bytes);
    return one.data;
}

bool free_device(void* p) {
    const Allocation* const found = find(p);
    if (!found || found->data != p) return false;
    const Allocation one = *found;
    mprotect(one.mapping, one.mapped, PROT_READ);
    if (!guards_are_intact(one)) {
        report(cudaErrorIllegalAddress, format("something wrote outside an allocation of %zu bytes", one.bytes));
    }
    race::freed(one.data, one.bytes);
    mprotect(one.mapping, one.mapped, PROT_NONE);
    madvise(one.mapping, one.mapped, MADV_DONTNEED);
    allocations.erase(one.mapping);
    return true;
}

bool is_device_memory(const void* p, size_t bytes) {
    if (is_sparse(p, bytes)) return true;
    const Allocation* const one = find(p);
    return one && static_cast<const char*>(p) + bytes <= one->data + one->bytes;
}

bool in_device_region(const void* p) {
    const auto* address = static_cast<const char*>(p);
    return (region && address >= region && address < region + kRegion) || is_sparse(p, 1);
}

size_t allocated_bytes(int device) {
    size_t sum = 0;
    for (const auto& [start, one] : allocations) sum += one.device == device ? one.bytes : 0;
    return sum;
}

size_t allocated_bytes() {
    size_t sum = 0;
    for (const auto& [start, one] : allocations) sum += one.bytes;
    return sum;
}

void add_pinned(void* p, size_t bytes) { pinned[static_cast<char*>(p)] = bytes; }
bool remove_pinned(void* p) { return pinned.erase(static_cast<char*>(p)) > 0; }

bool is_pinned(const void* p) {
    const auto* address = static_cast<const char*>(p);
    auto after = pinned.upper_bound(address);
    return after != pinned.begin() && address < std::prev(after)->first + std::prev(after)->second;
}

}  // namespace cuda_on_cpu
