#include "dev/cuda_on_cpu/sparse_memory.h"

#include <iterator>
#include <map>
#include <sys/mman.h>

namespace cuda_on_cpu {

namespace {

constexpr size_t kPage = 4096;
constexpr size_t kGuard = size_t{64} << 30;  ///< 2^32 elements of up to 16 bytes.

std::map<const char*, size_t> sparse;  ///< Sizes by begin.

size_t mapped_bytes(size_t bytes) { return (bytes + kPage - 1) / kPage * kPage; }

}  // namespace

void* allocate_sparse(size_t bytes) {
    constexpr int kKind = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    const size_t mapped = mapped_bytes(bytes);
    void* const all = mmap(nullptr, mapped + 2 * kGuard, PROT_NONE, kKind, -1, 0);
    if (all == MAP_FAILED) return nullptr;
    char* const data = static_cast<char*>(all) + kGuard;
    madvise(data, mapped, MADV_NOHUGEPAGE);  // A touched element is to cost a page, not 512.
    if (mprotect(data, mapped, PROT_READ | PROT_WRITE) != 0) {
        munmap(all, mapped + 2 * kGuard);
        return nullptr;
    }
    sparse[data] = bytes;
    return data;
}

void free_sparse(void* p) {
    const auto found = sparse.find(static_cast<char*>(p));
    if (found == sparse.end()) return;
    munmap(static_cast<char*>(p) - kGuard, mapped_bytes(found->second) + 2 * kGuard);
    sparse.erase(found);
}

bool is_sparse(const void* p, size_t bytes) {
    if (sparse.empty()) return false;
    const auto* const address = static_cast<const char*>(p);
    const auto after = sparse.upper_bound(address);
    if (after == sparse.begin()) return false;
    const auto& [begin, size] = *std::prev(after);
    return static_cast<size_t>(address - begin) + bytes <= size;
}

}  // namespace cuda_on_cpu
