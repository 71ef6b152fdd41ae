#include "dev/cuda_on_cpu/race_checker.h"

#include "dev/cuda_on_cpu/fiber.h"
#include "dev/cuda_on_cpu/memory.h"
#include "dev/cuda_on_cpu/scheduler.h"
#include "dev/cuda_on_cpu/shared_memory.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <link.h>
#include <sys/mman.h>

namespace cuda_on_cpu::race {

namespace {

constexpr size_t kGrain = 2;  // Bytes for each cell: a bf16.

// Intervals between barriers are numbered through all blocks and launches. A `when` below the launch's first number
// means an earlier launch, below the block's first an earlier block of this launch, below that of the last
// __syncthreads an earlier interval of this block. What named barriers order besides is known by pairs of warps (vector
// clocks).
struct Cell {
    uint32_t write_when, read_when;
    uint32_t write_pc, read_pc;
    uint16_t write_thread, read_thread;  // With flags.
    uint16_t write_warp_when, read_warp_when;
};

constexpr uint16_t kThread = 0x03ff;
constexpr uint16_t kCopying = 0x1000;     // A cp.async into it is under way.
constexpr uint16_t kOtherWarps = 0x2000;  // More readers in this interval, of several warps,
constexpr uint16_t kSameWarp = 0x4000;    // or of one.
constexpr uint16_t kAtomic = 0x8000;

enum Life : uint8_t { kUnallocated = 0, kUnwritten = 1, kWritten = 2 };
constexpr uint64_t kAllWritten = 0x0202020202020202;

uint32_t now = 1, block_start = 1, launch_start = 1, all_synced = 1;

// seen[a][b]: what warp b did before that number comes before what warp a does next. announced[id]: the same for those
// who wait at a named barrier, of what has arrived there so far. In blocks without named barriers all are 0.
uint32_t seen[kMaxWarps][kMaxWarps], announced[16][kMaxWarps];
bool named_barriers_used = false;

uint16_t warp_now[kMaxWarps];
bool fenced = false;
uint64_t accesses = 0;

char* global_base = nullptr;
size_t global_bytes = 0;
Cell* global_cells = nullptr;
uint8_t* life = nullptr;  // Of each grain of the device region.
Cell* shared_cells = nullptr;

char* program_begin = nullptr;  // The program's own image: constants there may be read.
char* program_end = nullptr;

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

uint32_t compact(const void* pc) { return static_cast<uint32_t>(static_cast<const char*>(pc) - program_begin); }
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

[[noreturn, gnu::noinline]] void race_found(const char* what, const Request& request, const char* other, int thread,
                                            uint32_t pc) {
    const ExecutorScope scope;
    found(what, request, format("; %s by thread %d at %s", other, thread, lines_of(expanded(pc)).c_str()));
}

enum class Order { Before, OtherBlock, SameInterval };
/// Of an access by thread `other` before one by thread `me`.
Order order_of(uint32_t when, int other, int me) {
    if (when < launch_start) return Order::Before;
    if (when < block_start) return Order::OtherBlock;
    return when < all_synced || when < seen[me / kLanes][other / kLanes] ? Order::Before : Order::SameInterval;
}

void check_against_write(const Cell& cell, const Request& request, int me) {
    const bool was_atomic = cell.write_thread & kAtomic;
    const int writer = cell.write_thread & kThread;
    if (cell.write_thread & kCopying && cell.write_when >= block_start) {
        race_found("use of the target of a cp.async before its wait", request, "copied", writer, cell.write_pc);
    }
    if (was_atomic && request.kind == Access::Atomic) return;
    const Order order = order_of(cell.write_when, writer, me);
    if (order == Order::Before || writer == me) {
        if (order != Order::OtherBlock) return;
    }
    const char* const other = was_atomic ? "atomic operation" : "written";
    if (order == Order::OtherBlock) {
        if (!request.shared && !fenced) race_found("race between blocks", request, other, writer, cell.write_pc);
        return;
    }
    const int warp = me / kLanes;
    if (writer / kLanes == warp && cell.write_warp_when < warp_now[warp]) return;
    const bool same_warp = writer / kLanes == warp;
    race_found(same_warp ? "race inside a warp" : "race between warps", request, other, writer, cell.write_pc);
}

void check_against_read(const Cell& cell, const Request& request, int me) {
    if (cell.read_when == 0) return;
    const int reader = cell.read_thread & kThread;
    const Order order = order_of(cell.read_when, reader, me);
    if (order == Order::Before) return;
    if (order == Order::OtherBlock) {
        if (!request.shared && !fenced) race_found("race between blocks", request, "read", reader, cell.read_pc);
        return;
    }
    const int warp = me / kLanes;
    const bool others = cell.read_thread & (kSameWarp | kOtherWarps);
    const bool same_warp = reader / kLanes == warp && !(cell.read_thread & kOtherWarps);
    if ((reader == me && !others) || (same_warp && cell.read_warp_when < warp_now[warp])) return;
    race_found(same_warp ? "race inside a warp" : "race between warps", request, "read", reader, cell.read_pc);
}

void remember_read(Cell& cell, int me, uint32_t pc) {
    uint16_t flags = 0;
    if (cell.read_when == now) {
        const int reader = cell.read_thread & kThread;
        flags = cell.read_thread & (kSameWarp | kOtherWarps);
        if (reader != me) flags |= reader / kLanes == me / kLanes ? kSameWarp : kOtherWarps;
    }
    cell.read_when = now;
    cell.read_pc = pc;
    cell.read_thread = static_cast<uint16_t>(me) | flags;
    cell.read_warp_when = warp_now[me / kLanes];
}

void remember_write(Cell& cell, int me, uint32_t pc, uint16_t flags) {
    cell.write_when = now;
    cell.write_pc = pc;
    cell.write_thread = static_cast<uint16_t>(me) | flags;
    cell.write_warp_when = warp_now[me / kLanes];
}

size_t cells_of(const void* p, size_t bytes) {
    return ((reinterpret_cast<uintptr_t>(p) % kGrain) + bytes + kGrain - 1) / kGrain;
}

void check_cells(Cell* cells, const Request& request, uint16_t flags = 0) {
    const int me = self().number;
    const uint32_t pc = compact(request.pc);
    const size_t count = cells_of(request.address, request.bytes);
    for (Cell* cell = cells; cell < cells + count; ++cell) {
        if (request.shared && cell->write_when < block_start) {
            if (request.kind != Access::Write) found("read of unwritten memory", request);
        } else if (cell->write_when != 0) {
            check_against_write(*cell, request, me);
        }
        if (request.kind == Access::Read) {
            remember_read(*cell, me, pc);
        } else {
            check_against_read(*cell, request, me);
            remember_write(*cell, me, pc, request.kind == Access::Atomic ? kAtomic : flags);
        }
    }
}

void check_life(const Request& request) {
    uint8_t* const first = life + (request.address - global_base) / kGrain;
    const size_t count = cells_of(request.address, request.bytes);
    uint64_t eight;
    std::memcpy(&eight, first, sizeof eight);
    if (count == sizeof eight && eight == kAllWritten) return;
    for (size_t i = 0; i < count; ++i) {
        if (first[i] == kUnallocated) found("out of bounds", request);
        if (first[i] == kUnwritten && request.kind != Access::Write) found("read of unwritten memory", request);
        if (request.kind != Access::Read) first[i] = kWritten;
    }
}

Cell* shared_cell(const void* p) { return shared_cells + (static_cast<const char*>(p) - shared_base()) / kGrain; }

void access_host_memory(const Request& request) {
    const auto* arguments = static_cast<const char*>(current_launch().arguments.get());
    if (is_on_a_stack(request.address)) found("access to another thread's local variable", request);
    if (is_pinned(request.address)) return;
    const bool constant =
        (request.address >= program_begin && request.address < program_end) ||
        (request.address >= arguments && request.address < arguments + current_launch().argument_bytes);
    if (constant && request.kind == Access::Read) return;
    found("host memory used by a kernel", request);
}

}  // namespace

void begin_launch() {
    if (!program_begin) find_program();
    if (!shared_cells) shared_cells = reserve<Cell>(kSharedRegion / kGrain);
    if (now > ~0u - (1u << 24)) {  // All that is remembered belongs to the past anyway.
        madvise(shared_cells, kSharedRegion / kGrain * sizeof(Cell), MADV_DONTNEED);
        if (global_cells) madvise(global_cells, global_bytes / kGrain * sizeof(Cell), MADV_DONTNEED);
        now = 1;
    }
    launch_start = ++now;
}

void begin_block() {
    block_start = all_synced = ++now;
    if (named_barriers_used) {
        std::memset(seen, 0, sizeof seen);
        std::memset(announced, 0, sizeof announced);
        named_barriers_used = false;
    }
    std::memset(warp_now, 0, sizeof warp_now);
    fenced = false;
}

void block_barrier() { all_synced = ++now; }

void arrived(int id, int warp) {
    named_barriers_used = true;
    for (int other = 0; other < kMaxWarps; ++other)
        announced[id][other] = std::max(announced[id][other], seen[warp][other]);
    announced[id][warp] = ++now;
}

void released(int id, int warp) {
    for (int other = 0; other < kMaxWarps; ++other)
        seen[warp][other] = std::max(seen[warp][other], announced[id][other]);
}

void completed(int id) { std::memset(announced[id], 0, sizeof announced[id]); }
void warp_barrier(int warp) { ++warp_now[warp]; }
void fence() { fenced = true; }
uint64_t access_count() { return accesses; }

void access(const void* p, size_t bytes, Access kind, const void* pc) {
    const Thread& thread = self();
    const auto* address = static_cast<const char*>(p);
    const Stack stack = stack_of_thread(thread.number);
    if (address >= stack.low && address < stack.high) return;
    Request request{address, bytes, kind, pc, false};
    const bool global = global_base && address >= global_base && address < global_base + global_bytes;
    request.shared = !global && address >= shared_base() && address < shared_base() + kSharedRegion;
    if (!global && !request.shared) {
        access_host_memory(request);
        return;
    }
    ++accesses;
    if (kind != Access::Atomic && (random_bits() & 63) == 0) preempt();
    if (global) {
        check_life(request);
        check_cells(global_cells + (address - global_base) / kGrain, request);
    } else {
        const char* const end = end_of_shared_variable(p);
        if (!end || address + bytes > end) found("out of bounds", request);
        check_cells(shared_cell(p), request);
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

void copy_issued(const void* to, size_t bytes, const void* pc) {
    check_cells(shared_cell(to), {static_cast<const char*>(to), bytes, Access::Write, pc, true}, kCopying);
}

void copy_done(const void* to, size_t bytes, const void* pc) {
    Cell* const cells = shared_cell(to);
    for (size_t i = 0; i < bytes / kGrain; ++i) remember_write(cells[i], self().number, compact(pc), 0);
}

void attach(char* base, size_t bytes) {
    global_base = base;
    global_bytes = bytes;
    global_cells = reserve<Cell>(bytes / kGrain);
    life = reserve<uint8_t>(bytes / kGrain + sizeof(uint64_t));
}

namespace {
void set_life(const void* p, size_t bytes, Life value) {
    std::memset(life + (static_cast<const char*>(p) - global_base) / kGrain, value, cells_of(p, bytes));
}
}  // namespace

void allocated(const void* p, size_t bytes) { set_life(p, bytes, kUnwritten); }
void freed(const void* p, size_t bytes) { set_life(p, bytes, kUnallocated); }
void written(const void* p, size_t bytes) {
    if (bytes > 0 && p >= global_base && p < global_base + global_bytes) set_life(p, bytes, kWritten);
}

bool is_written(const void* p, size_t bytes) {
    const uint8_t* const first = life + (static_cast<const char*>(p) - global_base) / kGrain;
    return std::all_of(first, first + cells_of(p, bytes), [](uint8_t one) { return one == kWritten; });
}

}  // namespace cuda_on_cpu::race
