#include "llmc/base/pending_output.h"

#include "llmc/base/error.h"
#include "llmc/base/file.h"

#include <filesystem>

namespace llmc {

namespace fs = std::filesystem;

namespace {

std::string temporary_name(const fs::path& path) {
    return (path.parent_path() / (".tmp-" + path.filename().string())).string();
}

void require_new(const std::string& path, const std::string& option) {
    std::error_code error;
    if (!fs::exists(path, error) || (fs::is_directory(path, error) && fs::is_empty(path, error))) return;
    fail_usage("{}={}: is there already; choose another name, or remove it first", option, path);
}

void sync_folders(const std::string& root) {
    if (!is_directory(root)) return;
    for (const fs::directory_entry& entry : fs::recursive_directory_iterator(root)) {
        if (entry.is_directory()) sync_directory(entry.path().string());
    }
    sync_directory(root);
}

}  // namespace

void lock_output(const std::string& path, const std::string& option, FileLock* lock) {
    const std::string holder = lock->take(temporary_name(path) + ".lock");
    if (holder.empty()) return;
    fail_usage("{}={}: {} is writing it; wait until that has ended, or choose another name", option, path, holder);
}

PendingOutput::PendingOutput(const std::string& path, const std::string& option, OutputIs kind)
    : path_(path), option_(option) {
    while (path_.size() > 1 && path_.ends_with('/')) path_.pop_back();
    if (kind == OutputIs::File && is_directory(path_)) {
        fail_usage("{}={}: is a folder; add the name of a new file in it, such as {}/model", option, path, path_);
    }
    require_new(path_, option);
    const std::string folder = fs::path(path_).parent_path().string();
    if (!folder.empty()) make_directories(folder, option);
    lock_output(path_, option, &lock_);
    require_new(path_, option);  // Whoever had the lock may have completed it.
    temporary_ = temporary_name(path_);
    std::error_code ignored;
    fs::remove_all(temporary_, ignored);
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
    write([&] {
        sync_folders(temporary_);
        rename_into_place(temporary_, path_);
    });
}

void PendingOutput::withdraw() {
    std::error_code ignored;
    fs::rename(path_, temporary_, ignored);
}

}  // namespace llmc
