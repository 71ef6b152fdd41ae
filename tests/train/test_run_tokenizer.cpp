// RUN/tokenizer: what a new run goes by, and nothing of an earlier start.
#include "llmc/train/run_tokenizer.h"

#include "tests/io/temp_dir.h"
#include "tests/io/tokenizer_testing.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <set>
#include <string>

namespace llmc {
namespace {

namespace fs = std::filesystem;

std::string golden(const std::string& name) { return slurp(kGoldenFolder + name); }

class RunTokenizer : public testing::Test {
  protected:
    RunTokenizer() {
        for (const char* name : {"a", "b", "run"}) fs::create_directories(dir_ / name);
        dir_.write("a/tokenizer.json", golden("tokenizer.json"));
        dir_.write("a/tokenizer_config.json", "{}");
        dir_.write("b/tokenizer.model", golden("ranks.tiktoken"));
    }
    void keep(const std::string& reference, const Options& options = {}) const {
        keep_run_tokenizer(run_, options, reference, Origin());
    }
    /// Names in RUN and in RUN/tokenizer, sorted.
    std::string names() const {
        std::set<std::string> names;
        for (const auto& entry : fs::recursive_directory_iterator(run_)) {
            names.insert(fs::relative(entry.path(), run_).string());
        }
        return fmt::format("{}", fmt::join(names, " "));
    }

    TempDir dir_;
    const std::string run_ = dir_ / "run";
};

TEST_F(RunTokenizer, IsThatOfTheLastStart) {
    keep(dir_ / "a");
    EXPECT_EQ(names(), "tokenizer tokenizer/tokenizer.json tokenizer/tokenizer_config.json");
    keep(dir_ / "b");
    EXPECT_EQ(names(), "tokenizer tokenizer/tokenizer.model");
    keep(dir_ / "a");
    keep("bytes");
    EXPECT_EQ(names(), "");
}

TEST_F(RunTokenizer, NothingHalfCopiedIsTakenForOne) {
    fs::create_directories(run_ + "/.tmp-tokenizer");
    dir_.write("run/.tmp-tokenizer/tokenizer.json", "{");
    dir_.write("run/.tmp-tokenizer/chat_template.jinja", "x");
    keep(dir_ / "b");
    EXPECT_EQ(names(), "tokenizer tokenizer/tokenizer.model");

    fs::remove(dir_ / "b/tokenizer.model");  // It fails in the middle.
    EXPECT_TRUE(has(error_of([&] { keep(dir_ / "b"); }), {"has no tokenizer.json"}));
    EXPECT_EQ(names(), "");
}

TEST_F(RunTokenizer, OfTheRunItselfStays) {
    keep(dir_ / "b");
    dir_.write("run/tokenizer/notes.txt", "");
    Options options;
    options.tokenizer_pattern = "[a-z]+";
    for (const char* own : {"run/tokenizer", "run/tokenizer/tokenizer.model"}) keep(dir_ / own, options);
    EXPECT_EQ(names(), "tokenizer tokenizer/notes.txt tokenizer/tokenizer.model tokenizer/train_gpt_tokenizer.json");
    EXPECT_EQ(slurp(run_ + "/tokenizer/tokenizer.model"), golden("ranks.tiktoken"));
}

}  // namespace
}  // namespace llmc
