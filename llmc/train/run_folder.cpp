#include "llmc/train/run_folder.h"

#include "llmc/base/error.h"
#include "llmc/base/file.h"
#include "llmc/base/log.h"

#include <algorithm>
#include <ctime>
#include <filesystem>

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

std::string fresh_folder(const Options& options) {
    char time_text[32];
    const std::time_t now = std::time(nullptr);
    std::strftime(time_text, sizeof time_text, "%Y%m%d-%H%M%S", std::localtime(&now));
    std::string name = options.model;
    std::replace(name.begin(), name.end(), '/', '-');
    return fmt::format("runs/{}-{}", name, time_text);
}

}  // namespace

std::string make_run_folder(const Options& options) {
    std::string folder = options.output_dir;
    const bool continues = folder.empty() && !options.resume.empty();
    if (continues) folder = find_run_folder(options.resume, "--resume");
    if (folder.empty()) folder = fresh_folder(options);
    if (!continues && path_exists(folder + "/checkpoints")) {
        fail_usage("--output-dir={}: holds another run; go on with it by --resume={}, or choose another folder", folder,
                   folder);
    }
    make_directories(folder, "--output-dir");
    write_text_atomically(folder + "/config.toml", to_toml(options));
    log_to_file(folder + "/train.log");
    return folder;
}

}  // namespace llmc
