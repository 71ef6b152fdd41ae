#include "llmc/base/pending_output.h"
#include "llmc/io/carried_files.h"
#include "tests/io/temp_dir.h"

#include <gtest/gtest.h>

namespace llmc {
namespace {

namespace fs = std::filesystem;

void write_file(const std::string& path, const std::string& text) { std::ofstream(path) << text; }

TEST(PendingOutput, AppearsWhenComplete) {
    const TempDir dir;
    {
        PendingOutput file(dir / "a/b/file.bin", "--out", OutputIs::File);
        write_file(file.temporary(), "x");
        EXPECT_FALSE(fs::exists(dir / "a/b/file.bin"));
        file.complete();
        EXPECT_EQ(slurp(dir / "a/b/file.bin"), "x");
    }
    EXPECT_EQ(slurp(dir / "a/b/file.bin"), "x");
    fs::create_directory(dir / "folder");  // Empty, so it may be there.
    PendingOutput folder(dir / "folder/", "--out", OutputIs::Folder);
    fs::create_directory(folder.temporary());
    write_file(folder.temporary() + "/x", "y");
    folder.complete();
    EXPECT_EQ(slurp(dir / "folder/x"), "y");
}

TEST(PendingOutput, AFailureLeavesNothing) {
    const TempDir dir;
    {
        const PendingOutput folder(dir / "folder", "--out", OutputIs::Folder);
        fs::create_directory(folder.temporary());
        write_file(folder.temporary() + "/x", "y");
    }
    EXPECT_TRUE(fs::is_empty(dir.path()));
}

TEST(PendingOutput, NeverWritesOverSomething) {
    const TempDir dir;
    dir.write("file", "x");
    for (const std::string& path : {dir / "file", dir.path()}) {
        try {
            const PendingOutput output(path, "--out", OutputIs::Folder);
            ADD_FAILURE() << path;
        } catch (const Error& error) {
            EXPECT_EQ(error.exit_code(), kExitBadUsage);
            EXPECT_TRUE(has(error.what(), {"--out=" + path, "already"}));
        }
    }
    EXPECT_EQ(slurp(dir / "file"), "x");
}

TEST(PendingOutput, AFileTakesNoFoldersPlace) {
    const TempDir dir;
    fs::create_directory(dir / "empty");
    const std::string error = error_of([&] { PendingOutput(dir / "empty", "--out", OutputIs::File); });
    EXPECT_TRUE(has(error, {"--out=" + (dir / "empty"), "is a folder", dir / "empty/model"}));
}

TEST(PendingOutput, SpeaksOfWhatWasAskedFor) {
    const TempDir dir;
    const PendingOutput folder(dir / "hf", "--out", OutputIs::Folder);
    const std::string error = error_of([&] {
        folder.write([&] { fail("cannot write '{}/x': full; see '{}'", folder.temporary(), folder.temporary()); });
    });
    EXPECT_TRUE(
        has(error, {"--out=" + (dir / "hf") + ": cannot write '" + (dir / "hf/x") + "'", "choose another place"}));
    EXPECT_EQ(error.find(".tmp-"), std::string::npos) << error;
    EXPECT_EQ(error_of([&] { folder.write([] { fail("the weights are damaged"); }); }), "the weights are damaged");
}

TEST(PendingOutput, RemovesWhatACrashLeft) {
    const TempDir dir;
    const std::string temporary = PendingOutput(dir / "run", "--out", OutputIs::Folder).temporary();
    fs::create_directories(temporary + "/old");
    const PendingOutput output(dir / "run", "--out", OutputIs::Folder);
    EXPECT_FALSE(fs::exists(temporary));
}

TEST(PendingOutput, TwoAtATimeWouldMixTheirFiles) {
    const TempDir dir;
    {
        PendingOutput first(dir / "run", "--out", OutputIs::Folder);
        fs::create_directory(first.temporary());
        write_file(first.temporary() + "/x", "of the first");
        for (const OutputIs kind : {OutputIs::Folder, OutputIs::File}) {
            try {
                const PendingOutput second(dir / "run/", "--out", kind);
                ADD_FAILURE() << "two write one folder";
            } catch (const Error& error) {
                EXPECT_EQ(error.exit_code(), kExitBadUsage);
                EXPECT_TRUE(has(error.what(), {"--out=" + (dir / "run"), "process ", "is writing it"})) << error.what();
            }
        }
        const PendingOutput beside(dir / "run2", "--out", OutputIs::Folder);
        first.complete();
    }
    EXPECT_EQ(slurp(dir / "run/x"), "of the first");
    for (const auto& entry : fs::directory_iterator(dir.path())) EXPECT_EQ(entry.path().filename(), "run");
}

TEST(CarriedFiles, TravelUnchanged) {
    const TempDir dir;
    fs::create_directory(dir / "from");
    dir.write("from/vocab.json", "{}");
    dir.write("from/merges.txt", "#version");
    dir.write("from/model.safetensors", "not this");
    dir.write("from/config.json", R"({"bos_token_id": 1, "eos_token_id": [2, 3], "vocab_size": 4})");
    copy_tokenizer_files(dir / "from", dir / "run/tokenizer");
    EXPECT_EQ(slurp(dir / "run/tokenizer/vocab.json"), "{}");
    EXPECT_EQ(slurp(dir / "run/tokenizer/merges.txt"), "#version");
    EXPECT_FALSE(fs::exists(dir / "run/tokenizer/model.safetensors"));
    EXPECT_FALSE(fs::exists(dir / "run/tokenizer/config.json"));
    EXPECT_EQ(special_token_ids(dir / "run/tokenizer"), R"({"bos_token_id":1,"eos_token_id":[2,3]})");
    EXPECT_EQ(tokenizer_in(dir / "run/tokenizer"), dir / "run/tokenizer");
    EXPECT_EQ(tokenizer_in(dir.path()), "none");

    dir.write("from/generation_config.json", R"({"eos_token_id": 5, "top_p": 0.9})");
    copy_tokenizer_files(dir / "from", dir / "export");
    EXPECT_EQ(slurp(dir / "export/generation_config.json"), R"({"eos_token_id": 5, "top_p": 0.9})");

    copy_tokenizer_files(dir / "from", dir / "from");  // Nothing to do.
    EXPECT_EQ(slurp(dir / "from/vocab.json"), "{}");
    fs::create_directory(dir / "empty");
    copy_tokenizer_files(dir / "empty", dir / "nothing");
    EXPECT_FALSE(fs::exists(dir / "nothing"));
}

}  // namespace
}  // namespace llmc
