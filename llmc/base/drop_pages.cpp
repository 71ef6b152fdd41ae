#include "llmc/base/drop_pages.h"

#include <cstdint>
#include <sys/mman.h>
#include <unistd.h>

namespace llmc {

void drop_pages(std::span<const std::byte> mapped) {
    const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
    const auto address = reinterpret_cast<uintptr_t>(mapped.data());
    const uintptr_t first = (address + page - 1) / page * page, end = (address + mapped.size()) / page * page;
    if (first >= end) return;
    madvise(reinterpret_cast<void*>(first), end - first, MADV_DONTNEED);  // An advice: it may be ignored.
}

}  // namespace llmc
