// A run that goes back to an earlier step: one branch at every moment, whenever it is killed.
#include "llmc/train/going_back.h"

#include "llmc/base/file.h"
#include "llmc/io/checkpoint.h"
#include "llmc/io/checkpoint_folder.h"
#include "llmc/io/run_record.h"
#include "tests/io/temp_dir.h"

#include <gtest/gtest.h>

#include <chrono>
#include <csignal>
#include <filesystem>
#include <string>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

namespace llmc {
namespace {

namespace fs = std::filesystem;
using Steps = std::vector<int64_t>;

constexpr const char* kOldConfig = "learning-rate = 1\n";
constexpr const char* kNewConfig = "learning-rate = 2\n";

std::string metrics(int64_t steps) {
    std::string text;
    for (int64_t step = 1; step <= steps; ++step) text += fmt::format("{{\"step\":{},\"loss\":1}}\n", step);
    return text;
}

class GoingBackTo : public testing::Test {
  protected:
    /// A run of 50 steps with a checkpoint every ten.
    void make_run(const std::string& root) const {
        fs::create_directories(root + "/tokenizer");
        write_text_atomically(root + "/tokenizer/vocab.json", "{}");
        write_text_atomically(root + "/config.toml", kOldConfig);
        write_text_atomically(root + "/metrics.jsonl", metrics(50));
        write_run_record(root, {"0123456789abcdef", true, std::nullopt});
        for (int64_t step = 10; step <= 50; step += 10)
            write_checkpoint(root, step, fmt::format("{{\"s\":{}}}", step), {});
        name_checkpoint(root, kBestName, 40);
    }

    void expect_old(const std::string& root) const {
        EXPECT_EQ(read_text(root + "/config.toml"), kOldConfig);
        EXPECT_EQ(read_text(root + "/metrics.jsonl"), metrics(50));
        EXPECT_EQ(list_steps(root), (Steps{10, 20, 30, 40, 50}));
        EXPECT_EQ(newest_step(root), 50);
        EXPECT_EQ(named_step(root, kBestName), 40);
    }

    void expect_new(const std::string& root) const {
        EXPECT_EQ(read_text(root + "/config.toml"), kNewConfig);
        EXPECT_EQ(read_text(root + "/metrics.jsonl"), metrics(20));
        EXPECT_EQ(list_all_steps(root), (Steps{10, 20}));
        EXPECT_EQ(named_step(root, kLatestName), 20);
        EXPECT_FALSE(path_exists(checkpoints_folder(root) + "/best"));
        const std::string aside = root + "/abandoned/1";
        EXPECT_EQ(read_text(aside + "/config.toml"), kOldConfig);
        EXPECT_EQ(read_text(aside + "/metrics.jsonl"), metrics(50));
        EXPECT_EQ(read_text(aside + "/tokenizer/vocab.json"), "{}");
        EXPECT_EQ(list_steps(aside), (Steps{30, 40, 50}));
        EXPECT_EQ(named_step(aside, kLatestName), 50);
        EXPECT_EQ(named_step(aside, kBestName), 40);
        EXPECT_EQ(read_run_record(aside).id, "0123456789abcdef");
        EXPECT_EQ(run_of_checkpoint(checkpoints_folder(root) + "/step-00000020"), "0123456789abcdef");
        expect_tidy(root);
    }

    void expect_tidy(const std::string& root) const {
        EXPECT_FALSE(read_run_record(root).going_back);
        for (const auto& entry : fs::recursive_directory_iterator(root)) {
            EXPECT_EQ(entry.path().filename().string().find("tmp"), std::string::npos) << entry.path();
        }
    }

    TempDir dir_;
};

TEST_F(GoingBackTo, AnEarlierStepMovesWhatIsLaterAside) {
    const std::string root = dir_ / "run";
    make_run(root);
    EXPECT_EQ(go_on_from(root, 20, kNewConfig), root + "/abandoned/1");
    expect_new(root);
}

TEST_F(GoingBackTo, TheNewestStepMovesNothing) {
    const std::string root = dir_ / "run";
    make_run(root);
    write_text_atomically(root + "/metrics.jsonl", metrics(57));
    EXPECT_EQ(go_on_from(root, 50, kNewConfig), "");
    EXPECT_EQ(read_text(root + "/config.toml"), kNewConfig);
    EXPECT_EQ(read_text(root + "/metrics.jsonl"), metrics(50));
    EXPECT_EQ(list_steps(root).size(), 5u);
    EXPECT_FALSE(path_exists(root + "/abandoned"));
    expect_tidy(root);
}

TEST_F(GoingBackTo, ARunWhoseRecordIsLostStaysThatOfItsCheckpoint) {
    const std::string root = dir_ / "run", record = root + "/run.json";
    for (const bool is_there : {true, false}) {
        fs::remove_all(root);
        make_run(root);
        fs::remove(record);
        if (is_there) dir_.write("run/run.json", "");
        go_on_from(root, 20, kNewConfig);
        expect_new(root);
        EXPECT_EQ(read_run_record(root).id, "0123456789abcdef");
    }
}

TEST_F(GoingBackTo, ARunThatNothingNamesGetsAName) {
    const std::string root = dir_ / "run";
    for (const char* of_checkpoint : {"", "0123\n"}) {
        fs::remove_all(root);
        make_run(root);
        fs::remove(root + "/run.json");
        dir_.write("run/checkpoints/step-00000020/run", of_checkpoint);
        go_on_from(root, 20, kNewConfig);
        EXPECT_TRUE(is_run_id(read_run_record(root).id));
        EXPECT_NE(read_run_record(root).id, "0123456789abcdef");
        EXPECT_EQ(list_steps(root), (Steps{10, 20}));
    }
}

TEST_F(GoingBackTo, ARecordThatCannotBeOpenedIsNotForgotten) {
    const std::string root = dir_ / "run", record = root + "/run.json";
    make_run(root);
    write_run_record(root, {"0123456789abcdef", true, GoingBack{20, "abandoned/1"}});
    fs::rename(record, root + "/aside");
    fs::create_symlink("run.json", record);  // A link to itself.
    EXPECT_TRUE(has(error_of([&] { go_on_from(root, 50, kNewConfig); }), {"cannot open '" + record + "'"}));
    EXPECT_TRUE(has(error_of([&] { newest_step(root); }), {"cannot open '" + record + "'"}));
    fs::rename(root + "/aside", record);
    EXPECT_EQ(newest_step(root), 20);

    const std::string name = checkpoints_folder(root) + "/step-00000020/run";
    fs::remove(name);
    fs::create_symlink("run", name);
    EXPECT_TRUE(has(error_of([&] { run_of_checkpoint(fs::path(name).parent_path()); }), {"cannot open '" + name}));
}

// However far it came when it was killed: nobody sees a mixture, and the next that uses the folder ends it.
TEST_F(GoingBackTo, IsOneStepForWhoeverKillsIt) {
    const std::string root = dir_ / "run";
    // How long it takes when it is left alone; then it is killed at one moment of that after another.
    make_run(root);
    const auto start = std::chrono::steady_clock::now();
    go_on_from(root, 20, kNewConfig);
    const std::chrono::duration<double, std::micro> whole = std::chrono::steady_clock::now() - start;
    constexpr int kMoments = 60;
    for (int moment = 0; moment < kMoments; ++moment) {
        const auto pause = static_cast<useconds_t>(1.2 * whole.count() * moment / kMoments);
        fs::remove_all(root);
        make_run(root);
        const pid_t child = fork();
        if (child == 0) {
            go_on_from(root, 20, kNewConfig);
            _exit(0);
        }
        usleep(pause);
        kill(child, SIGKILL);
        waitpid(child, nullptr, 0);

        const bool is_decided = read_run_record(root).going_back || read_text(root + "/config.toml") == kNewConfig;
        EXPECT_EQ(newest_step(root), is_decided ? 20 : 50) << "before anybody settles it";
        EXPECT_EQ(list_steps(root).back(), is_decided ? 20 : 50);
        settle_run_folder(root);
        if (!is_decided) {
            expect_old(root);
            go_on_from(root, 20, kNewConfig);
        }
        expect_new(root);
        if (HasFailure()) FAIL() << "killed after " << pause << " us";
    }
}

// Killed or not: the next one leaves the folder as if there had been none.
TEST_F(GoingBackTo, ARehearsalLeavesNothing) {
    for (const bool is_elsewhere : {false, true}) {
        const std::string root = dir_ / (is_elsewhere ? "linked" : "run"), disk = dir_ / "disk";
        make_run(root);
        if (is_elsewhere) {
            fs::rename(checkpoints_folder(root), disk);
            fs::create_directory_symlink(disk, checkpoints_folder(root));
        }
        const auto count = [&] {
            const auto in = [](const std::string& folder) {
                return std::distance(fs::recursive_directory_iterator(folder), fs::recursive_directory_iterator());
            };
            return in(root) + (is_elsewhere ? in(disk) : 0);
        };
        const auto before = count();
        rehearse_going_back(root, 20, "--resume");
        EXPECT_EQ(count(), before);
        bool was_cut_short = false;
        for (useconds_t pause = 0; pause < 1000; pause += 25) {
            const pid_t child = fork();
            if (child == 0) {
                for (;;) rehearse_going_back(root, 20, "--resume");
            }
            usleep(pause);
            kill(child, SIGKILL);
            waitpid(child, nullptr, 0);
            was_cut_short = was_cut_short || path_exists(root + "/abandoned");
            rehearse_going_back(root, 50, "--resume");
            remove_temporaries(root);  // As the next checkpoint does.
            EXPECT_EQ(count(), before) << "killed after " << pause << " us";
        }
        EXPECT_TRUE(was_cut_short);
        EXPECT_EQ(go_on_from(root, 20, kNewConfig), root + "/abandoned/1");
    }
}

TEST_F(GoingBackTo, IsLeftToWhoeverHasTheFolder) {
    const std::string root = dir_ / "run";
    make_run(root);
    write_run_record(root, {"0123456789abcdef", true, GoingBack{20, "abandoned/1"}});
    EXPECT_EQ(list_steps(root), (Steps{10, 20}));
    EXPECT_EQ(list_all_steps(root).size(), 5u);
    EXPECT_EQ(newest_step(root), 20) << "though `latest` says 50 yet";
}

}  // namespace
}  // namespace llmc
