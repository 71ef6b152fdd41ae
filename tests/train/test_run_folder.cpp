// Where a run writes, and what may not be overwritten.
#include "llmc/train/run_folder.h"

#include "llmc/base/file.h"
#include "llmc/base/log.h"
#include "tests/io/temp_dir.h"

#include <gtest/gtest.h>

#include <filesystem>

namespace llmc {
namespace {

namespace fs = std::filesystem;

/// A temporary current folder; the logger that make_run_folder() extends is put back afterwards.
class RunFolder : public testing::Test {
  protected:
    RunFolder() : before_(fs::current_path()), logger_(spdlog::default_logger()) {
        init_log("error");
        fs::current_path(dir_.path());
    }
    ~RunFolder() override {
        fs::current_path(before_);
        spdlog::set_default_logger(logger_);
    }
    void make_run(const std::string& folder) const {
        fs::create_directories(folder + "/checkpoints/step-00000010");
        dir_.write(folder + "/config.toml", "");
    }

    TempDir dir_;

  private:
    fs::path before_;
    std::shared_ptr<spdlog::logger> logger_;
};

TEST_F(RunFolder, IsFoundFromItselfAndFromItsCheckpoints) {
    make_run("runs/a");
    for (const char* path : {"runs/a", "runs/a/", "runs/a/checkpoints", "runs/a/checkpoints/",
                             "runs/a/checkpoints/step-00000010", "./runs/../runs/a/checkpoints/step-00000010"}) {
        EXPECT_EQ(find_run_folder(path, "--resume"), "runs/a") << path;
    }
    EXPECT_EQ(find_run_folder(dir_ / "runs/a", "--resume"), dir_ / "runs/a");
}

TEST_F(RunFolder, WhatIsNoneIsNamed) {
    fs::create_directories("empty");
    for (const char* path : {"absent", "empty"}) {
        EXPECT_TRUE(has(error_of([&] { find_run_folder(path, "--resume"); }), {"--resume", path, "config.toml"}));
    }
}

TEST_F(RunFolder, IsTheOutputDir) {
    Options options;
    options.output_dir = "some/where";
    options.steps = 77;
    EXPECT_EQ(make_run_folder(options), "some/where");
    EXPECT_TRUE(has(slurp("some/where/config.toml"), {"steps = 77"}));
    EXPECT_TRUE(path_exists("some/where/train.log"));
    EXPECT_EQ(make_run_folder(options), "some/where");  // No checkpoint yet, so nothing is lost.
}

TEST_F(RunFolder, NeverHoldsTwoRuns) {
    make_run("old");
    Options options;
    options.output_dir = "old";
    const std::string message = error_of([&] { make_run_folder(options); });
    EXPECT_TRUE(has(message, {"--output-dir=old", "--resume=old"}));
    EXPECT_EQ(slurp("old/config.toml"), "");
}

TEST_F(RunFolder, OfAResumeIsThatOfTheRun) {
    make_run("old");
    Options options;
    options.resume = "old/checkpoints/step-00000010";
    EXPECT_EQ(make_run_folder(options), "old");
    options.output_dir = "new";
    EXPECT_EQ(make_run_folder(options), "new");
}

TEST_F(RunFolder, FreshOnesDiffer) {
    Options options;
    options.model = "llama-nano";
    const std::string first = make_run_folder(options), second = make_run_folder(options);
    EXPECT_TRUE(first.starts_with("runs/llama-nano-20")) << first;
    EXPECT_NE(first, second);
    EXPECT_TRUE(path_exists(second + "/config.toml"));
}

TEST_F(RunFolder, ThatCannotBeMadeIsNamed) {
    dir_.write("file", "x");
    Options options;
    for (const char* folder : {"file", "file/below"}) {
        options.output_dir = folder;
        EXPECT_TRUE(has(error_of([&] { make_run_folder(options); }), {"--output-dir", folder}));
    }
}

}  // namespace
}  // namespace llmc
