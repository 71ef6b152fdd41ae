#include "llmc/base/mapped_reading.h"

#include "llmc/base/last_words.h"
#include "tests/io/temp_dir.h"

#include <cstring>
#include <new>
#include <omp.h>
#include <unistd.h>

namespace llmc {
namespace {

constexpr int64_t kPage = 4096;

TEST(MappedReading, WhatIsThereCanBeRead) {
    const TempDir folder;
    const MappedFile file(folder.write("file", std::string(10 * kPage + 17, 'x')));
    require_readable(file, 0, file.size());
    require_readable(file, file.size() - 1, 1);
    require_readable(file, file.size(), 0);
}

TEST(MappedReading, AFileThatIsCutIsNamed) {
    const TempDir folder;
    const std::string path = folder.write("file", std::string(10 * kPage, 'x'));
    end_well_on_failed_reads();
    const MappedFile file(path);
    // To a whole number of pages, and to a part of one, whose rest would be zeros.
    for (const int64_t left : {9 * kPage, 8 * kPage + 5, int64_t{0}}) {
        ASSERT_EQ(truncate(path.c_str(), left), 0);
        const std::string error = error_of([&] { require_readable(file, 0, file.size()); });
        EXPECT_EQ(error.find("cannot read '" + path + "': it was cut while it was in use"), 0u) << error;
    }
    ASSERT_EQ(truncate(path.c_str(), 10 * kPage), 0);  // Put back, if with zeros.
    require_readable(file, 0, file.size());
}

TEST(MappedReading, WhatIsCutWhileItIsTakenIsNotBelieved) {
    const TempDir folder;
    const std::string path = folder.write("file", std::string(2 * kPage, 'x'));
    const MappedFile file(path);
    std::string taken(20, ' ');
    const auto take = [&](const std::byte* from) { std::memcpy(taken.data(), from, taken.size()); };
    read_mapped(file, kPage, 20, take);
    EXPECT_EQ(taken, std::string(20, 'x'));
    const auto cut_and_take = [&](const std::byte* from) {
        ASSERT_EQ(truncate(path.c_str(), kPage + 5), 0);
        take(from);
    };
    const std::string error = error_of([&] { read_mapped(file, kPage, 20, cut_and_take); });
    EXPECT_EQ(error.find("cannot read '" + path + "': it was cut while it was in use"), 0u) << error;
}

TEST(MappedReading, AFileThatIsReplacedIsStillTheOldOne) {
    const TempDir folder;
    const std::string path = folder.write("file", std::string(3 * kPage, 'x'));
    const MappedFile file(path);
    folder.write("new", "short");
    std::filesystem::rename(folder / "new", path);
    require_readable(file, 0, file.size());
    EXPECT_EQ(file.text().back(), 'x');
}

/// Where nobody has asked before. (Death tests run in a process of their own.)
TEST(MappedReadingDeathTest, AReadThatFailsEndsWithALineAndNoSignal) {
    GTEST_FLAG_SET(death_test_style, "threadsafe");
    const TempDir folder;
    const std::string path = folder.write("file", std::string(3 * kPage, 'x'));
    const auto read_what_is_cut = [&] {
        end_well_on_failed_reads();
        const MappedFile file(path);
        if (truncate(path.c_str(), kPage) != 0) _exit(9);
        char sum = 0;
        for (const char c : file.text()) sum = static_cast<char>(sum + c);
        _exit(sum == 0 ? 8 : 7);
    };
    EXPECT_EXIT(read_what_is_cut(), testing::ExitedWithCode(kExitFailed),
                "^[0-9:]* E cannot read '.*/file': it was cut while it was read, or its disk fails\n$");
}

TEST(LastWordsDeathTest, WhatNobodyCatchesIsALine) {
    GTEST_FLAG_SET(death_test_style, "threadsafe");
    const auto throw_in_a_parallel_loop = [] {
        end_with_last_words();
#pragma omp parallel for num_threads(2)
        for (int i = 0; i < 2; ++i) throw std::bad_alloc();
    };
    EXPECT_EXIT(throw_in_a_parallel_loop(), testing::ExitedWithCode(kExitFailed), "E out of memory: an allocation");
}

}  // namespace
}  // namespace llmc
