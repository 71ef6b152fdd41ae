#include "llmc/base/pending_output.h"

#include "llmc/base/error.h"
#include "llmc/base/file.h"

#include <filesystem>

namespace llmc {

namespace fs = std::filesystem;

PendingOutput::PendingOutput(const std::string& path, const std::string& option, OutputIs kind)
    : path_(path), option_(option) {
    while (path_.size() > 1 && path_.ends_with('/')) path_.pop_back();
    std::error_code error;
    if (kind == OutputIs::File && is_directory(path_)) {
        fail_usage("{}={}: is a folder; add the name of a new file in it, such as {}/model", option, path, path_);
    }
    if (fs::exists(path_, error) && !(fs::is_directory(path_, error) && fs::is_empty(path_, error))) {
        fail_usage("{}={}: is there already; choose another name, or remove it first", option, path);
    }
    const fs::path place(path_);
    if (!place.parent_path().empty()) make_directories(place.parent_path().string(), option);
    temporary_ = (place.parent_path() / (".tmp-" + place.filename().string())).string();
    fs::remove_all(temporary_, error);
}

PendingOutput::~PendingOutput() {
    std::error_code ignored;
    fs::remove_all(temporary_, ignored);
}

void PendingOutput::write(const std::function<void()>& fill) const {
    try {
        fill();
    } catch (const Error& failure) {
        std::string what = failure.what();
        size_t at = what.find(temporary_);
        if (at == std::string::npos) throw;
        for (; at != std::string::npos; at = what.find(temporary_, at + path_.size())) {
            what.replace(at, temporary_.size(), path_);
        }
        throw Error(failure.exit_code(),
                    fmt::format("{}={}: {}; free some space there, or choose another place", option_, path_, what));
    }
}

void PendingOutput::complete() {
    write([&] { rename_into_place(temporary_, path_); });
}

}  // namespace llmc
