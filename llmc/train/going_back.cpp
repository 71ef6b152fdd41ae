#include "llmc/train/going_back.h"

#include "llmc/base/error.h"
#include "llmc/base/file.h"
#include "llmc/base/file_lock.h"
#include "llmc/base/temporary_folder.h"
#include "llmc/io/carried_files.h"
#include "llmc/io/checkpoint.h"
#include "llmc/io/checkpoint_folder.h"
#include "llmc/io/run_record.h"
#include "llmc/train/metrics.h"

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <thread>
#include <unistd.h>

namespace llmc {
namespace {

namespace fs = std::filesystem;

constexpr const char* kBranchFiles[] = {"config.toml", "metrics.jsonl", "samples.jsonl"};

/// Where the files of the branch to come wait for their turn.
std::string folder_of_next(const std::string& root) { return root + "/" + kTemporaryPrefix + "next"; }

void move_path(const std::string& from, const std::string& to) {
    if (rename(from.c_str(), to.c_str()) != 0) fail("cannot move '{}' to '{}': {}", from, to, std::strerror(errno));
}

/// A second name for the same content, or where there is no such thing a copy.
void duplicate(const fs::path& from, const fs::path& to) {
    std::error_code error;
    if (fs::is_directory(from, error)) {
        make_directories(to.string(), "--resume");
        for (const auto& entry : fs::directory_iterator(from, error))
            duplicate(entry.path(), to / entry.path().filename());
        return sync_directory(to.string());
    }
    if (!fs::exists(from, error) || fs::exists(to, error)) return;
    if (!fs::is_symlink(from)) fs::create_hard_link(from, to, error);
    if (error || fs::is_symlink(from)) write_text_atomically(to.string(), read_text(from.string()));
}

/// RUN/abandoned/N/checkpoints. Where the run's own are on another disk it leads to a folder beside those, since
/// checkpoints are moved, not copied.
void make_folder_aside(const std::string& root, const std::string& aside) {
    const fs::path checkpoints = aside + "/checkpoints";
    if (!fs::is_symlink(checkpoints_folder(root))) return make_directories(checkpoints.string(), "--resume");
    make_directories(aside, "--resume");
    const fs::path real =
        fs::canonical(checkpoints_folder(root)) / ("abandoned-" + fs::path(aside).filename().string());
    make_directories(real.string(), "--resume");
    std::error_code error;
    if (!fs::is_symlink(checkpoints)) fs::create_directory_symlink(real, checkpoints, error);
    if (error) fail("cannot make the link '{}': {}", checkpoints.string(), error.message());
}

/// The later checkpoints, and what makes a run folder of the place where they go.
void set_aside(const std::string& root, const RunRecord& record) {
    const GoingBack& back = *record.going_back;
    const std::string aside = root + "/" + back.aside;
    make_folder_aside(root, aside);
    for (const char* file : kBranchFiles) {
        // While the next file still waits, the one in its place is the abandoned branch's.
        if (path_exists(folder_of_next(root) + "/" + file)) duplicate(root + "/" + file, aside + "/" + file);
    }
    duplicate(tokenizer_folder_of_run(root), tokenizer_folder_of_run(aside));
    write_run_record(aside, {record.id, true, std::nullopt});
    for (const int64_t step : list_all_steps(root)) {
        if (step <= back.step) continue;
        move_path(checkpoints_folder(root) + "/" + step_name(step), checkpoints_folder(aside) + "/" + step_name(step));
    }
    const std::string best = checkpoints_folder(root) + "/" + kBestName;
    if (path_exists(best) && !read_named_step(root, kBestName))
        move_path(best, checkpoints_folder(aside) + "/" + kBestName);
    if (const auto newest = list_steps(aside); !newest.empty()) name_checkpoint(aside, kLatestName, newest.back());
}

/// What run.json says is to be done. May be begun any number of times.
void move_all(const std::string& root, const RunRecord& record) {
    const std::string next = folder_of_next(root);
    remove_temporaries(root);
    if (named_step(root, kLatestName) != record.going_back->step) {
        name_checkpoint(root, kLatestName, record.going_back->step);
    }
    if (!record.going_back->aside.empty()) set_aside(root, record);
    for (const char* file : kBranchFiles) {
        if (!path_exists(next + "/" + file)) continue;
        write_text_atomically(root + "/" + file, read_text(next + "/" + file));
        fs::remove(next + "/" + file);
    }
    std::error_code ignored;
    fs::remove_all(next, ignored);
    write_run_record(root, {record.id, true, std::nullopt});
}

/// Where a rehearsal moves something to.
fs::path place_of_rehearsal(const std::string& root) {
    return fs::path(root) / "abandoned" / (std::string(kTemporaryPrefix) + "rehearsal");
}

/// What a rehearsal has made, whether it came to its end or was killed.
void remove_rehearsal(const std::string& root) {
    const fs::path aside = place_of_rehearsal(root);
    std::error_code ignored;
    fs::remove_all(checkpoints_folder(root) + "/abandoned-" + aside.filename().string(), ignored);
    fs::remove_all(aside, ignored);
    if (fs::is_directory(aside.parent_path(), ignored)) fs::remove(aside.parent_path(), ignored);
}

/// "abandoned/3", the first that is not taken, neither here nor where checkpoints are.
std::string free_place(const std::string& root) {
    int number = 1;
    while (path_exists(fmt::format("{}/abandoned/{}", root, number)) ||
           path_exists(fmt::format("{}/abandoned-{}", checkpoints_folder(root), number))) {
        ++number;
    }
    return fmt::format("abandoned/{}", number);
}

/// The run that goes on from the step: as its checkpoint says where run.json is lost, and a new name where neither
/// does.
std::string id_of_run(const RunRecord& record, const std::string& root, int64_t step) {
    if (!record.id.empty()) return record.id;
    const std::string of_checkpoint = run_of_checkpoint(checkpoints_folder(root) + "/" + step_name(step));
    return is_run_id(of_checkpoint) ? of_checkpoint : new_run_id();
}

}  // namespace

std::string go_on_from(const std::string& root, int64_t step, const std::string& config) {
    finish_going_back(root);  // Of a time when the disk was full.
    RunRecord record = read_run_record(root);
    const std::vector<int64_t> steps = list_steps(root);
    const bool is_last = steps.empty() || steps.back() <= step;
    record.id = id_of_run(record, root, step);
    record.going_back = {step, is_last ? "" : free_place(root)};

    const std::string next = folder_of_next(root);
    std::error_code ignored;
    fs::remove_all(next, ignored);  // Of a process that was killed before its decision.
    make_directories(next, "--resume");
    write_text(next + "/config.toml", config);
    for (const char* file : {"metrics.jsonl", "samples.jsonl"}) {
        const bool is_wanted = path_exists(root + "/" + file) || std::string(file) == "metrics.jsonl";
        if (is_wanted) write_text(next + "/" + file, metrics_up_to(root + "/" + file, step));
    }
    sync_directory(next);

    write_run_record(root, record);  // The decision.
    move_all(root, record);
    return is_last ? "" : root + "/" + record.going_back->aside;
}

void finish_going_back(const std::string& root) {
    const RunRecord record = read_run_record(root);
    if (record.going_back) move_all(root, record);
}

void rehearse_going_back(const std::string& root, int64_t step, const std::string& option) {
    remove_rehearsal(root);
    const std::vector<int64_t> steps = list_steps(root);
    if (steps.empty() || steps.back() <= step) return;
    const fs::path aside = place_of_rehearsal(root);
    try {
        make_folder_aside(root, aside.string());
        const std::string probe = std::string(kTemporaryPrefix) + "going-back";
        const std::string from = checkpoints_folder(root) + "/" + probe, to = checkpoints_folder(aside.string());
        const TemporaryFolder before(from);
        move_path(from, to + "/" + probe);
        for (const int64_t later : steps) {  // To be moved, a folder has to be writable itself.
            const std::string folder = checkpoints_folder(root) + "/" + step_name(later);
            if (later <= step || access(folder.c_str(), W_OK) == 0) continue;
            fail("'{}' cannot be moved: {}", folder, std::strerror(errno));
        }
        remove_rehearsal(root);
    } catch (const Error& error) {
        remove_rehearsal(root);
        fail(
            "{}: later checkpoints cannot be moved to '{}/{}': {}; make that possible, or go on elsewhere: "
            "--output-dir",
            option, root, free_place(root), error.what());
    }
}

void settle_run_folder(const std::string& root) {
    constexpr int kTries = 40;
    constexpr std::chrono::milliseconds kPause{50};
    for (int i = 0; i < kTries && read_run_record(root).going_back; ++i) {
        FileLock lock;
        if (!lock.take(root + "/lock").empty()) {  // Whoever goes on with the run is just doing it.
            std::this_thread::sleep_for(kPause);
            continue;
        }
        try {
            const RunRecord record = read_run_record(root);
            if (record.going_back) move_all(root, record);
        } catch (const Error&) {  // It can be read all the same.
        }
        return;
    }
}

}  // namespace llmc
