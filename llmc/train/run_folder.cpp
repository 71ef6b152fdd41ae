#include "llmc/train/run_folder.h"

#include "llmc/base/error.h"
#include "llmc/base/file.h"
#include "llmc/base/log.h"
#include "llmc/io/checkpoint_folder.h"

#include <ctime>
#include <filesystem>
#include <system_error>

namespace llmc {

std::string find_run_folder(const std::string& path, const std::string& option) {
    for (const char* up : {"", "/..", "/../.."}) {
        if (!path_exists(path + up + "/config.toml")) continue;
        std::string folder = std::filesystem::path(path + up).lexically_normal().string();
        while (folder.size() > 1 && folder.back() == '/') folder.pop_back();
        return folder;
    }
    fail("{}={}: no config.toml there; give a run folder, such as runs/NAME", option, path);
}

namespace {

/// --model may be a path, of which the last part is taken.
std::string name_of_model(const std::string& model) {
    const std::filesystem::path path = std::filesystem::path(model + "/").lexically_normal();
    return path.parent_path().filename().string();
}

/// Creates runs/MODEL-TIME; runs that start in the same second get a number.
std::string make_fresh_folder(const Options& options) {
    char time_text[32];
    const std::time_t now = std::time(nullptr);
    std::strftime(time_text, sizeof time_text, "%Y%m%d-%H%M%S", std::localtime(&now));
    make_directories("runs", "--output-dir");
    for (int number = 1;; ++number) {
        std::string folder = fmt::format("runs/{}-{}", name_of_model(options.model), time_text);
        if (number > 1) folder += fmt::format("-{}", number);
        std::error_code error;
        if (std::filesystem::create_directory(folder, error)) return folder;
        if (error) fail("--output-dir: cannot create the folder '{}': {}", folder, error.message());
    }
}

}  // namespace

bool holds_checkpoint(const std::string& run_folder) { return !list_steps(run_folder).empty(); }

RunFolder::RunFolder(const Options& options) : goes_on_(options.output_dir.empty() && !options.resume.empty()) {
    if (goes_on_) {
        path_ = find_run_folder(options.resume, "--resume");
        make_directories(path_, "--resume");
    } else if (options.output_dir.empty()) {
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
    if (goes_on_ || !holds_checkpoint(path_)) return;
    fail_usage("{}: holds another run; go on with it by --resume={}, or choose another folder", option, path_);
}

RunFolder::~RunFolder() {
    lock_.release();
    std::error_code not_empty;
    if (is_made_here_ && !has_begun_) std::filesystem::remove(path_, not_empty);
}

void RunFolder::begin(const Options& options) {
    write_text_atomically(path_ + "/config.toml", config_of_run(options, path_));
    log_to_file(path_ + "/train.log");
    has_begun_ = true;
}

}  // namespace llmc
