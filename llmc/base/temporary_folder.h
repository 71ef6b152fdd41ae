// A folder that is removed, with its content, unless it has been moved away by then.
#pragma once

#include <string>

namespace llmc {

class TemporaryFolder {
  public:
    /// Makes the folder; an Error of --output-dir if that fails.
    explicit TemporaryFolder(std::string path);
    ~TemporaryFolder();
    TemporaryFolder(const TemporaryFolder&) = delete;
    TemporaryFolder& operator=(const TemporaryFolder&) = delete;
    const std::string& path() const { return path_; }

  private:
    std::string path_;
};

}  // namespace llmc
