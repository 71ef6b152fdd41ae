// A folder to write into before the result is complete and renamed to its place.
#pragma once

#include <string>

namespace llmc {

/// Created with its parents, and removed with its content at the end, unless it has been renamed by then.
class TemporaryFolder {
  public:
    /// Errors name `what_for`, the option the place comes from.
    TemporaryFolder(std::string path, const std::string& what_for);
    ~TemporaryFolder();
    TemporaryFolder(const TemporaryFolder&) = delete;
    TemporaryFolder& operator=(const TemporaryFolder&) = delete;
    const std::string& path() const { return path_; }

  private:
    std::string path_;
};

}  // namespace llmc
