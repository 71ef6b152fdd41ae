#include "llmc/train/output_file.h"

#include "llmc/base/check.h"
#include "llmc/base/error.h"
#include "llmc/base/file.h"
#include "llmc/draw/svg.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <random>
#include <unistd.h>

namespace llmc {
namespace {

/// What an option writes, in words, and what every such file has near its beginning.
struct OutputKind {
    std::string_view option;
    const char* words;
    std::string_view mark;
};
constexpr std::array kOutputKinds = {
    OutputKind{"--profile", "trace", "\"traceEvents\""},
    OutputKind{"--plot", "picture of train_gpt", kSvgMark},
    OutputKind{"--timeline", "picture of train_gpt", kSvgMark},
    OutputKind{"--emit-config", "setting that plan has written", "# The fastest that fits"},
    OutputKind{"--out", "report", "train_gpt report"},
};

/// What is something else than an earlier one was not meant.
void require_kind(const std::string& option, const std::string& path) {
    constexpr size_t kBeginning = 1000;
    const auto* const kind = std::find_if(kOutputKinds.begin(), kOutputKinds.end(),
                                          [&](const OutputKind& row) { return row.option == option; });
    CHECK(kind != kOutputKinds.end(), option);
    try {
        const MappedFile there(path);
        const std::string_view beginning = there.text().substr(0, kBeginning);
        if (beginning.empty() || beginning.find(kind->mark) != std::string_view::npos) return;
    } catch (const Error& failure) {
        fail("{}={}: {}; choose another name", option, path, failure.what());
    }
    fail_usage("{}={}: is there already, and is no {}; name another file", option, path, kind->words);
}

/// Only a file may be replaced: no folder, and no device.
void require_file(const std::string& option, const std::string& path) {
    std::error_code error;
    if (is_directory(path)) fail("{}={}: is a folder; add the name of a file in it", option, path);
    if (path.ends_with('/')) fail("{}={}: names a folder; add the name of a file in it", option, path);
    if (path_exists(path) && !std::filesystem::is_regular_file(path, error)) {
        fail("{}={}: is there already and no file; choose another name", option, path);
    }
    if (path_exists(path)) require_kind(option, path);
    const std::string folder = std::filesystem::path(path).parent_path().string();
    if (folder.empty() || is_directory(folder)) return;
    fail("{}={}: {} '{}'; {}", option, path, path_exists(folder) ? "there is a file, no folder," : "no folder", folder,
         path_exists(folder) ? "choose another place" : "make it first, or choose another place");
}

}  // namespace

void require_output(const std::string& option, const std::string& path) {
    require_file(option, path);
    std::random_device random;  // Beside it, under a name that nobody else has, as write_output() will.
    const std::string trial = fmt::format("{}.{:08x}{:08x}.tmp", path, random(), random());
    const int descriptor = open(trial.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (descriptor < 0) {
        fail("{}={}: cannot create '{}': {}; choose another place", option, path, trial, std::strerror(errno));
    }
    close(descriptor);
    unlink(trial.c_str());
}

void write_output(const std::string& option, const std::string& path, std::string_view text) {
    require_file(option, path);
    try {
        write_shared_text(path, text);
    } catch (const Error& failure) {
        fail("{}={}: {}; choose another place", option, path, failure.what());
    }
}

}  // namespace llmc
