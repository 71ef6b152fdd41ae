#include "llmc/train/run_folder.h"

#include "llmc/base/error.h"
#include "llmc/base/file.h"
#include "llmc/base/log.h"

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

/// --output-dir, or the folder of the run that goes on.
std::string make_named_folder(const Options& options) {
    const bool continues = options.output_dir.empty();
    const std::string folder = continues ? find_run_folder(options.resume, "--resume") : options.output_dir;
    if (!continues && path_exists(folder + "/checkpoints")) {
        fail_usage("--output-dir={}: holds another run; go on with it by --resume={}, or choose another folder", folder,
                   folder);
    }
    make_directories(folder, "--output-dir");
    return folder;
}

}  // namespace

std::string make_run_folder(const Options& options) {
    const bool fresh = options.output_dir.empty() && options.resume.empty();
    const std::string folder = fresh ? make_fresh_folder(options) : make_named_folder(options);
    try {
        write_text_atomically(folder + "/config.toml", to_toml(options));
    } catch (const Error&) {
        std::error_code not_empty;
        std::filesystem::remove(folder, not_empty);
        throw;
    }
    log_to_file(folder + "/train.log");
    return folder;
}

}  // namespace llmc
