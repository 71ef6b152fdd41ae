#include "llmc/base/pending_output.h"

#include "llmc/base/error.h"
#include "llmc/base/file.h"

#include <filesystem>

namespace llmc {

namespace fs = std::filesystem;

PendingOutput::PendingOutput(const std::string& path, const std::string& option) : path_(path) {
    while (path_.size() > 1 && path_.ends_with('/')) path_.pop_back();
    std::error_code error;
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

void PendingOutput::complete() { rename_into_place(temporary_, path_); }

}  // namespace llmc
