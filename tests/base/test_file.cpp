#include "llmc/base/file.h"

#include "tests/io/file_limit.h"
#include "tests/io/temp_dir.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <thread>

namespace llmc {
namespace {

std::vector<std::string> entries(const std::string& folder) {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(folder)) names.push_back(entry.path().filename());
    std::sort(names.begin(), names.end());
    return names;
}

std::span<const std::byte> bytes_of(std::string_view text) {
    return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

TEST(WriteTextAtomically, ReplacesTheOldContentAndLeavesNothingElse) {
    const TempDir dir;
    const std::string path = dir / "state.json";
    write_text_atomically(path, "first, and longer than the second");
    EXPECT_EQ(read_text(path), "first, and longer than the second");
    write_text_atomically(path, "second");
    EXPECT_EQ(read_text(path), "second");
    write_text_atomically(path, "");
    EXPECT_EQ(read_text(path), "");
    EXPECT_EQ(entries(dir.path()), std::vector<std::string>{"state.json"});
}

TEST(WriteTextAtomically, AFailureNamesThePathAndLeavesNoRest) {
    const TempDir dir;
    EXPECT_TRUE(has(error_of([&] { write_text_atomically(dir / "no_such/x.json", "text"); }),
                    {dir / "no_such/x.json", "No such file or directory"}));
    std::filesystem::create_directories(dir / "folder/inner");  // A file cannot be renamed over a folder.
    EXPECT_TRUE(has(error_of([&] { write_text_atomically(dir / "folder", "text"); }), {dir / "folder"}));
    EXPECT_EQ(entries(dir.path()), std::vector<std::string>{"folder"});
}

TEST(WriteTextAtomically, AFullDiskKeepsTheOldContent) {
    const TempDir dir;
    const std::string path = dir.write("state.json", "old");
    const std::string message =
        error_with_file_limit(1000, [&] { write_text_atomically(path, std::string(5000, 'x')); });
    EXPECT_TRUE(has(message, {path, "File too large"}));
    EXPECT_EQ(read_text(path), "old");
    EXPECT_EQ(entries(dir.path()), std::vector<std::string>{"state.json"});
}

TEST(WriteSharedText, HasTheWholeContentOfOneWriter) {
    const TempDir dir;
    const std::string path = dir / "times.json";
    std::vector<std::string> errors(4);
    std::vector<std::thread> writers;
    for (size_t i = 0; i < errors.size(); ++i) {
        writers.emplace_back([&, i] {
            const std::string text(1000 + i, static_cast<char>('a' + i));
            for (int times = 0; times < 10 && errors[i].empty(); ++times) {
                try {
                    write_shared_text(path, text);
                } catch (const Error& error) {
                    errors[i] = error.what();
                }
            }
        });
    }
    for (std::thread& writer : writers) writer.join();
    EXPECT_EQ(errors, std::vector<std::string>(4));
    const std::string text = read_text(path);
    ASSERT_FALSE(text.empty());
    EXPECT_EQ(text, std::string(1000 + static_cast<size_t>(text[0] - 'a'), text[0]));
    EXPECT_EQ(entries(dir.path()), std::vector<std::string>{"times.json"});
}

TEST(FileWriter, AFullDiskIsAnErrorAndTheFileIsRemoved) {
    const TempDir dir;
    const std::string path = dir / "weights.bin";
    const std::string message = error_with_file_limit(4096, [&] {
        FileWriter writer(path);
        const std::string block(1000, 'y');
        for (int i = 0; i < 10; ++i) writer.write(block);
        writer.close();
    });
    EXPECT_TRUE(has(message, {path, "File too large", "removed"}));
    EXPECT_FALSE(path_exists(path));
}

TEST(FileWriter, AFileThatWasNotClosedIsRemoved) {
    const TempDir dir;
    {
        FileWriter writer(dir / "half.bin");
        writer.write("half");
        EXPECT_TRUE(path_exists(dir / "half.bin"));
    }
    EXPECT_FALSE(path_exists(dir / "half.bin"));
    {
        FileWriter writer(dir / "whole.bin");
        writer.write("whole");
        writer.close();
    }
    EXPECT_EQ(slurp(dir / "whole.bin"), "whole");
}

TEST(FileWriter, ReplacesALongerFile) {
    const TempDir dir;
    const std::string path = dir.write("x", "a long old content");
    FileWriter writer(path);
    writer.write("new");
    writer.close();
    EXPECT_EQ(slurp(path), "new");
}

TEST(FileWriter, CannotCreateNamesThePathAndTheReason) {
    const TempDir dir;
    EXPECT_TRUE(has(error_of([&] { FileWriter(dir / "none/x"); }), {dir / "none/x", "No such file or directory"}));
}

TEST(Checksum, IsXxh3AndDoesNotDependOnThePieces) {
    // Of nothing: a test vector of xxHash itself.
    EXPECT_EQ(checksum_of({}), "2d06800538d394c2");
    const TempDir dir;
    const std::string text = "The quick brown fox jumps over the lazy dog, " + std::string(3000, 'z');
    const std::string expected = checksum_of(bytes_of(text));
    EXPECT_EQ(expected.size(), 16u);
    for (const size_t piece : {size_t{1}, size_t{7}, size_t{256}, text.size()}) {
        FileWriter writer(dir / "pieces");
        for (size_t i = 0; i < text.size(); i += piece) writer.write(std::string_view(text).substr(i, piece));
        EXPECT_EQ(writer.checksum(), expected);
        writer.close();
        EXPECT_EQ(writer.checksum(), expected);
    }
    EXPECT_EQ(checksum_of(MappedFile(dir / "pieces").bytes()), expected);
}

TEST(Checksum, SeesEveryFlippedBit) {
    std::string data(40, 'q');
    const std::string before = checksum_of(bytes_of(data));
    for (size_t bit = 0; bit < data.size() * 8; ++bit) {
        data[bit / 8] = static_cast<char>(data[bit / 8] ^ (1 << bit % 8));
        EXPECT_NE(checksum_of(bytes_of(data)), before) << "bit " << bit;
        data[bit / 8] = static_cast<char>(data[bit / 8] ^ (1 << bit % 8));
    }
}

TEST(MappedFile, MapsTheWholeFileAndMoves) {
    const TempDir dir;
    MappedFile file(dir.write("data", std::string("a\0b\n", 4)));
    EXPECT_EQ(file.size(), 4);
    EXPECT_EQ(file.text(), std::string_view("a\0b\n", 4));
    EXPECT_EQ(file.path(), dir / "data");
    const std::byte* where = file.data();
    MappedFile moved = std::move(file);
    EXPECT_EQ(moved.data(), where);
    MappedFile assigned;
    assigned = std::move(moved);
    EXPECT_EQ(assigned.text(), std::string_view("a\0b\n", 4));
    EXPECT_EQ(MappedFile(dir.write("empty", "")).size(), 0);
}

TEST(MappedFile, ErrorsNameThePath) {
    const TempDir dir;
    EXPECT_TRUE(has(error_of([&] { MappedFile(dir / "missing"); }), {dir / "missing", "No such file or directory"}));
    EXPECT_TRUE(has(error_of([&] { MappedFile(dir.path()); }), {dir.path(), "not a regular file"}));
    ASSERT_EQ(mkfifo((dir / "pipe").c_str(), 0600), 0);  // Nobody writes to it.
    EXPECT_TRUE(has(error_of([&] { read_text(dir / "pipe"); }), {dir / "pipe", "not a regular file"}));
    EXPECT_TRUE(has(error_of([&] { read_text(dir / "missing"); }), {dir / "missing"}));
}

TEST(MakeDirectories, CreatesParentsAndNamesTheOption) {
    const TempDir dir;
    make_directories(dir / "a/b/c", "--output-dir");
    EXPECT_TRUE(is_directory(dir / "a/b/c"));
    make_directories(dir / "a/b/c", "--output-dir");
    dir.write("file", "");
    EXPECT_TRUE(
        has(error_of([&] { make_directories(dir / "file/sub", "--output-dir"); }), {"--output-dir", dir / "file/sub"}));
    EXPECT_FALSE(is_directory(dir / "file"));
    EXPECT_TRUE(path_exists(dir / "file"));
}

TEST(GlobPaths, SortsAndReturnsPlainNamesAsTheyAre) {
    const TempDir dir;
    for (const char* name : {"b.bin", "a.bin", "c.txt", "x[1].bin"}) dir.write(name, "");
    EXPECT_EQ(glob_paths(dir / "[abc].bin"), (std::vector<std::string>{dir / "a.bin", dir / "b.bin"}));
    EXPECT_EQ(glob_paths(dir / "?.txt"), std::vector<std::string>{dir / "c.txt"});
    EXPECT_EQ(glob_paths(dir / "missing.bin"), std::vector<std::string>{dir / "missing.bin"});
    EXPECT_EQ(glob_paths(dir / "x[1].bin"), std::vector<std::string>{dir / "x[1].bin"})
        << "an existing file is no pattern";
    EXPECT_TRUE(glob_paths(dir / "*.none").empty());
}

TEST(MappedFile, AGitLfsPointerIsNamed) {
    const TempDir dir;
    const std::string pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:12ab\nsize 5\n";
    EXPECT_TRUE(has(error_of([&] { MappedFile(dir.write("a.json", pointer)); }),
                    {"a.json' is a Git LFS pointer", "git lfs pull"}));
    EXPECT_EQ(MappedFile(dir.write("b.txt", pointer + std::string(1024, 'x'))).size(),
              static_cast<int64_t>(pointer.size()) + 1024);
}

TEST(UnnamedFile, HoldsWhatWasWritten) {
    UnnamedFile file("a test");
    const std::string part(1'000'000, 'x');
    for (int i = 0; i < 3; ++i) file.write(part);
    const MappedFile mapped = file.map("the name");
    EXPECT_EQ(mapped.path(), "the name");
    EXPECT_EQ(mapped.text(), part + part + part);
    setenv("TMPDIR", "/proc/none", 1);
    EXPECT_EQ(UnnamedFile("a test").map("x").size(), 0);  // Where there is no such folder, /tmp is taken.
    unsetenv("TMPDIR");
}

}  // namespace
}  // namespace llmc
