// Where a run writes, and what may not be overwritten.
#include "llmc/train/run_folder.h"

#include "llmc/base/file.h"
#include "llmc/base/log.h"
#include "llmc/io/checkpoint_folder.h"
#include "llmc/io/run_record.h"
#include "tests/io/temp_dir.h"
#include "tests/train/words.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <unistd.h>

namespace llmc {
namespace {

namespace fs = std::filesystem;

/// A temporary current folder; the logger that begin() extends is put back afterwards.
class RunFolders : public testing::Test {
  protected:
    RunFolders() : before_(fs::current_path()), logger_(spdlog::default_logger()) {
        init_log("error");
        fs::current_path(dir_.path());
    }
    ~RunFolders() override {
        fs::current_path(before_);
        spdlog::set_default_logger(logger_);
    }
    void make_run(const std::string& folder) const {
        fs::create_directories(folder + "/checkpoints/step-00000010");
        dir_.write(folder + "/checkpoints/step-00000010/manifest.json", "");
        dir_.write(folder + "/config.toml", "");
    }

    TempDir dir_;

  private:
    fs::path before_;
    std::shared_ptr<spdlog::logger> logger_;
};

TEST_F(RunFolders, IsFoundFromItselfAndFromItsCheckpoints) {
    make_run("runs/a");
    for (const char* path : {"runs/a", "runs/a/", "runs/a/checkpoints", "runs/a/checkpoints/",
                             "runs/a/checkpoints/step-00000010", "./runs/../runs/a/checkpoints/step-00000010"}) {
        EXPECT_EQ(find_run_folder(path, "--resume"), "runs/a") << path;
    }
    EXPECT_EQ(find_run_folder(dir_ / "runs/a", "--resume"), dir_ / "runs/a");
}

TEST_F(RunFolders, WhatIsNoneIsNamed) {
    fs::create_directories("empty");
    EXPECT_TRUE(has(error_of([&] { find_run_folder("absent", "--resume"); }), {"--resume=absent: does not exist"}));
    EXPECT_TRUE(has(error_of([&] { find_run_folder("empty", "--resume"); }), {"--resume=empty: has no config.toml"}));
    dir_.write("file", "");
    EXPECT_TRUE(has(error_of([&] { find_run_folder("file", "--resume"); }), {"--resume=file: is a file; give a run"}));
    EXPECT_TRUE(has(error_of([&] { find_run_folder("absent", "report"); }), {"report absent: does not exist"}));
}

TEST_F(RunFolders, ACheckpointOfAnotherRunIsToldFromADamagedName) {
    make_run("old");
    const std::string step = "old/checkpoints/step-00000010";
    const auto refusal = [&](const std::string& run, const std::string& checkpoint) {
        dir_.write("old/run.json", "{\"id\": \"" + run + "\"}");
        dir_.write(step + "/run", checkpoint + "\n");
        return error_of([&] { require_own_checkpoint(step, "old", "old"); });
    };
    EXPECT_TRUE(has(refusal("0123456789abcdef", "0123456789abcde0"), {"is a checkpoint of another run than 'old'"}));
    EXPECT_TRUE(has(refusal("0123456789abcdef", "012345"), {"'" + step + "/run' is damaged: '012345'"}));
    EXPECT_TRUE(has(refusal("0123", "0123456789abcdef"), {"'old/run.json' is damaged: '0123'"}));
}

TEST_F(RunFolders, TheFolderOfRunsIsLeftAsItWas) {
    { const RunFolder folder{Options()}; }
    EXPECT_FALSE(path_exists("runs"));
    fs::create_directory("runs");
    { const RunFolder folder{Options()}; }
    EXPECT_TRUE(path_exists("runs"));
}

TEST_F(RunFolders, ItsOwnAsOutputDirIsWhereItGoesOn) {
    make_run("old");
    dir_.write("old/config.toml", to_toml(parse({"--model=gpt2-nano"})));
    for (const char* same : {"old", "./old/", "old/checkpoints/.."}) {
        EXPECT_EQ(parse({"--resume=old", std::string("--output-dir=") + same}).output_dir, "") << same;
    }
    EXPECT_EQ(parse({"--resume=old", "--output-dir=new"}).output_dir, "new");
}

TEST_F(RunFolders, SaysHowFarItIsWhereGoingBackFails) {
    make_run("old");
    write_run_record("old", {"0123456789abcdef", false, std::nullopt});
    fs::create_directories("old/checkpoints/" + step_name(20));
    dir_.write("old/checkpoints/" + step_name(20) + "/manifest.json", "");
    Options options;
    options.resume = "old/checkpoints/" + step_name(10);
    RunFolder folder(options);
    const auto failure = [&] {
        EXPECT_NE(error_of([&] { folder.begin(options, 10); }), "");
        return error_of([&] { folder.follow(); });
    };
    fs::create_directory("old/metrics.jsonl");  // In the way before the decision.
    EXPECT_TRUE(has(failure(), {"could not be made that of this run, and stays as it was"}));
    fs::remove("old/metrics.jsonl");
    dir_.write("old/abandoned", "");  // In the way after it.
    EXPECT_TRUE(has(failure(), {"could not be made that of this run, and is back at step 10: the next command"}));
}

TEST_F(RunFolders, IsTheOutputDir) {
    Options options;
    options.output_dir = "some/where";
    options.steps = 77;
    for (int time = 0; time < 2; ++time) {  // No checkpoint yet, so nothing is lost by the second one.
        RunFolder folder(options);
        EXPECT_EQ(folder.path(), "some/where");
        EXPECT_FALSE(folder.goes_on());
        folder.begin(options);
        EXPECT_TRUE(has(slurp("some/where/config.toml"), {"steps = 77"}));
        EXPECT_TRUE(path_exists("some/where/train.log"));
    }
}

TEST_F(RunFolders, ANewRunHasNothingOfAnEarlierStart) {
    Options options;
    options.output_dir = "new";
    { RunFolder(options).begin(options); }
    const std::string id = read_run_record("new").id;
    dir_.write("new/metrics.jsonl", "{\"step\":1,\"loss\":1}\n");
    dir_.write("new/samples.jsonl", "{\"step\":1,\"sample\":\"of another\"}\n");
    for (const char* name : {kLatestName, kBestName}) dir_.write("new/checkpoints/" + std::string(name), step_name(7));
    { RunFolder(options).begin(options); }
    EXPECT_NE(read_run_record("new").id, id);
    EXPECT_EQ(slurp("new/metrics.jsonl"), "");
    EXPECT_FALSE(path_exists("new/samples.jsonl"));
    fs::create_directories("new/checkpoints/" + step_name(7));
    dir_.write("new/checkpoints/" + step_name(7) + "/manifest.json", "");
    EXPECT_FALSE(named_step("new", kBestName));
    EXPECT_FALSE(named_step("new", kLatestName));
}

TEST_F(RunFolders, SomebodysOwnTokenizerStays) {
    fs::create_directories("mine/tokenizer");
    Options options;
    options.output_dir = "mine";
    { RunFolder with_nothing_there(options); }
    dir_.write("mine/tokenizer/vocab.json", "{}");
    const auto refusal = [&] { return error_of([&] { RunFolder folder(options); }); };
    EXPECT_TRUE(has(refusal(), {"--output-dir=mine: 'mine/tokenizer' is there", "move it away"}));
    options.tokenizer = "bytes";
    EXPECT_TRUE(has(refusal(), {"--output-dir=mine: 'mine/tokenizer' is there"}));
    for (const char* own : {"mine/tokenizer", "mine/tokenizer/", "./mine/tokenizer/vocab.json"}) {
        options.tokenizer = own;
        RunFolder folder(options);
    }
    write_run_record("mine", {"0123456789abcdef", false, std::nullopt});
    options.tokenizer = "bytes";
    RunFolder of_an_earlier_start(options);
    EXPECT_EQ(slurp("mine/tokenizer/vocab.json"), "{}");
}

TEST_F(RunFolders, KeepsItsNameWhateverBecomesOfTheFile) {
    Options options;
    options.output_dir = "new";
    RunFolder folder(options);
    folder.begin(options);
    dir_.write("new/metrics.jsonl", "");
    const std::string id = read_run_record("new").id;
    EXPECT_FALSE(folder.follow());
    for (const char* content : {"", "{\"id\":", "{\"id\": \"0123456789abcdef\"}"}) {
        dir_.write("new/run.json", content);
        EXPECT_TRUE(folder.follow());
        EXPECT_EQ(read_run_record("new").id, id) << content;
    }
}

TEST_F(RunFolders, NeverHoldsTwoRuns) {
    make_run("old");
    Options options;
    options.output_dir = "old";
    const std::string message = error_of([&] { RunFolder folder(options); });
    EXPECT_TRUE(has(message, {"--output-dir=old", "--resume=old"}));
    EXPECT_EQ(slurp("old/config.toml"), "");
}

TEST_F(RunFolders, WithoutACompleteCheckpointHoldsNoRun) {
    make_run("old");
    fs::remove("old/checkpoints/step-00000010/manifest.json");
    Options options;
    options.output_dir = "old";
    EXPECT_EQ(RunFolder(options).path(), "old");
}

TEST_F(RunFolders, OfAResumeIsThatOfTheRunAndStaysAsItIs) {
    make_run("old");
    Options options;
    options.resume = "old/checkpoints/step-00000010";
    {
        RunFolder folder(options);
        EXPECT_EQ(folder.path(), "old");
        EXPECT_TRUE(folder.goes_on());
        EXPECT_EQ(slurp("old/config.toml"), "");
        EXPECT_FALSE(path_exists("old/train.log"));
    }
    EXPECT_FALSE(path_exists("old/lock"));
    options.output_dir = "new";
    RunFolder other(options);
    EXPECT_EQ(other.path(), "new");
    EXPECT_FALSE(other.goes_on());
}

TEST_F(RunFolders, IsHeldByOneAtATime) {
    Options options;
    options.output_dir = "new";
    {
        RunFolder first(options);
        const std::string message = error_of([&] { RunFolder second(options); });
        EXPECT_TRUE(has(message, {"--output-dir=new", fmt::format("process {} on ", getpid())}));
        EXPECT_TRUE(path_exists("new/lock"));
    }
    EXPECT_FALSE(path_exists("new")) << "nothing was begun";
    RunFolder third(options);
    third.begin(options);
}

TEST_F(RunFolders, ALockWithoutItsHolderIsNone) {
    make_run("old");
    dir_.write("old/lock", "process 1 on nowhere");
    Options options;
    options.resume = "old";
    EXPECT_EQ(RunFolder(options).path(), "old");
}

TEST_F(RunFolders, FreshOnesDiffer) {
    Options options;
    options.model = "llama-nano";
    RunFolder first(options), second(options);
    EXPECT_TRUE(first.path().starts_with("runs/llama-nano-20")) << first.path();
    EXPECT_NE(first.path(), second.path());
}

TEST_F(RunFolders, ThatCannotBeMadeIsNamed) {
    dir_.write("file", "x");
    Options options;
    for (const char* folder : {"file", "file/below"}) {
        options.output_dir = folder;
        EXPECT_TRUE(has(error_of([&] { RunFolder made(options); }), {"--output-dir", folder}));
    }
}

}  // namespace
}  // namespace llmc
