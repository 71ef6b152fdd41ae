// The marks of a token file (token_source.h), in a file beside it: NAME_train_000000.marks for NAME_train_000000.bin.
// A header of 48 bytes, little-endian: int32 magic and version, int64 number of tokens, and two checksums of 16
// hexadecimal digits, of the marks and of the token file; then a byte for every token.
#pragma once

#include "llmc/base/file.h"

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace llmc {

/// Where the marks of a token file stand.
std::string marks_beside(const std::string& token_file);

/// Writes the marks of a token file with these bytes to `path`, a temporary name perhaps.
void write_marks(const std::string& path, std::span<const uint8_t> marks, const std::string& tokens_checksum);

/// The marks of the token file `tokens`, memory-mapped.
class MarksFile {
  public:
    /// An Error naming `option` if the file is damaged, or belongs to other tokens than these `count`.
    MarksFile(const std::string& path, const MappedFile& tokens, int64_t count, const std::string& option);
    /// Marks from `position` on. An Error where the file has been cut, or cannot be read.
    void read(int64_t position, std::span<uint8_t> out) const;

  private:
    std::span<const uint8_t> marks() const;

    MappedFile file_;
};

}  // namespace llmc
