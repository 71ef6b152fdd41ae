// manifest.json of a checkpoint: what the checkpoint consists of, with checksums, and a checksum of the manifest.
#pragma once

#include "llmc/base/error.h"

#include <cstdint>
#include <string>
#include <vector>

namespace llmc {

/// The version of the checkpoint format that this program writes; it reads this and older ones.
constexpr int64_t kCheckpointFormatVersion = 1;

struct ManifestFile {
    std::string name;
    int64_t bytes = 0;
    std::string checksum;  ///< XXH3, 16 hexadecimal digits.
    bool operator==(const ManifestFile&) const = default;
};

struct Manifest {
    int64_t step = 0;
    std::vector<ManifestFile> files;
    std::string state;  ///< The text of the caller's own JSON object.
};

/// The text of the file. Its last field is the XXH3 checksum of the text with sixteen zeros in its place.
std::string manifest_text(const Manifest& manifest);

/// A checkpoint's file is not what was written. What to do about it is for whoever knows the other checkpoints.
class DamagedError : public Error {
  public:
    explicit DamagedError(const std::string& message) : Error(kExitFailed, message) {}
};

/// Parses and verifies. Errors name `path`; where the file is damaged they are DamagedErrors.
Manifest parse_manifest(const std::string& text, const std::string& path);

}  // namespace llmc
