// Paths in config files: what they count from, and where a run's files are looked for after a move.
#include "llmc/train/config_paths.h"

#include "tests/io/temp_dir.h"

#include <gtest/gtest.h>

#include <filesystem>

namespace llmc {
namespace {

namespace fs = std::filesystem;

const OptionRow& row(const std::string& name) {
    for (const OptionRow& each : option_table()) {
        if (each.name() == name) return each;
    }
    throw std::runtime_error(name);
}

/// A tree with a run and its data, in a temporary current folder.
class ConfigPaths : public testing::Test {
  protected:
    ConfigPaths() : before_(fs::current_path()), root_(fs::canonical(dir_.path()).string()) {
        fs::create_directories(root_ + "/a/run");
        fs::create_directories(root_ + "/elsewhere");
        dir_.write("a/t.txt", "text");
        fs::current_path(root_ + "/elsewhere");
    }
    ~ConfigPaths() override { fs::current_path(before_); }

    /// What --NAME=VALUE in the run's file becomes.
    std::string of_run(const std::string& name, const std::string& value, const std::string& written,
                       const std::string& run = "../a/run") {
        remarks_.clear();
        return ConfigPlace(run + "/config.toml", written).resolve(row(name), value, &remarks_);
    }

    TempDir dir_;
    fs::path before_;
    std::string root_;
    std::vector<std::string> remarks_;
};

TEST_F(ConfigPaths, CountFromTheFile) {
    const ConfigPlace place("../a/c.toml"), here("c.toml");
    const std::pair<const char*, const char*> paths[] = {
        {"data", "t.txt"},     {"val-data", "t.txt"}, {"tokenizer", "t"},    {"model", "m"},   {"output-dir", "runs/x"},
        {"profile", "p.json"}, {"plot", "p.svg"},     {"timeline", "p.svg"}, {"data", "*.txt"}};
    for (const auto& [name, value] : paths) {
        EXPECT_EQ(place.resolve(row(name), value, &remarks_), std::string("../a/") + value) << name;
        EXPECT_EQ(here.resolve(row(name), value, &remarks_), value) << name;
        const std::string absolute = std::string("/x/") + value;
        EXPECT_EQ(place.resolve(row(name), absolute, &remarks_), absolute) << name;
    }
    EXPECT_EQ(place.resolve(row("comm-init"), "file:meet", &remarks_), "file:../a/meet");
    const std::pair<const char*, const char*> words[] = {
        {"data", "-"},          {"tokenizer", "bytes"}, {"tokenizer", "none"},
        {"model", "gpt2-nano"}, {"model", "d12"},       {"comm-init", "tcp"},
        {"data", ""},           {"dtype", "bf16"},      {"sample-prompt", "t.txt"}};
    for (const auto& [name, value] : words) EXPECT_EQ(place.resolve(row(name), value, &remarks_), value) << name;
    EXPECT_TRUE(remarks_.empty());
}

TEST_F(ConfigPaths, EveryPathOfTheTableCounts) {
    for (const char* name :
         {"model", "data", "val-data", "tokenizer", "output-dir", "resume", "config", "profile", "comm-init", "plot",
          "timeline", "device-profile", "emit-config", "hellaswag", "run", "from", "out", "files", "llmc-tokenizer"}) {
        EXPECT_NE(row(name).path, PathKind::None) << name;
    }
}

TEST_F(ConfigPaths, ARunsDataIsWhereItWas) {
    const std::string data = root_ + "/a/t.txt", run = root_ + "/a/run";
    EXPECT_EQ(of_run("data", data, run), data);
    EXPECT_TRUE(remarks_.empty());
    fs::rename(root_ + "/a/run", root_ + "/elsewhere/run");
    EXPECT_EQ(of_run("data", data, run, "run"), data) << "the run alone was moved";
    EXPECT_TRUE(remarks_.empty());
}

TEST_F(ConfigPaths, ATreeThatWasMovedStillWorks) {
    const std::string data = root_ + "/a/t.txt", run = root_ + "/a/run";
    fs::rename(root_ + "/a", root_ + "/b");
    EXPECT_EQ(of_run("data", data, run, "../b/run"), root_ + "/b/t.txt");
    ASSERT_EQ(remarks_.size(), 1u);
    EXPECT_TRUE(has(remarks_[0], {"--data", data, root_ + "/b/t.txt"}));
    fs::create_directory_symlink(root_ + "/b/run", "link");
    EXPECT_EQ(of_run("data", data, run, "link"), root_ + "/b/t.txt") << "through a link";
    EXPECT_EQ(of_run("data", root_ + "/a/*.txt", run, "../b/run"), root_ + "/b/*.txt");
    EXPECT_EQ(of_run("data", root_ + "/a/gone.txt", run, "../b/run"), root_ + "/a/gone.txt") << "nowhere";
    EXPECT_TRUE(remarks_.empty());
    EXPECT_EQ(of_run("data", "../t.txt", run, "../b/run"), root_ + "/b/t.txt") << "edited: from the file";
}

TEST_F(ConfigPaths, BothAreThere) {
    const std::string data = root_ + "/a/t.txt", run = root_ + "/a/run";
    fs::copy(root_ + "/a", root_ + "/b", fs::copy_options::recursive);
    EXPECT_EQ(of_run("data", data, run, "../b/run"), data);
    EXPECT_TRUE(remarks_.empty());
}

TEST_F(ConfigPaths, OfAnEarlierVersion) {
    EXPECT_EQ(of_run("data", "t.txt", ""), root_ + "/a/t.txt");
    EXPECT_EQ(remarks_.size(), 1u);
    dir_.write("elsewhere/t.txt", "another");
    EXPECT_EQ(of_run("data", "t.txt", ""), "t.txt") << "the current folder, as ever";
    EXPECT_TRUE(remarks_.empty());
    fs::create_directories(root_ + "/a/runs/x");
    EXPECT_EQ(of_run("data", "../a/t.txt", "", "../a/runs/x"), "../a/t.txt");
    fs::remove("t.txt");
    EXPECT_EQ(of_run("data", "t.txt", "", "../a/runs/x"), root_ + "/a/t.txt") << "runs/x";
    EXPECT_EQ(of_run("data", "absent.txt", ""), "absent.txt");
}

TEST_F(ConfigPaths, AreWrittenAbsolute) {
    Options options;
    options.data = "./t.txt";
    options.val_data = "../a/*.txt";
    options.tokenizer = "bytes";
    options.model = "m";
    Options absolute = with_absolute_paths(options);
    EXPECT_EQ(absolute.data, root_ + "/elsewhere/t.txt");
    EXPECT_EQ(absolute.val_data, root_ + "/a/*.txt");
    EXPECT_EQ(absolute.tokenizer, "bytes");
    EXPECT_EQ(absolute.model, root_ + "/elsewhere/m");
    options.model = "gpt2-nano";
    options.data = "/x/../t.txt";
    options.val_data = "-";
    absolute = with_absolute_paths(options);
    EXPECT_EQ(absolute.model, "gpt2-nano");
    EXPECT_EQ(absolute.data, "/x/../t.txt");
    EXPECT_EQ(absolute.val_data, "-");
    options.data = "link/../t.txt";  // Where that is depends on the link.
    EXPECT_EQ(with_absolute_paths(options).data, root_ + "/elsewhere/link/../t.txt");
}

TEST_F(ConfigPaths, AFoldersOwnNameIsNoPattern) {
    const std::string odd = root_ + "/[x] *?";
    fs::create_directories(odd + "/run");
    dir_.write("[x] *?/one.txt", "text");
    fs::current_path(odd);
    Options options;
    options.data = "*.txt";
    options.val_data = "one.txt";
    const Options absolute = with_absolute_paths(options);
    EXPECT_EQ(absolute.val_data, odd + "/one.txt");
    EXPECT_TRUE(is_data_there(absolute.data)) << absolute.data;
    EXPECT_TRUE(is_data_there(absolute.val_data));
    fs::current_path(root_ + "/elsewhere");
    EXPECT_TRUE(is_data_there(of_run("data", absolute.data, odd + "/run", odd + "/run")));
    fs::rename(odd, root_ + "/moved ]");
    const std::string found = of_run("data", absolute.data, odd + "/run", "../moved ]/run");
    EXPECT_TRUE(is_data_there(found)) << found;
    EXPECT_EQ(remarks_.size(), 1u);
}

TEST_F(ConfigPaths, BytesThatAreNoUtf8) {
    const std::string name = "caf\xe9.txt";
    dir_.write("a/" + name, "text");
    EXPECT_EQ(of_run("data", root_ + "/a/" + name, root_ + "/a/run"), root_ + "/a/" + name);
    fs::rename(root_ + "/a", root_ + "/b\xff");
    EXPECT_EQ(of_run("data", root_ + "/a/" + name, root_ + "/a/run", "../b\xff/run"), root_ + "/b\xff/" + name);
}

}  // namespace
}  // namespace llmc
