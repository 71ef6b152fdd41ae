#include "llmc/comm/place_file.h"

#include "tests/comm/comm_testing.h"
#include "tests/io/temp_dir.h"

#include <fstream>
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
        std::filesystem::permissions(folder.write("place", "yours"), std::filesystem::perms(0600));
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
    for (const mode_t mode : {0666, 0644, 0660, 0604}) {
        ASSERT_EQ(chmod(path.c_str(), mode), 0);
        EXPECT_TRUE(has(error_of([&] { read_place_file(path); }), {"can be read or written by others"}));
    }
    if (geteuid() != 0) GTEST_SKIP() << "only root can give a file away";
    ASSERT_EQ(chmod(path.c_str(), 0600), 0);
    ASSERT_EQ(chown(path.c_str(), 12345, 12345), 0);
    EXPECT_TRUE(has(error_of([&] { read_place_file(path); }), {"another user's"}));
}

/// Of what lies there only a file of its owner's is opened, and no more of it than one may be long.
TEST(PlaceFile, WhatIsNoSuchFileIsNotRead) {
    const TempDir folder;
    const std::string path = folder / "place";
    {
        const PlaceFile file(path, "mine");
        std::filesystem::remove(path);
        EXPECT_TRUE(has(error_of([&] { read_place_file(path); }), {"cannot open", "no such file"}));
        std::ofstream(path).close();
        std::filesystem::permissions(path, std::filesystem::perms(0600));
        std::filesystem::resize_file(path, uint64_t{8} << 40);
        EXPECT_TRUE(has(error_of([&] { read_place_file(path); }), {"too long"}));
    }
    EXPECT_TRUE(std::filesystem::exists(path)) << "it is not this one's";
    std::filesystem::rename(path, folder / "elsewhere");
    std::filesystem::create_symlink(folder / "elsewhere", path);
    EXPECT_TRUE(has(error_of([&] { read_place_file(path); }), {"cannot open"}));
    std::filesystem::remove(path);
    std::filesystem::create_directory(path);
    EXPECT_TRUE(has(error_of([&] { read_place_file(path); }), {"no regular file"}));
    std::filesystem::remove(path);
    ASSERT_EQ(mkfifo(path.c_str(), 0600), 0);
    EXPECT_TRUE(has(error_of([&] { read_place_file(path); }), {"no regular file"}));
}

}  // namespace
}  // namespace llmc
