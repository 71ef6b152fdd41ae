// A file or folder that a user asked for: written under a temporary name beside its place, and renamed when complete,
// so that a crash leaves nothing that looks finished. One process at a time writes an output.
#pragma once

#include "llmc/base/file_lock.h"

#include <cstdint>
#include <functional>
#include <string>

namespace llmc {

enum class OutputIs : uint8_t { File, Folder };

/// Keeps other processes from writing what `option` names, until `lock` is released; where one does already, an Error
/// (exit code 2) that names it. The folder around `path` must be there.
void lock_output(const std::string& path, const std::string& option, FileLock* lock);

class PendingOutput {
  public:
    /// `path` must not exist, or, for a folder, be an empty one, and nobody else be writing it; otherwise an Error
    /// (exit code 2) that names `option`. Its parent folders are created, and what a crashed writer left under the
    /// temporary name is removed.
    PendingOutput(const std::string& path, const std::string& option, OutputIs kind);
    ~PendingOutput();
    PendingOutput(const PendingOutput&) = delete;
    PendingOutput& operator=(const PendingOutput&) = delete;

    /// Where to write.
    const std::string& temporary() const { return temporary_; }
    /// Where it will be, without a slash at its end.
    const std::string& path() const { return path_; }
    /// Calls fill(), which writes there. An Error that speaks of the temporary name (a full disk) speaks of the option
    /// and of the place that was asked for instead.
    void write(const std::function<void()>& fill) const;
    /// Syncs folders and renames. Without it the temporary file or folder is removed at the end.
    void complete();
    /// Takes the name away again, if it has it: for what is part of a larger output that has failed.
    void withdraw();

  private:
    std::string path_, option_;
    FileLock lock_;
    std::string temporary_;
};

}  // namespace llmc
