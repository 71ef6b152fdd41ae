#include "llmc/train/run_folder.h"

#include "llmc/base/error.h"
#include "llmc/base/file.h"
#include "llmc/base/log.h"
#include "llmc/base/mapped_reading.h"
#include "llmc/base/printable.h"
#include "llmc/io/carried_files.h"
#include "llmc/io/checkpoint.h"
#include "llmc/io/checkpoint_folder.h"
#include "llmc/io/run_record.h"
#include "llmc/train/going_back.h"
#include "llmc/train/run_tokenizer.h"

#include <ctime>
#include <fcntl.h>
#include <filesystem>
#include <system_error>
#include <unistd.h>
#include <utility>

namespace llmc {

namespace {

namespace fs = std::filesystem;

std::string tidy(const fs::path& path) {
    std::string folder = path.lexically_normal().string();
    while (folder.size() > 1 && folder.back() == '/') folder.pop_back();
    return folder;
}

/// The run folder at or above the path, by its names alone; empty if there is none.
std::string run_folder_above(const std::string& path) {
    for (const char* up : {"", "/..", "/../.."}) {
        const std::string folder = tidy(path + up);
        if (path_exists(folder + "/config.toml")) return folder;
    }
    return "";
}

/// The folder of a path that may be, or lie behind, a link: of the names as given where they mean the same, of what the
/// links lead to otherwise.
std::string run_folder_of(const std::string& path) {
    std::error_code error;
    const std::string real = fs::canonical(path, error).string();
    const std::string by_name = run_folder_above(path);
    if (error || by_name.empty()) return error ? by_name : run_folder_above(real);
    if (fs::equivalent(by_name, path, error)) return by_name;
    const std::string by_target = run_folder_above(real);
    // A run's checkpoints may themselves lie elsewhere, where no run folder is.
    return by_target.empty() || fs::equivalent(by_target, by_name, error) ? by_name : by_target;
}

}  // namespace

std::string find_run_folder(const std::string& path, const std::string& option) {
    const std::string folder = run_folder_of(path);
    if (folder.empty()) {
        const std::string separator = option.starts_with("--") ? "=" : " ";
        if (!path_exists(path)) {
            fail("{}{}{}: {}; give a run folder, such as runs/NAME", option, separator, path,
                 fs::is_symlink(path) ? "is a link whose target is not there" : "does not exist");
        }
        if (!is_directory(path)) {
            fail("{}{}{}: is a file; give a run folder, such as runs/NAME", option, separator, path);
        }
        fail("{}{}{}: has no config.toml, which every run folder has; give a run folder, such as runs/NAME", option,
             separator, path);
    }
    settle_run_folder(folder);
    return folder;
}

void require_own_checkpoint(const std::string& checkpoint, const std::string& run_folder, const std::string& given) {
    const std::string is = read_run_record(run_folder).id, of = run_of_checkpoint(checkpoint);
    if (is.empty() || of.empty() || is == of) return;
    for (const auto& [id, file] : {std::pair(of, checkpoint + "/run"), std::pair(is, run_folder + "/run.json")}) {
        if (is_run_id(id)) continue;
        fail(
            "--resume={}: '{}' is damaged: '{}' is no run's name; put back a copy of it, or begin a new run with "
            "its weights: --model={}",
            given, file, printable(id), shell_word(checkpoint));
    }
    fail_usage(
        "--resume={}: '{}' is a checkpoint of another run than '{}'; resume that run, or begin a new one with its "
        "weights: --model={}",
        given, checkpoint, run_folder, shell_word(checkpoint));
}

namespace {

/// --model may be a path, of which the last part is taken.
std::string name_of_model(const std::string& model) {
    const fs::path path = fs::path(model + "/").lexically_normal();
    return path.parent_path().filename().string();
}

constexpr const char* kRuns = "runs";

/// Of a folder that was there the name may not be on the disk yet. Where it cannot be synced it is not ours to mend.
void sync_name_of(const std::string& folder) {
    std::error_code error;
    try {
        sync_directory(fs::canonical(folder, error).parent_path().string());
    } catch (const Error&) {
    }
}

/// A tokenizer in a folder of no run is somebody's own, and no run's to replace.
void require_own_tokenizer(const std::string& run_folder, const Options& options) {
    const std::string place = tokenizer_folder_of_run(run_folder);
    std::error_code error;
    if (!path_exists(place) || fs::is_empty(place, error) || path_exists(run_folder + "/run.json")) return;
    if (is_tokenizer_of_run(options.tokenizer, run_folder)) return;
    fail_usage(
        "--output-dir={}: '{}' is there, of no run, and the run's own tokenizer goes there; move it away, or "
        "choose another folder",
        run_folder, place);
}

/// What a start has left that came to no checkpoint: nothing of it is to be taken for this run's.
void drop_leftovers(const std::string& run_folder) {
    const std::string metrics = run_folder + "/metrics.jsonl", checkpoints = checkpoints_folder(run_folder);
    if (path_exists(metrics)) write_text_atomically(metrics, "");  // It may be a link.
    std::error_code ignored;
    for (const std::string& path :
         {run_folder + "/samples.jsonl", checkpoints + "/" + kLatestName, checkpoints + "/" + kBestName}) {
        fs::remove(path, ignored);
    }
}

/// Creates runs/MODEL-TIME; runs that start in the same second get a number.
std::string make_fresh_folder(const Options& options) {
    char time_text[32];
    const std::time_t now = std::time(nullptr);
    std::strftime(time_text, sizeof time_text, "%Y%m%d-%H%M%S", std::localtime(&now));
    make_directories(kRuns, "--output-dir");
    for (int number = 1;; ++number) {
        std::string folder = fmt::format("{}/{}-{}", kRuns, name_of_model(options.model), time_text);
        if (number > 1) folder += fmt::format("-{}", number);
        std::error_code error;
        if (fs::create_directory(folder, error)) return folder;
        if (error) fail("--output-dir: cannot create the folder '{}': {}", folder, error.message());
    }
}

}  // namespace

bool holds_checkpoint(const std::string& run_folder) {
    if (!list_steps(run_folder).empty()) return true;
    if (!read_run_record(run_folder).has_saved) return false;
    fail(
        "the run in '{}' has saved checkpoints, and there is none in '{}': mount or restore them; to begin anew there, "
        "remove '{}/run.json'",
        run_folder, checkpoints_folder(run_folder), run_folder);
}

RunFolder::RunFolder(const Options& options) : goes_on_(options.output_dir.empty() && !options.resume.empty()) {
    if (goes_on_) {
        path_ = find_run_folder(options.resume, "--resume");
        make_directories(path_, "--resume");
    } else if (options.output_dir.empty()) {
        made_runs_ = !path_exists(kRuns);
        path_ = make_fresh_folder(options);
        is_made_here_ = true;
    } else {
        path_ = options.output_dir;
        is_made_here_ = !path_exists(path_);
        make_directories(path_, "--output-dir");
    }
    const std::string option = goes_on_ ? "--resume=" + options.resume : "--output-dir=" + path_;
    if (const std::string holder = lock_.take(path_ + "/lock"); !holder.empty()) {
        fail_usage("{}: {} trains into '{}' at the moment; wait for its end, or choose another folder: --output-dir",
                   option, holder, path_);
    }
    if (!goes_on_ && holds_checkpoint(path_)) {
        fail_usage("{}: holds another run; go on with it by --resume={}, or choose another folder", option,
                   shell_word(path_));
    }
    if (!goes_on_) require_own_tokenizer(path_, options);
    open_folder();
    require_writable(option);
}

RunFolder::~RunFolder() { undo(); }

/// Nothing is left of a folder that was made for nothing.
void RunFolder::undo() {
    lock_.release();
    if (directory_ >= 0) close(std::exchange(directory_, -1));
    if (!is_made_here_ || has_begun_) return;
    std::error_code not_empty;
    fs::remove(checkpoints_folder(path_), not_empty);
    fs::remove(path_, not_empty);
    if (made_runs_) fs::remove(kRuns, not_empty);
}

void RunFolder::open_folder() {
    if (directory_ >= 0) close(directory_);
    directory_ = open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

/// Whatever will be written there is tried now, when nothing can be lost yet.
void RunFolder::require_writable(const std::string& option) {
    try {
        for (const char* file : {"config.toml", "metrics.jsonl", "run.json"}) {
            const std::string obstacle = obstacle_to_writing(path_ + "/" + file);
            if (!obstacle.empty()) fail("{}: {}; make it writable, or choose another --output-dir", option, obstacle);
        }
        rehearse_checkpoint(path_, 0, option);
    } catch (const Error&) {
        undo();
        throw;
    }
}

void RunFolder::begin(const Options& options, int64_t steps_done) {
    sync_name_of(path_);
    config_ = config_of_run(options, path_);
    if (goes_on_) {
        const std::string aside = go_on_from(path_, steps_done, config_);
        if (!aside.empty()) {
            spdlog::info("resume  back at step {}: later checkpoints are kept in '{}', which is a run folder too",
                         steps_done, aside);
        }
    } else {
        write_run_record(path_, {new_run_id(), false, std::nullopt});
        drop_leftovers(path_);
        write_text_atomically(path_ + "/config.toml", config_);
    }
    id_ = read_run_record(path_).id;
    log_to_file(path_ + "/train.log");
    has_begun_ = true;
}

bool RunFolder::follow() {
    if (directory_ < 0) return false;
    if (is_same_file(directory_, path_)) return mend();
    const std::string now = path_of(directory_);
    if (is_same_file(directory_, now)) {
        spdlog::warn("the run folder '{}' has been moved: it is '{}' from here on", path_, now);
        path_ = now;
        return mend();
    }
    make_anew();
    return true;
}

/// What somebody has removed from the folder meanwhile is written again.
bool RunFolder::mend() {
    if (!has_begun_) {
        const std::optional<GoingBack> back = read_run_record(path_).going_back;
        fail("the run folder '{}' could not be made that of this run, and {}", path_,
             back ? fmt::format("is back at step {}: the next command that uses it ends the moves", back->step)
                  : "stays as it was");
    }
    finish_going_back(path_);
    const auto is_there = [&](const char* file) { return path_exists(path_ + "/" + file); };
    const bool knows_itself = read_run_record(path_).id == id_;
    if (knows_itself && is_there("config.toml") && is_there("metrics.jsonl")) return false;
    write_belongings();
    spdlog::warn("files of the run folder '{}' were removed{}: they are written again, without what was in them", path_,
                 knows_itself ? "" : ", or damaged");
    return true;
}

void RunFolder::write_belongings() {
    write_run_record(path_, {id_, false, std::nullopt});
    write_text_atomically(path_ + "/config.toml", config_);
    if (!tokenizer_.empty()) make_directories(tokenizer_folder_of_run(path_), "the run folder was removed");
    for (const auto& [name, file] : tokenizer_) {
        write_text_atomically(tokenizer_folder_of_run(path_) + "/" + name, text_of(file));
    }
}

/// A mapped file is there as long as somebody has it, whatever becomes of its name.
void RunFolder::keep_tokenizer() {
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(tokenizer_folder_of_run(path_), error)) {
        if (!entry.is_regular_file(error)) continue;
        tokenizer_.emplace_back(entry.path().filename().string(), MappedFile(entry.path().string()));
    }
}

void RunFolder::make_anew() {
    lock_.release();
    make_directories(path_, "the run folder was removed");
    if (const std::string holder = lock_.take(path_ + "/lock"); !holder.empty()) {
        fail("the run folder '{}' was removed, and {} has made another in its place", path_, holder);
    }
    // A checkpoint alone is our own, which was being written: a run has these before its first one.
    const bool is_of_a_run = path_exists(path_ + "/run.json") || path_exists(path_ + "/config.toml");
    if (is_of_a_run && holds_checkpoint(path_)) {
        fail("the run folder '{}' was removed, and another run is in its place", path_);
    }
    open_folder();
    write_belongings();
    log_to_file(path_ + "/train.log");
    spdlog::warn("the run folder '{}' was removed, or moved to another disk: made anew, without what was in it", path_);
}

}  // namespace llmc
