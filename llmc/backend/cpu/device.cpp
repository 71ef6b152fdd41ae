// The CPU as a device: threads, resident memory on huge pages, copies and conversions.
#include "llmc/backend/cpu/cpu_backend.h"

#include "llmc/backend/cpu/gemm.h"
#include "llmc/backend/cpu/machine.h"
#include "llmc/backend/cpu/parallel.h"
#include "llmc/base/error.h"
#include "llmc/base/log.h"
#include "llmc/base/process_limits.h"
#include "llmc/base/threads.h"
#include "llmc/base/units.h"

#include <omp.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <optional>

namespace llmc::cpu {
namespace {

constexpr int64_t kHugePage = 2 << 20;

/// Fresh zero pages; from one huge page on they start at a multiple of it. Null if the system refuses.
void* map_pages(int64_t bytes) {
    const int64_t slack = bytes >= kHugePage ? kHugePage : 0;
    void* mapped = mmap(nullptr, static_cast<size_t>(bytes + slack), PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapped == MAP_FAILED) return nullptr;
    if (slack == 0) return mapped;
    char* start = static_cast<char*>(mapped);
    const auto address = reinterpret_cast<intptr_t>(start);
    const int64_t before = round_up(address, kHugePage) - address;
    if (before > 0) munmap(start, static_cast<size_t>(before));
    if (slack > before) munmap(start + before + bytes, static_cast<size_t>(slack - before));
    madvise(start + before, static_cast<size_t>(bytes), MADV_HUGEPAGE);  // A wish; without it only speed is lost.
    return start + before;
}

/// Writes to every page, so that it is resident, on the memory node of the thread that will mostly use it.
void touch_pages(char* start, int64_t bytes, int64_t page) {
    for_each_range(bytes, kHugePage, bytes, [&](int64_t begin, int64_t end) {
        for (int64_t at = begin; at < end; at += page) static_cast<volatile char*>(start)[at] = 0;
    });
}

void copy_bytes(void* destination, const void* source, int64_t bytes) {
    for_each_range(bytes, kHugePage / 8, 2 * bytes, [&](int64_t begin, int64_t end) {
        std::memcpy(static_cast<char*>(destination) + begin, static_cast<const char*>(source) + begin,
                    static_cast<size_t>(end - begin));
    });
}

template <typename Out, typename In>
void convert_range(Out* out, const In* in, int64_t begin, int64_t end) {
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) out[i] = from_float<Out>(to_float(in[i]));
}

template <typename Out, typename In>
void convert_elements(Out* out, const In* in, int64_t count) {
    const int64_t bytes = count * static_cast<int64_t>(sizeof(Out) + sizeof(In));
    for_each_range(count, kBlockElements, bytes,
                   [&](int64_t begin, int64_t end) { convert_range(out, in, begin, end); });
}

}  // namespace

namespace {

/// Bytes of what is available that are left to what is allocated later: lines, batches, plans, libraries. A run that
/// fills a control group to the last byte is killed.
constexpr int64_t kReserve = int64_t{48} << 20;

int threads_for(int asked) {
    if (asked > 0) return possible_threads(asked);
    const int cores = usable_cores(allowed_processors());
    const std::optional<int> by_environment = threads_by_environment();
    const int threads = possible_threads(by_environment.value_or(cores));
    if (by_environment && threads != cores) {
        spdlog::info("threads {} on {} core{}, by OMP_NUM_THREADS={}; --threads overrides it", threads, cores,
                     cores == 1 ? "" : "s", std::getenv("OMP_NUM_THREADS"));
    }
    return threads;
}

}  // namespace

CpuBackend::CpuBackend(int threads, std::string_view products)
    : threads_(threads_for(threads)), products_(product_rules(products)) {
    omp_set_dynamic(0);
    omp_set_num_threads(threads_);
#pragma omp parallel
    {}  // From here on the threads are there, and their stacks are among what is mapped.
    own_limit_ = memory_limit_of_process();
}

CpuBackend::~CpuBackend() {
    for (const auto& [memory, bytes] : allocations_) munmap(memory, static_cast<size_t>(bytes));
}

namespace {

DeviceInfo memory_info(const std::optional<ProcessLimit>& own_limit) {
    DeviceInfo info;
    const MachineMemory memory = machine_memory();
    info.memory_total = memory.total;
    info.memory_available = memory.available;
    info.process_reserve = kReserve;
    info.memory_limit = memory.limit;
    if (own_limit) {
        info.process_available = own_limit->available;
        info.process_limit = own_limit->name;
    }
    return info;
}

}  // namespace

DeviceInfo host_memory() { return memory_info(memory_limit_of_process()); }

DeviceInfo CpuBackend::info() const {
    DeviceInfo info = memory_info(own_limit_);
    info.supports_bf16 = gemm_supports_bf16() && has_bf16_dot_products();
    const std::string extension = vector_extension() + (has_bf16_dot_products() ? " bf16" : "");
    info.name = fmt::format("{}, {} thread{}{}{}", processor_name(), threads_, threads_ == 1 ? "" : "s",
                            extension.empty() ? "" : ", ", extension);
    const int cores = std::min(threads_, usable_cores(allowed_processors()));
    info.workers = threads_;
    info.arithmetic.cpu_products = products_.name;
    info.peak_flops_fp32 = measured_flops_per_core() * cores;
    info.peak_flops_bf16 = info.supports_bf16 ? 2 * info.peak_flops_fp32 : 0;
    return info;
}

void* CpuBackend::allocate(int64_t bytes, const std::string& what) {
    CHECK(bytes >= 0, bytes, what);
    const int64_t page = sysconf(_SC_PAGESIZE);
    const int64_t mapped = std::max(page, round_up(bytes, page));
    // The system grants more than it has and kills the process later, so what is available must be asked before.
    const MachineMemory machine = machine_memory();
    const std::optional<ProcessLimit> own = memory_limit_of_process();
    const bool is_own = own && own->available < machine.available;
    const int64_t available = is_own ? own->available : machine.available;
    void* memory = machine.total == 0 || mapped <= available ? map_pages(mapped) : nullptr;
    if (!memory) {
        const std::string& limit = is_own ? own->name : machine.limit;
        fail("{}: {} wanted, but only {} of memory are available{}; lower the batch size or the memory budget", what,
             format_bytes(bytes), format_bytes(available), limit.empty() ? "" : ", by the limit of " + limit);
    }
    touch_pages(static_cast<char*>(memory), mapped, page);
    allocations_.emplace(memory, mapped);
    return memory;
}

void CpuBackend::release(void* memory) {
    if (!memory) return;
    const auto entry = allocations_.find(memory);
    CHECK(entry != allocations_.end(), "not a start that allocate() returned, or released twice");
    munmap(memory, static_cast<size_t>(entry->second));
    allocations_.erase(entry);
}

void CpuBackend::copy_to_device(Tensor destination, const void* source) {
    copy_bytes(destination.data, source, destination.bytes());
}

void CpuBackend::copy_to_host(void* destination, Tensor source) {
    copy_bytes(destination, source.data, source.bytes());
}

void CpuBackend::zero(Tensor out) {
    for_each_range(out.bytes(), kHugePage / 8, out.bytes(), [&](int64_t begin, int64_t end) {
        std::memset(static_cast<char*>(out.data) + begin, 0, static_cast<size_t>(end - begin));
    });
}

void CpuBackend::convert(Tensor out, Tensor x) {
    CHECK(out.count() == x.count(), out.count(), x.count());
    if (out.dtype == x.dtype)
        copy_bytes(out.data, x.data, x.bytes());
    else if (out.dtype == DType::BF16)
        convert_elements(out.as<bf16>(), x.as<float>(), x.count());
    else
        convert_elements(out.as<float>(), x.as<bf16>(), x.count());
}

}  // namespace llmc::cpu
