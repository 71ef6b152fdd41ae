#include "dev/cuda_on_cpu/race_checker.h"

#include "dev/cuda_on_cpu/fiber.h"
#include "dev/cuda_on_cpu/memory.h"
#include "dev/cuda_on_cpu/race_cells.h"
#include "dev/cuda_on_cpu/scheduler.h"
#include "dev/cuda_on_cpu/shared_memory.h"
#include "dev/cuda_on_cpu/sparse_memory.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <link.h>
#include <sys/mman.h>

namespace cuda_on_cpu::race {

namespace {

// seen[a][b]: what agent b (a warp, or asynchronous work) did before that number comes before what warp a does next.
// announced[id]: the same for those who wait at a named barrier, of what has arrived there so far. In blocks without
// named barriers and asynchronous work all are 0.
Clock seen[kMaxWarps], announced[16];
bool clocks_used = false;

// When each thread last made its accesses known to the asynchronous proxy: a few times, the newest first.
constexpr int kFences = 6;
uint32_t proxy_fences[kMaxThreads][kFences];

bool fenced = false;

template <typename T>
T* reserve(size_t count) {
    void* p =
        mmap(nullptr, count * sizeof(T), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) std::abort();
    return static_cast<T*>(p);
}

void find_program() {
    dl_iterate_phdr(
        [](dl_phdr_info* info, size_t, void*) {
            program_begin = reinterpret_cast<char*>(info->dlpi_addr);
            for (int i = 0; i < info->dlpi_phnum; ++i) {
                const ElfW(Phdr)& header = info->dlpi_phdr[i];
                char* const end = program_begin + header.p_vaddr + header.p_memsz;
                if (header.p_type == PT_LOAD && end > program_end) program_end = end;
            }
            return 1;
        },
        nullptr);
}

const void* expanded(uint32_t pc) { return program_begin + pc; }

struct Request {
    const char* address;
    size_t bytes;
    Access kind;
    const void* pc;
    bool shared;
};

const char* name_of(Access kind) {
    return kind == Access::Read ? "read" : kind == Access::Write ? "write" : "atomic operation";
}

[[noreturn, gnu::noinline]] void found(const char* what, const Request& request, const std::string& more = "") {
    const ExecutorScope scope;
    kernel_fault(format("%s: %s of %zu bytes of %s memory at %p, at %s%s", what, name_of(request.kind), request.bytes,
                        request.shared                      ? "shared"
                        : in_device_region(request.address) ? "global"
                                                            : "other",
                        static_cast<const void*>(request.address), lines_of(request.pc).c_str(), more.c_str()),
                 cudaErrorIllegalAddress);
}

[[noreturn, gnu::noinline]] void agent_found(const char* what, const Request& request, uint32_t pc) {
    const ExecutorScope scope;
    found(what, request, "; by asynchronous work that began at " + lines_of(expanded(pc)));
}

[[noreturn, gnu::noinline]] void race_found(const char* what, const Request& request, const char* other, int thread,
                                            uint32_t pc) {
    const ExecutorScope scope;
    found(what, request, format("; %s by thread %d at %s", other, thread, lines_of(expanded(pc)).c_str()));
}

/// Who accessed: a warp, or the agent of asynchronous work.
int agent_of(uint16_t who) { return who & kAgent ? who & kThread : (who & kThread) / kLanes; }

enum class Order { Before, OtherBlock, SameInterval };
/// Of an access by `other`, as a cell has it, before one that comes after `clock`. A barrier of the block orders
/// threads, but no asynchronous work.
Order order_of(uint32_t when, uint16_t other, const Clock& clock) {
    if (when < launch_start) return Order::Before;
    if (when < block_start) return Order::OtherBlock;
    const bool synced = when < all_synced && !(other & kAgent);
    return synced || when < clock[agent_of(other)] ? Order::Before : Order::SameInterval;
}

[[gnu::noinline]] void check_against_write(const Cell& cell, const Request& request, int me) {
    const bool was_atomic = cell.write.thread & kAtomic;
    const int writer = cell.write.thread & kThread;
    if (cell.write.thread & kCopying && cell.write.when >= block_start) {
        if (cell.write.thread & kAgent)
            agent_found("use of the target of a bulk copy in flight", request, cell.write.pc);
        race_found("use of the target of a cp.async before its wait", request, "copied", writer, cell.write.pc);
    }
    if (was_atomic && request.kind == Access::Atomic) return;
    const Order order = order_of(cell.write.when, cell.write.thread, seen[me / kLanes]);
    if (cell.write.thread & kAgent) {
        if (order == Order::SameInterval) agent_found("race with a bulk copy", request, cell.write.pc);
        return;
    }
    if (order == Order::Before || writer == me) {
        if (order != Order::OtherBlock) return;
    }
    const char* const other = was_atomic ? "atomic operation" : "written";
    if (order == Order::OtherBlock) {
        if (!request.shared && !fenced) race_found("race between blocks", request, other, writer, cell.write.pc);
        return;
    }
    const int warp = me / kLanes;
    if (writer / kLanes == warp && cell.write.warp_when < warp_now[warp]) return;
    const bool same_warp = writer / kLanes == warp;
    race_found(same_warp ? "race inside a warp" : "race between warps", request, other, writer, cell.write.pc);
}

[[gnu::noinline]] void check_against_read(const Cell& cell, const Request& request, int me) {
    const int reader = cell.read.thread & kThread;
    const Order order = order_of(cell.read.when, cell.read.thread, seen[me / kLanes]);
    if (order == Order::Before) return;
    if (cell.read.thread & kAgent) {
        if (order == Order::SameInterval) agent_found("race with asynchronous reads", request, cell.read.pc);
        return;
    }
    if (order == Order::OtherBlock) {
        if (!request.shared && !fenced) race_found("race between blocks", request, "read", reader, cell.read.pc);
        return;
    }
    const int warp = me / kLanes;
    const bool others = cell.read.thread & (kSameWarp | kOtherWarps);
    const bool same_warp = reader / kLanes == warp && !(cell.read.thread & kOtherWarps);
    if ((reader == me && !others) || (same_warp && cell.read.warp_when < warp_now[warp])) return;
    race_found(same_warp ? "race inside a warp" : "race between warps", request, "read", reader, cell.read.pc);
}

size_t cells_of(const void* p, size_t bytes) {
    return ((reinterpret_cast<uintptr_t>(p) % kGrain) + bytes + kGrain - 1) / kGrain;
}

void check_cells(Cell* cells, const Request& request, uint16_t flags = 0) {
    const int me = self().number;
    const bool reads = request.kind == Access::Read;
    const uint32_t past = request.shared ? block_start : launch_start;
    const Mark mine = mark_of(me, request.pc, request.kind == Access::Atomic ? kAtomic : flags);
    const size_t count = cells_of(request.address, request.bytes);
    for (Cell* cell = cells; cell < cells + count; ++cell) {
        if (request.shared && cell->write.when < block_start) {
            if (request.kind != Access::Write) found("read of unwritten memory", request);
        } else if (!is_settled(cell->write, me, past)) {
            check_against_write(*cell, request, me);
        }
        if (reads) {
            remember_read(cell->read, mine);
        } else {
            if (!is_settled(cell->read, me, past)) check_against_read(*cell, request, me);
            cell->write = mine;
        }
    }
}

void check_life(const Request& request) {
    uint8_t* const first = life + (request.address - global_begin) / kGrain;
    const size_t count = cells_of(request.address, request.bytes);
    uint64_t eight;
    std::memcpy(&eight, first, sizeof eight);
    if (count <= sizeof eight && (eight ^ kAllWritten) << 8 * (sizeof eight - count) == 0) return;
    for (size_t i = 0; i < count; ++i) {
        if (first[i] == kUnallocated) found("out of bounds", request);
        if (first[i] == kUnwritten && request.kind != Access::Write) found("read of unwritten memory", request);
        if (request.kind != Access::Read) first[i] = kWritten;
    }
}

bool is_global(const char* p) { return static_cast<size_t>(p - global_begin) < global_bytes; }
bool is_shared(const char* p) { return static_cast<size_t>(p - shared_begin) < kSharedRegion; }
Cell* shared_cell(const void* p) { return shared_cells + (static_cast<const char*>(p) - shared_begin) / kGrain; }

bool is_constant(const char* p) {
    const auto* const arguments = static_cast<const char*>(current_launch().arguments.get());
    return (p >= program_begin && p < program_end) ||
           (p >= arguments && p < arguments + current_launch().argument_bytes);
}

void access_other_memory(const Request& request) {
    if (request.kind == Access::Read && is_constant(request.address)) return;
    if (is_sparse(request.address, request.bytes) || is_pinned(request.address)) return;
    found(is_on_a_stack(request.address) ? "access to another thread's local variable" : "host memory used by a kernel",
          request);
}

}  // namespace

RegisterWatch watch_registers = nullptr;

void begin_launch() {
    if (!program_begin) find_program();
    if (!shared_cells) shared_begin = shared_base(), shared_cells = reserve<Cell>(kSharedRegion / kGrain);
    if (now > ~0u - (1u << 24)) {  // All that is remembered belongs to the past anyway.
        madvise(shared_cells, kSharedRegion / kGrain * sizeof(Cell), MADV_DONTNEED);
        if (global_cells) madvise(global_cells, global_bytes / kGrain * sizeof(Cell), MADV_DONTNEED);
        now = 1;
    }
    launch_start = ++now;
}

void begin_block() {
    block_start = all_synced = ++now;
    if (clocks_used) {
        for (Clock& clock : seen) clock = {};
        for (Clock& clock : announced) clock = {};
        std::memset(proxy_fences, 0, sizeof proxy_fences);
        clocks_used = false;
    }
    watch_registers = nullptr;
    std::memset(warp_now, 0, sizeof warp_now);
    fenced = false;
}

void Clock::join(const Clock& other) {
    for (int agent = 0; agent < kAgents; ++agent) last[agent] = std::max(last[agent], other.last[agent]);
}

void block_barrier() {
    all_synced = ++now;
    if (!clocks_used) return;
    Clock all;
    for (const Clock& clock : seen) all.join(clock);
    for (Clock& clock : seen) clock = all;
}

void publish(Clock& clock, int warp) {
    clocks_used = true;
    clock.join(seen[warp]);
    clock[warp] = ++now;
}

void acquire(int warp, const Clock& clock) {
    clocks_used = true;
    seen[warp].join(clock);
}

const Clock& clock_of(int warp) { return seen[warp]; }
uint32_t next_moment() { return ++now; }
uint32_t last_block_barrier() { return all_synced; }

void arrived(int id, int warp) { publish(announced[id], warp); }
void released(int id, int warp) { acquire(warp, announced[id]); }
void completed(int id) { announced[id] = {}; }

void proxy_fence(int thread) {
    clocks_used = true;
    uint32_t* const fences = proxy_fences[thread];
    std::memmove(fences + 1, fences, (kFences - 1) * sizeof *fences);
    fences[0] = ++now;
}

void warp_barrier(int warp) { ++warp_now[warp]; }
void fence() { fenced = true; }
uint64_t access_count() { return accesses; }

void access(const void* p, size_t bytes, Access kind, const void* pc) {
    const auto* address = static_cast<const char*>(p);
    if (self().stack.has(address)) {
        if (watch_registers) watch_registers(address, bytes, kind, pc);
    } else if (is_global(address) || is_shared(address)) {
        if (kind != Access::Atomic)
            begin_access();
        else
            ++accesses;
        check(address, bytes, kind, pc);
    } else {
        access_other_memory({address, bytes, kind, pc, false});
    }
}

void check(const char* address, size_t bytes, Access kind, const void* pc) {
    const Request request{address, bytes, kind, pc, is_shared(address)};
    if (request.shared) {
        const char* const end = end_of_shared_variable(address);
        if (!end || address + bytes > end) found("out of bounds", request);
        check_cells(shared_cell(address), request);
    } else {
        check_life(request);
        check_cells(global_cells + (address - global_begin) / kGrain, request);
    }
}

void atomic_operation(const void* p, size_t bytes, const void* pc) {
    const ExecutorScope scope;
    if (reinterpret_cast<uintptr_t>(p) % bytes) {
        kernel_fault(
            format("misaligned access: atomic operation on %zu bytes at %p, at %s", bytes, p, lines_of(pc).c_str()),
            cudaErrorMisalignedAddress);
    }
    preempt();
    access(p, bytes, Access::Atomic, pc);
}

namespace {

// Of a thread's access that asynchronous work comes after: was it made known to the asynchronous proxy in between?
bool is_fenced(uint32_t when, int thread, const AsyncAccess& work) {
    for (const uint32_t fence : proxy_fences[thread]) {
        if (when < fence && (fence < work.block_barrier || fence < work.clock[thread / kLanes])) return true;
    }
    return false;
}

void check_earlier(uint32_t when, uint16_t who, uint32_t pc, const char* other, const Request& request,
                   const AsyncAccess& work) {
    const bool ordered =
        when < work.clock[agent_of(who)] || (!(who & kAgent) && when < work.block_barrier) || when < block_start;
    if (when < block_start) return;
    if (who & kAgent) {
        if (!ordered) agent_found("race between asynchronous works", request, pc);
        return;
    }
    if (!ordered) race_found("race with a thread", request, other, who & kThread, pc);
    if (!is_fenced(when, who & kThread, work)) race_found("missing proxy fence", request, other, who & kThread, pc);
}

}  // namespace

void async_access(const void* p, size_t bytes, Access kind, const AsyncAccess& work, const void* pc) {
    Request request{static_cast<const char*>(p), bytes, kind, pc, true};
    const char* const end = end_of_shared_variable(p);
    if (!end || request.address + bytes > end) found("out of bounds", request);
    Cell* const cells = shared_cell(p);
    const auto who = static_cast<uint16_t>(work.agent | kAgent);
    for (Cell* cell = cells; cell < cells + bytes / kGrain; ++cell) {
        if (cell->write.when >= block_start) {
            if (cell->write.thread & kCopying)
                agent_found("use of the target of a bulk copy in flight", request, cell->write.pc);
            check_earlier(cell->write.when, cell->write.thread, cell->write.pc, "written", request, work);
        } else if (kind == Access::Read) {
            found("read of unwritten memory", request);
        }
        if (kind == Access::Read) {
            cell->read.when = work.moment, cell->read.pc = compact(pc), cell->read.thread = who;
        } else {
            check_earlier(cell->read.when, cell->read.thread, cell->read.pc, "read", request, work);
            cell->write.when = work.moment, cell->write.pc = compact(pc);
            cell->write.thread = static_cast<uint16_t>(who | kCopying);
        }
    }
}

void async_written(const void* p, size_t bytes, uint32_t moment) {
    Cell* const cells = shared_cell(p);
    for (Cell* cell = cells; cell < cells + bytes / kGrain; ++cell) {
        cell->write.when = moment;
        cell->write.thread = static_cast<uint16_t>(cell->write.thread & ~kCopying);
    }
}

void copy_issued(const void* to, size_t bytes, const void* pc) {
    check_cells(shared_cell(to), {static_cast<const char*>(to), bytes, Access::Write, pc, true}, kCopying);
}

void copy_done(const void* to, size_t bytes, const void* pc) {
    Cell* const cells = shared_cell(to);
    for (size_t i = 0; i < bytes / kGrain; ++i) cells[i].write = mark_of(self().number, pc);
}

void attach(char* base, size_t bytes) {
    global_begin = base;
    global_bytes = bytes;
    global_cells = reserve<Cell>(bytes / kGrain);
    life = reserve<uint8_t>(bytes / kGrain + sizeof(uint64_t));
}

namespace {
void set_life(const void* p, size_t bytes, Life value) {
    std::memset(life + (static_cast<const char*>(p) - global_begin) / kGrain, value, cells_of(p, bytes));
}
}  // namespace

void allocated(const void* p, size_t bytes) { set_life(p, bytes, kUnwritten); }
void freed(const void* p, size_t bytes) { set_life(p, bytes, kUnallocated); }
void written(const void* p, size_t bytes) {
    if (bytes > 0 && p >= global_begin && p < global_begin + global_bytes) set_life(p, bytes, kWritten);
}

bool is_written(const void* p, size_t bytes) {
    if (is_sparse(p, bytes)) return true;
    const uint8_t* const first = life + (static_cast<const char*>(p) - global_begin) / kGrain;
    return std::all_of(first, first + cells_of(p, bytes), [](uint8_t one) { return one == kWritten; });
}

}  // namespace cuda_on_cpu::race
