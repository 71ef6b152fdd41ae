#include "dev/cuda_on_cpu/warp_operations.h"

#include "dev/cuda_on_cpu/race_checker.h"
#include "dev/cuda_on_cpu/scheduler.h"
#include "dev/cuda_on_cpu/shared_memory.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace cuda_on_cpu {

namespace {

struct Meeting {
    const char* name;
    unsigned mask = 0, arrived = 0, left = 0;  // Lanes that came, and those that have gone again.
    Where where;
    const void* pc;
    union Slot {
        uint64_t value;
        struct {
            uint32_t a[4], b[2];
            float c[4];
        } mma;
        struct {
            const void* row;
            uint32_t r[4];
        } ldmatrix;
    } slots[kLanes];
};

// Meetings under way in each warp. A lane may be in the next one while others still leave the last.
constexpr int kMeetings = 2 * kLanes;
Meeting meetings[kMaxWarps][kMeetings];
int meeting_count[kMaxWarps];  // Those beyond have never been used in this block.

Meeting& join(unsigned mask, const char* name, const void* pc, const Where& where) {
    Thread& thread = self();
    const int warp = thread.warp();
    const unsigned bit = 1u << thread.lane();
    if (!(mask & bit)) {
        kernel_fault(format("wrong mask: lane %d calls %s with mask %08x, which does not name it, at %s", thread.lane(),
                            name, mask, lines_of(pc, where).c_str()));
    }
    Meeting* found = nullptr;
    Meeting* unused = nullptr;
    for (int i = 0; i < meeting_count[warp]; ++i) {
        Meeting& one = meetings[warp][i];
        if (one.mask == mask && one.arrived != mask && !(one.arrived & bit)) {
            found = &one;
            break;
        }
        if (one.mask == 0) unused = &one;
    }
    if (!found) {
        const unsigned gone = mask & exited_lanes(warp);
        if (gone) {
            kernel_fault(
                format("wrong mask: %s with mask %08x at %s names lanes that have exited or do not exist (%08x)", name,
                       mask, lines_of(pc, where).c_str(), gone));
        }
        found = unused ? unused : &meetings[warp][meeting_count[warp]++];
        found->name = name;
        found->mask = mask;
        found->arrived = found->left = 0;
        found->where = where;
        found->pc = pc;
    } else if (!same_place(found->where, where)) {
        kernel_fault(format(
            "divergent warp operation: lane %d calls %s at %s, others of its mask %08x wait in %s at %s", thread.lane(),
            name, lines_of(pc, where).c_str(), mask, found->name, lines_of(found->pc, found->where).c_str()));
    }
    return *found;
}

// The caller's slot must be filled. `work` is done once, by the last lane to come.
template <typename Work>
void meet(Meeting& meeting, const void* pc, const Where& where, Work work) {
    Thread& thread = self();
    meeting.arrived |= 1u << thread.lane();
    if (meeting.arrived == meeting.mask) {
        work(meeting);
        for (unsigned lanes = meeting.mask; lanes; lanes &= lanes - 1) {
            wake(thread_of_block(thread.warp() * kLanes + std::countr_zero(lanes)));
        }
    }
    thread.operation = meeting.name;
    thread.mask = meeting.mask;
    suspend(thread, State::InWarpOperation, pc, where);
}

void leave(Meeting& meeting) {
    meeting.left |= 1u << self().lane();
    if (meeting.left == meeting.mask) meeting.mask = 0;
}

constexpr auto kNothing = [](Meeting&) {};

float from_bf16(uint32_t bits) { return std::bit_cast<float>(bits << 16); }
float low(uint32_t pair) { return from_bf16(pair & 0xffffu); }
float high(uint32_t pair) { return from_bf16(pair >> 16); }

void multiply(Meeting& meeting) {
    float a[16][16], b[16][8], d[16][8];
    for (int lane = 0; lane < kLanes; ++lane) {
        const auto& slot = meeting.slots[lane].mma;
        const int group = lane / 4, pair = 2 * (lane % 4);
        for (int i = 0; i < 4; ++i) {
            const int row = group + 8 * (i % 2), column = pair + 8 * (i / 2);
            a[row][column] = low(slot.a[i]);
            a[row][column + 1] = high(slot.a[i]);
            d[group + 8 * (i / 2)][pair + i % 2] = slot.c[i];
        }
        for (int i = 0; i < 2; ++i) {
            b[pair + 8 * i][group] = low(slot.b[i]);
            b[pair + 8 * i + 1][group] = high(slot.b[i]);
        }
    }
    for (int m = 0; m < 16; ++m) {
        for (int k = 0; k < 16; ++k) {
            for (int n = 0; n < 8; ++n) d[m][n] += a[m][k] * b[k][n];
        }
    }
    for (int lane = 0; lane < kLanes; ++lane) {
        for (int i = 0; i < 4; ++i) meeting.slots[lane].mma.c[i] = d[lane / 4 + 8 * (i / 2)][2 * (lane % 4) + i % 2];
    }
}

void load_matrices(Meeting& meeting, int matrices, bool transposed) {
    uint16_t elements[8][8];
    for (int m = 0; m < matrices; ++m) {
        for (int row = 0; row < 8; ++row) std::memcpy(elements[row], meeting.slots[8 * m + row].ldmatrix.row, 16);
        for (int lane = 0; lane < kLanes; ++lane) {
            const int i = lane / 4, j = 2 * (lane % 4);
            const uint32_t first = transposed ? elements[j][i] : elements[i][j];
            const uint32_t second = transposed ? elements[j + 1][i] : elements[i][j + 1];
            meeting.slots[lane].ldmatrix.r[m] = first | second << 16;
        }
    }
}

}  // namespace

void reset_warp_operations() {
    for (int warp = 0; warp * kLanes < thread_count(); ++warp) {
        for (int i = 0; i < meeting_count[warp]; ++i) meetings[warp][i].mask = 0;
        meeting_count[warp] = 0;
    }
}

uint64_t shuffle(Shuffle kind, unsigned mask, uint64_t value, int argument, int width, const Where& where) {
    const void* const pc = __builtin_return_address(0);
    const ExecutorScope scope;
    const int lane = self().lane(), first = lane & ~(width - 1);
    int source = lane;
    const char* name = "";
    switch (kind) {
        case Shuffle::Index: name = "__shfl_sync", source = first | (argument & (width - 1)); break;
        case Shuffle::Up: name = "__shfl_up_sync", source = lane - argument < first ? lane : lane - argument; break;
        case Shuffle::Down:
            name = "__shfl_down_sync", source = lane + argument >= first + width ? lane : lane + argument;
            break;
        case Shuffle::Xor:
            name = "__shfl_xor_sync", source = (lane ^ argument) >= first + width ? lane : lane ^ argument;
            break;
    }
    Meeting& meeting = join(mask, name, pc, where);
    if (!(mask >> source & 1)) {
        kernel_fault(format("wrong mask: %s at %s reads lane %d, which mask %08x does not name", name,
                            lines_of(pc, where).c_str(), source, mask));
    }
    meeting.slots[lane].value = value;
    meet(meeting, pc, where, kNothing);
    const uint64_t result = meeting.slots[source].value;
    leave(meeting);
    return result;
}

unsigned ballot(unsigned mask, bool predicate, const char* name, const Where& where) {
    const void* const pc = __builtin_return_address(0);
    const ExecutorScope scope;
    Meeting& meeting = join(mask, name, pc, where);
    meeting.slots[self().lane()].value = predicate;
    meet(meeting, pc, where, kNothing);
    unsigned result = 0;
    for (int lane = 0; lane < kLanes; ++lane) {
        if ((mask >> lane & 1) && meeting.slots[lane].value) result |= 1u << lane;
    }
    leave(meeting);
    return result;
}

unsigned reduce(Reduction kind, unsigned mask, unsigned value, bool is_signed, const Where& where) {
    const void* const pc = __builtin_return_address(0);
    const ExecutorScope scope;
    Meeting& meeting = join(mask, "__reduce_sync", pc, where);
    meeting.slots[self().lane()].value = value;
    meet(meeting, pc, where, kNothing);
    unsigned result = value;  // Its own value comes twice, unless they are added.
    if (kind == Reduction::Add || kind == Reduction::Xor) result = 0;
    for (int lane = 0; lane < kLanes; ++lane) {
        if (!(mask >> lane & 1)) continue;
        const auto other = static_cast<unsigned>(meeting.slots[lane].value);
        const bool less = is_signed ? static_cast<int>(other) < static_cast<int>(result) : other < result;
        switch (kind) {
            case Reduction::Add: result += other; break;
            case Reduction::Min: result = less ? other : result; break;
            case Reduction::Max: result = less ? result : other; break;
            case Reduction::And: result &= other; break;
            case Reduction::Or: result |= other; break;
            case Reduction::Xor: result ^= other; break;
        }
    }
    leave(meeting);
    return result;
}

void warp_barrier(unsigned mask, const Where& where) {
    const void* const pc = __builtin_return_address(0);
    const ExecutorScope scope;
    Meeting& meeting = join(mask, "__syncwarp", pc, where);
    meet(meeting, pc, where, [](Meeting&) { race::warp_barrier(self().warp()); });
    leave(meeting);
}

void mma_m16n8k16(float* d, const uint32_t* a, const uint32_t* b, const float* c, const Where& where) {
    const void* const pc = __builtin_return_address(0);
    const ExecutorScope scope;
    Meeting& meeting = join(~0u, "mma_m16n8k16", pc, where);
    auto& slot = meeting.slots[self().lane()].mma;
    std::copy_n(a, 4, slot.a);
    std::copy_n(b, 2, slot.b);
    std::copy_n(c, 4, slot.c);
    meet(meeting, pc, where, multiply);
    std::copy_n(slot.c, 4, d);
    leave(meeting);
}

void ldmatrix(uint32_t* r, int matrices, bool transposed, const void* row, const Where& where) {
    const void* const pc = __builtin_return_address(0);
    const ExecutorScope scope;
    Meeting& meeting = join(~0u, "ldmatrix", pc, where);
    auto& slot = meeting.slots[self().lane()].ldmatrix;
    slot.row = row;
    if (self().lane() < 8 * matrices) {
        if (reinterpret_cast<uintptr_t>(row) % 16) {
            kernel_fault(format("misaligned access: ldmatrix of a row at %p, not a multiple of 16, at %s", row,
                                lines_of(pc, where).c_str()));
        }
        if (!end_of_shared_variable(row)) {
            kernel_fault(format("out of bounds: ldmatrix of %p, which is not in shared memory, at %s", row,
                                lines_of(pc, where).c_str()));
        }
        race::access(row, 16, race::Access::Read, pc);
    }
    meet(meeting, pc, where, [&](Meeting& all) { load_matrices(all, matrices, transposed); });
    std::copy_n(slot.r, matrices, r);
    leave(meeting);
}

}  // namespace cuda_on_cpu
