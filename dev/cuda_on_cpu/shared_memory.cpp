#include "dev/cuda_on_cpu/shared_memory.h"

#include "dev/cuda_on_cpu/race_checker.h"
#include "dev/cuda_on_cpu/scheduler.h"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <sys/mman.h>
#include <vector>

namespace cuda_on_cpu {

namespace {

// [static variables | guard | dynamic array | guard]
constexpr size_t kPage = 4096;
constexpr size_t kStaticBytes = 64 << 10;
constexpr size_t kDynamicEnd = kSharedRegion - kPage;
constexpr size_t kAlignment = 128;

struct Variable {
    const void* tag;
    char* data;
    size_t bytes;
};

char* region = nullptr;
char* dynamic_data = nullptr;
size_t dynamic_bytes = 0, static_bytes = 0, shared_limit = 0;
std::vector<Variable> variables;
size_t dynamic_alignment = kAlignment;

// The dynamic array begins behind them.
constexpr size_t kStaticNamed = 24 << 10;
uint32_t dynamic_start() {
    return static_cast<uint32_t>(kStaticNamed + (dynamic_alignment >= 1024 ? 0 : dynamic_alignment));
}
uint32_t offset_of(const char* address) { return static_cast<uint32_t>(address - dynamic_data); }

}  // namespace

char* shared_base() {
    if (!region) {
        void* p = mmap(nullptr, kSharedRegion, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED) std::abort();
        region = static_cast<char*>(p);
        mprotect(region + kStaticBytes, kPage, PROT_NONE);
        mprotect(region + kDynamicEnd, kPage, PROT_NONE);
    }
    return region;
}

void begin_shared(size_t bytes, size_t limit) {
    dynamic_bytes = bytes;
    dynamic_data = shared_base() + kDynamicEnd - (bytes + kAlignment - 1) / kAlignment * kAlignment;
    static_bytes = 0;
    dynamic_alignment = kAlignment;
    shared_limit = limit;
    variables.clear();
    last_shared_range = {};
}

void poison_shared() {
    std::memset(region, 0xff, static_bytes);
    std::memset(dynamic_data, 0xff, dynamic_bytes);
}

void* static_shared(const void* tag, size_t bytes, size_t alignment) {
    for (const Variable& variable : variables) {
        if (variable.tag == tag) return variable.data;
    }
    const ExecutorScope scope;
    const size_t offset = (static_bytes + alignment - 1) / alignment * alignment;
    if (offset + bytes + dynamic_bytes > shared_limit || offset + bytes > (48 << 10)) {
        kernel_fault(format("%zu bytes of static and %zu of dynamic shared memory are more than the %zu of this launch",
                            offset + bytes, dynamic_bytes, shared_limit));
    }
    // A gap after each variable, so that running over its end is not yet the next one.
    static_bytes = offset + bytes + 16 <= kStaticBytes ? offset + bytes + 16 : offset + bytes;
    variables.push_back({tag, region + offset, bytes});
    std::memset(region + offset, 0xff, bytes);
    return region + offset;
}

void* dynamic_shared(size_t alignment) {
    dynamic_alignment = std::max(dynamic_alignment, alignment);
    return dynamic_data;
}

uint32_t shared_address(const void* p) {
    const auto* const address = static_cast<const char*>(p);
    if (address >= dynamic_data && address < dynamic_data + dynamic_bytes) return dynamic_start() + offset_of(address);
    if (address < region || address >= region + kStaticNamed)
        kernel_fault(format("%p has no shared address here: static variables only up to %zu bytes", p, kStaticNamed));
    return static_cast<uint32_t>(address - region);
}

char* shared_pointer(uint32_t address) {
    return address < dynamic_start() ? region + address : dynamic_data + (address - dynamic_start());
}

SharedRange find_shared_range(const void* p) {
    const SharedRange dynamic = {dynamic_data, dynamic_data + dynamic_bytes};
    if (dynamic.has(p)) return dynamic;
    for (const Variable& variable : variables) {
        const SharedRange range = {variable.data, variable.data + variable.bytes};
        if (range.has(p)) return range;
    }
    return {};
}

}  // namespace cuda_on_cpu
