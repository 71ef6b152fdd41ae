// A file that tells the ranks of a job where rank 0 is, and their secret: only its owner may read and write it.
#pragma once

#include <string>

namespace llmc {

/// Removed at the end, unless another run has written its own there meanwhile.
class PlaceFile {
  public:
    /// Errors name the path.
    PlaceFile(std::string path, std::string content);
    ~PlaceFile();
    PlaceFile(const PlaceFile&) = delete;
    PlaceFile& operator=(const PlaceFile&) = delete;

  private:
    std::string path_, content_;
};

/// The content of such a file. An Error where others can read or write it, or have made it: they could lead us to
/// themselves.
std::string read_place_file(const std::string& path);

}  // namespace llmc
