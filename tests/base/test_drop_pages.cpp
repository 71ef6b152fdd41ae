#include "llmc/base/drop_pages.h"
#include "llmc/base/file.h"
#include "tests/io/temp_dir.h"

#include <gtest/gtest.h>

#include <fstream>
#include <numeric>
#include <unistd.h>

namespace llmc {
namespace {

/// Of this process, of mapped files.
int64_t resident_file_bytes() {
    int64_t all = 0, resident = 0, shared = 0;
    std::ifstream("/proc/self/statm") >> all >> resident >> shared;
    return shared * sysconf(_SC_PAGESIZE);
}

int64_t sum_of(const MappedFile& file) { return std::accumulate(file.text().begin(), file.text().end(), int64_t{0}); }

TEST(DropPages, LeavesTheContentAndFreesTheMemory) {
    constexpr int64_t kBytes = 32 << 20;
    const TempDir dir;
    const MappedFile file(dir.write("large", std::string(kBytes, 'x')));
    const int64_t sum = sum_of(file);
    const int64_t before = resident_file_bytes();
    drop_pages(file.bytes());
    EXPECT_LT(resident_file_bytes(), before - kBytes / 2);
    EXPECT_EQ(sum_of(file), sum);
}

TEST(DropPages, OfAnyRange) {
    const TempDir dir;
    const MappedFile file(dir.write("small", std::string(20000, 'y')));
    for (const size_t first : {0, 1, 4095, 4096, 19999, 20000}) {
        for (const size_t count : {0, 1, 4096, 8191}) {
            if (first + count <= 20000) drop_pages(file.bytes().subspan(first, count));
        }
    }
    drop_pages({});
    EXPECT_EQ(sum_of(file), 20000 * 'y');
}

}  // namespace
}  // namespace llmc
