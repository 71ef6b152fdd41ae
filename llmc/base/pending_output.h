// A file or folder that a user asked for: written under a temporary name beside its place, and renamed when complete,
// so that a crash leaves nothing that looks finished.
#pragma once

#include <string>

namespace llmc {

class PendingOutput {
  public:
    /// `path` must not exist, or be an empty folder; otherwise an Error (exit code 2) that names `option`. Its parent
    /// folders are created, and what a crashed writer left under the temporary name is removed.
    PendingOutput(const std::string& path, const std::string& option);
    ~PendingOutput();
    PendingOutput(const PendingOutput&) = delete;
    PendingOutput& operator=(const PendingOutput&) = delete;

    /// Where to write.
    const std::string& temporary() const { return temporary_; }
    /// Where it will be, without a slash at its end.
    const std::string& path() const { return path_; }
    /// Renames. Without it the temporary file or folder is removed at the end.
    void complete();

  private:
    std::string path_;
    std::string temporary_;
};

}  // namespace llmc
