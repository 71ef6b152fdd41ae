#include "dev/cuda_on_cpu/bulk_copy.h"

#include "dev/cuda_on_cpu/async_work.h"
#include "dev/cuda_on_cpu/fiber.h"
#include "dev/cuda_on_cpu/mbarrier.h"
#include "dev/cuda_on_cpu/memory.h"
#include "dev/cuda_on_cpu/race_checker.h"
#include "dev/cuda_on_cpu/scheduler.h"
#include "dev/cuda_on_cpu/shared_memory.h"
#include "dev/cuda_on_cpu/tensor_map.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <vector>

namespace cuda_on_cpu {

namespace {

constexpr int kChunk = 16;  // What the swizzle moves, and the unit of alignment.

/// Chunks of 16 bytes: where each lies in shared memory and in global memory, null outside of the tensor.
struct Piece {
    char* shared;
    char* global;
    int bytes;
};

struct Stores {
    struct One {
        uint64_t ticket;
        int group;
        const void* pc;
    };
    std::vector<One> under_way;
    int group = 0;
};
std::map<int, Stores> stores;  // By thread.

struct Load {
    uint64_t ticket;
    std::string place;
    bool done = false;
};
std::vector<std::shared_ptr<Load>> loads;

/// The pieces of the box at `coordinates`, in the order of their shared addresses before the swizzle.
std::vector<Piece> pieces_of(const TensorMap& map, void* shared, const int* coordinates) {
    std::vector<Piece> pieces;
    const int rows = map.box_bytes() / (map.box[0] * map.element_bytes), row_bytes = map.box[0] * map.element_bytes;
    const uint32_t start = shared_address(shared);
    for (int row = 0; row < rows; ++row) {
        char* from = map.base;
        bool inside = true;
        for (int i = 1, rest = row; i < map.rank; rest /= map.box[i], ++i) {
            const int64_t at = int64_t{coordinates[i]} + rest % map.box[i];
            inside = inside && at >= 0 && at <= map.last[i];
            from += at * static_cast<int64_t>(map.strides[i - 1]);
        }
        for (int byte = 0; byte < row_bytes; byte += kChunk) {
            const int64_t first = int64_t{coordinates[0]} * map.element_bytes + byte;
            const int64_t end = (int64_t{map.last[0]} + 1) * map.element_bytes;
            uint32_t address = start + static_cast<uint32_t>(row * row_bytes + byte);
            if (map.swizzle_bytes > 0) address = swizzled(address, map.swizzle_bytes);
            const bool valid = inside && first >= 0 && first < end;
            const auto bytes = static_cast<int>(std::min<int64_t>(kChunk, end - first));
            pieces.push_back({shared_pointer(address), valid ? from + first : nullptr, valid ? bytes : 0});
        }
    }
    return pieces;
}

void check_target(const TensorMap& map, const void* shared, const char* what, const std::string& place) {
    const int alignment = map.swizzle_bytes == 128  ? 1024
                          : map.swizzle_bytes == 64 ? 512
                          : map.swizzle_bytes       ? 256
                                                    : 128;
    const char* const end = end_of_shared_variable(shared);
    if (!end || static_cast<const char*>(shared) + map.box_bytes() > end)
        kernel_fault(format("out of bounds: %s of %d bytes at %p, which end outside of its shared variable, at %s",
                            what, map.box_bytes(), shared, place.c_str()));
    if (shared_address(shared) % static_cast<uint32_t>(alignment))
        kernel_fault(format("misaligned access: %s at shared address %u, not a multiple of %d, at %s", what,
                            shared_address(shared), alignment, place.c_str()));
}

void check_rank(const TensorMap& map, int rank, const std::string& place) {
    if (map.rank != rank)
        kernel_fault(format("a map of %d dimensions is used with %d coordinates at %s", map.rank, rank, place.c_str()));
}

void check_global(const std::vector<Piece>& pieces, bool read, const std::string& place) {
    for (const Piece& piece : pieces) {
        if (!piece.global) continue;
        if (!is_device_memory(piece.global, static_cast<size_t>(piece.bytes)))
            kernel_fault(format("out of bounds: a bulk copy touches %p, which is no device memory, at %s",
                                static_cast<void*>(piece.global), place.c_str()),
                         cudaErrorIllegalAddress);
        if (read && !race::is_written(piece.global, static_cast<size_t>(piece.bytes)))
            kernel_fault(format("read of unwritten memory: a bulk copy reads %p, at %s",
                                static_cast<void*>(piece.global), place.c_str()),
                         cudaErrorIllegalAddress);
    }
}

race::AsyncAccess access_of(int agent) {
    return {agent, race::next_moment(), race::last_block_barrier(), race::clock_of(self().warp())};
}

void start_load(std::vector<Piece> pieces, int bytes, uint64_t* barrier, const void* pc, const Where& where) {
    const std::string place = lines_of(pc, where);
    const race::AsyncAccess access = access_of(mbarrier_agent(barrier, pc, where));
    check_global(pieces, true, place);
    for (const Piece& piece : pieces) race::async_access(piece.shared, kChunk, race::Access::Write, access, pc);
    auto load = std::make_shared<Load>(Load{0, place});
    loads.push_back(load);
    load->ticket = start_async_work(-1, [pieces = std::move(pieces), bytes, barrier, access, load] {
        load->done = true;
        for (const Piece& piece : pieces) {
            if (piece.bytes < kChunk) std::memset(piece.shared, 0, kChunk);
            if (piece.global) std::memcpy(piece.shared, piece.global, static_cast<size_t>(piece.bytes));
            race::async_written(piece.shared, kChunk, access.moment);
        }
        race::Clock clock;
        clock[access.agent] = access.moment + 1;
        mbarrier_complete(barrier, bytes, clock);
    });
}

}  // namespace

void tensor_load(void* shared, const CUtensorMap* encoded, uint64_t* barrier, std::initializer_list<int> coordinates,
                 const Where& where) {
    const void* const pc = __builtin_return_address(0);
    const ExecutorScope scope;
    preempt();
    const std::string place = lines_of(pc, where);
    const TensorMap map = decode(encoded, place);
    check_rank(map, static_cast<int>(coordinates.size()), place);
    check_target(map, shared, "a tensor load", place);
    start_load(pieces_of(map, shared, coordinates.begin()), map.box_bytes(), barrier, pc, where);
}

void bulk_load(void* shared, const void* global, int bytes, uint64_t* barrier, const Where& where) {
    const void* const pc = __builtin_return_address(0);
    const ExecutorScope scope;
    preempt();
    const std::string place = lines_of(pc, where);
    const bool aligned = reinterpret_cast<uintptr_t>(global) % kChunk == 0 && shared_address(shared) % kChunk == 0;
    if (!aligned || bytes <= 0 || bytes % kChunk)
        kernel_fault(format("misaligned access: a bulk load of %d bytes from %p to %p: multiples of 16, at %s", bytes,
                            global, shared, place.c_str()));
    std::vector<Piece> pieces;
    for (int byte = 0; byte < bytes; byte += kChunk)
        pieces.push_back(
            {static_cast<char*>(shared) + byte, const_cast<char*>(static_cast<const char*>(global)) + byte, kChunk});
    start_load(std::move(pieces), bytes, barrier, pc, where);
}

void tensor_store(const CUtensorMap* encoded, const void* shared, std::initializer_list<int> coordinates,
                  const Where& where) {
    const void* const pc = __builtin_return_address(0);
    const ExecutorScope scope;
    preempt();
    const std::string place = lines_of(pc, where);
    const TensorMap map = decode(encoded, place);
    check_rank(map, static_cast<int>(coordinates.size()), place);
    check_target(map, shared, "a tensor store", place);
    for (const int coordinate : coordinates) {
        if (coordinate < 0)
            kernel_fault(format("a tensor store at coordinate %d, below 0, at %s", coordinate, place.c_str()));
    }
    std::vector<Piece> pieces = pieces_of(map, const_cast<void*>(shared), coordinates.begin());
    check_global(pieces, false, place);
    const race::AsyncAccess access = access_of(race::kStoreAgent);
    for (const Piece& piece : pieces) race::async_access(piece.shared, kChunk, race::Access::Read, access, pc);
    Stores& mine = stores[self().number];
    const uint64_t ticket = start_async_work(-1, [pieces = std::move(pieces)] {
        for (const Piece& piece : pieces) {
            if (!piece.global) continue;
            std::memcpy(piece.global, piece.shared, static_cast<size_t>(piece.bytes));
            race::written(piece.global, static_cast<size_t>(piece.bytes));
        }
    });
    mine.under_way.push_back({ticket, mine.group, pc});
}

void async_proxy_fence() {
    const ExecutorScope scope;
    race::proxy_fence(self().number);
}

void bulk_commit() {
    const ExecutorScope scope;
    ++stores[self().number].group;
}

void bulk_wait(int pending_groups) {
    const ExecutorScope scope;
    Stores& mine = stores[self().number];
    const int last = mine.group - pending_groups;
    std::erase_if(mine.under_way, [last](const Stores::One& store) {
        if (store.group >= last) return false;
        finish_async_work(store.ticket);
        return true;
    });
    if (!mine.under_way.empty()) return;
    race::Clock clock;
    clock[race::kStoreAgent] = race::next_moment();
    race::acquire(self().warp(), clock);
}

void check_stores_at_exit() {
    const auto mine = stores.find(self().number);
    if (mine == stores.end() || mine->second.under_way.empty()) return;
    kernel_fault("a thread exits before its bulk store has read its source: " +
                 lines_of(mine->second.under_way.front().pc));
}

void check_copies_at_end() {
    for (const auto& load : loads) {
        if (!load->done) kernel_fault("the block ends while a bulk load is in flight: " + load->place);
    }
}

void reset_bulk_copies() {
    stores.clear();
    loads.clear();
}

}  // namespace cuda_on_cpu
