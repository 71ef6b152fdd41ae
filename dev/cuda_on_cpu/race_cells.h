// What the race checker remembers of memory, and the check that nearly every access passes: tsan_hooks.cpp does it in
// place, and race_checker.cpp looks again, and says what is wrong, where it fails.
#pragma once

#include "dev/cuda_on_cpu/race_checker.h"
#include "dev/cuda_on_cpu/scheduler.h"
#include "dev/cuda_on_cpu/shared_memory.h"

#include <cstddef>
#include <cstdint>

namespace cuda_on_cpu::race {

constexpr size_t kGrain = 2;  ///< Bytes for each cell: a bf16.

/// Who accessed a cell last.
///
/// Intervals between barriers are numbered through all blocks and launches. A `when` below the launch's first number
/// means an earlier launch, below the block's first an earlier block of this launch, below that of the last
/// __syncthreads an earlier interval of this block. What named barriers order besides is known by pairs of warps
/// (vector clocks).
struct Mark {
    uint32_t when, pc;
    uint16_t thread;  ///< With flags.
    uint16_t warp_when;
};
struct Cell {
    Mark write, read;
};

constexpr uint16_t kThread = 0x03ff;
constexpr uint16_t kAgent = 0x0800;       ///< Asynchronous work did it; the thread's bits have the agent's number.
constexpr uint16_t kCopying = 0x1000;     ///< A copy into it is under way.
constexpr uint16_t kOtherWarps = 0x2000;  ///< More readers in this interval, of several warps,
constexpr uint16_t kSameWarp = 0x4000;    ///< or of one.
constexpr uint16_t kAtomic = 0x8000;

enum Life : uint8_t { kUnallocated = 0, kUnwritten = 1, kWritten = 2 };
constexpr uint64_t kAllWritten = 0x0202020202020202;

inline uint32_t now = 1, block_start = 1, launch_start = 1, all_synced = 1;
inline uint16_t warp_now[kMaxWarps];
inline uint64_t accesses = 0;

inline char* global_begin = nullptr;  ///< The region of all device memory.
inline size_t global_bytes = 0;
inline Cell* global_cells = nullptr;
inline uint8_t* life = nullptr;  ///< Of each grain of the device region.
inline char* shared_begin = nullptr;
inline Cell* shared_cells = nullptr;

inline char* program_begin = nullptr;  ///< The program's own image: constants there may be read.
inline char* program_end = nullptr;

inline uint32_t compact(const void* pc) { return static_cast<uint32_t>(static_cast<const char*>(pc) - program_begin); }

/// Of an access that happens now.
inline Mark mark_of(int thread, const void* pc, uint16_t flags = 0) {
    return {now, compact(pc), static_cast<uint16_t>(thread | flags), warp_now[thread / kLanes]};
}

/// Another thread may run before an access.
inline void begin_access() {
    ++accesses;
    if ((random_bits() & 63) == 0) preempt();
}

/// Of an access to shared or global memory: remembers it, or says what is wrong.
void check(const char* address, size_t bytes, Access kind, const void* pc);

/// Whether a mark is what most are, and no race: from before `past`, of thread `me`, or of a thread before the block's
/// last barrier.
inline bool is_settled(const Mark& mark, int me, uint32_t past) {
    const bool of_thread = !(mark.thread & (kAgent | kCopying));
    const bool ordered = (mark.thread == me) | ((mark.when < all_synced) & of_thread);
    return (mark.when < past) | ((mark.when >= block_start) & ordered);
}

inline void remember_read(Mark& last, Mark mine) {
    const int warp = mine.thread / kLanes, reader = last.thread & kThread;
    // Reads by this warp alone, before its last barrier: whatever follows comes after them.
    const bool is_past = reader / kLanes == warp && !(last.thread & kOtherWarps) && last.warp_when < mine.warp_when;
    if (last.when == now && !(last.thread & kAgent) && !is_past) {
        if (reader != mine.thread) mine.thread |= reader / kLanes == warp ? kSameWarp : kOtherWarps;
        mine.thread |= last.thread & (kSameWarp | kOtherWarps);
    }
    last = mine;
}

/// A read or write of neighbouring cells: if every mark is settled, and what is read was written, remembers the access;
/// else nothing changes. Shared memory counts as written in this block alone.
template <Access kind, size_t cells, bool shared>
bool remember_if_settled(Cell* first, const void* pc) {
    const int me = self().number;
    const uint32_t past = shared ? block_start : launch_start;
    bool good = true;
    for (size_t i = 0; i < cells; ++i) {
        good &= is_settled(first[i].write, me, shared && kind == Access::Read ? 0 : past);
        if (kind == Access::Write) good &= is_settled(first[i].read, me, past);
    }
    if (!good) return false;
    const Mark mine = mark_of(me, pc);
    for (size_t i = 0; i < cells; ++i) {
        if (kind == Access::Read)
            remember_read(first[i].read, mine);
        else
            first[i].write = mine;
    }
    return true;
}

/// Whether all of `cells` neighbours, the first at `first`, are written.
template <size_t cells>
bool all_written(const uint8_t* first) {
    static_assert(cells <= sizeof kAllWritten);
    uint64_t eight;
    __builtin_memcpy(&eight, first, sizeof eight);
    return (eight ^ kAllWritten) << 8 * (sizeof eight - cells) == 0;
}

/// access() of an aligned read or write.
template <Access kind, size_t bytes>
void access_aligned(const char* address, const void* pc) {
    constexpr size_t cells = (bytes + kGrain - 1) / kGrain;
    const auto in_shared = static_cast<size_t>(address - shared_begin) / kGrain;
    const auto in_global = static_cast<size_t>(address - global_begin) / kGrain;
    bool good;
    if (in_shared < kSharedRegion / kGrain && address + bytes <= end_of_shared_variable(address)) {
        begin_access();
        good = remember_if_settled<kind, cells, true>(shared_cells + in_shared, pc);
    } else if (in_global < global_bytes / kGrain && all_written<cells>(life + in_global)) {
        begin_access();
        good = remember_if_settled<kind, cells, false>(global_cells + in_global, pc);
    } else {
        return access(address, bytes, kind, pc);
    }
    if (!good) check(address, bytes, kind, pc);
}

}  // namespace cuda_on_cpu::race
