#include "llmc/comm/place_file.h"

#include "tests/comm/comm_testing.h"
#include "tests/io/temp_dir.h"

#include <sys/stat.h>

namespace llmc {
namespace {

TEST(PlaceFile, IsRemovedUnlessItIsAnotherRuns) {
    const TempDir folder;
    const std::string path = folder / "place";
    {
        const PlaceFile file(path, "mine");
        EXPECT_EQ(slurp(path), "mine");
    }
    EXPECT_FALSE(std::filesystem::exists(path));
    {
        const PlaceFile file(path, "mine");
        folder.write("place", "yours");
    }
    EXPECT_EQ(slurp(path), "yours");
}

TEST(PlaceFile, IsItsOwnersAloneWhateverLiesInItsPlace) {
    const TempDir folder;
    const std::string path = folder / "place";
    folder.write("victim", "precious");
    for (const char* name : {"place.tmp", "place"}) {
        std::filesystem::create_symlink(folder / "victim", folder / name);
        const PlaceFile file(path, "secret");
        EXPECT_EQ(slurp(folder / "victim"), "precious");
        EXPECT_EQ(read_place_file(path), "secret");
        struct stat info = {};
        ASSERT_EQ(lstat(path.c_str(), &info), 0);
        EXPECT_EQ(info.st_mode & 07777, 0600u);
    }
}

TEST(PlaceFile, WhatOthersCanWriteIsNotBelieved) {
    const TempDir folder;
    const std::string path = folder / "place";
    folder.write("place", "somebody's");
    ASSERT_EQ(chmod(path.c_str(), 0666), 0);
    EXPECT_TRUE(has(error_of([&] { read_place_file(path); }), {"can be written by others"}));
    if (geteuid() != 0) GTEST_SKIP() << "only root can give a file away";
    ASSERT_EQ(chmod(path.c_str(), 0600), 0);
    ASSERT_EQ(chown(path.c_str(), 12345, 12345), 0);
    EXPECT_TRUE(has(error_of([&] { read_place_file(path); }), {"another user's"}));
}

}  // namespace
}  // namespace llmc
