// A file of a run's checkpoints that stays the same, such as that of frozen weights. It is written once; later
// checkpoints have it by a hard link, so that every step folder is complete by itself, may be copied or removed alone,
// and takes no room for what others have too. Where there can be no links it is written every time.
#pragma once

#include "llmc/io/checkpoint.h"

#include <cstdint>
#include <optional>
#include <string>

namespace llmc {

class ConstantFile {
  public:
    /// What a checkpoint would need on the disk for `file`: nothing where another one in the run folder `root`
    /// has it with the same content. That is compared byte by byte, but for a file that this has compared or written
    /// before, and that is as it was then.
    int64_t bytes_to_write(const std::string& root, const CheckpointFile& file);

    /// Puts the file into the folder of a CheckpointWriter, and says what the manifest needs of it.
    ManifestFile put(const std::string& root, const std::string& folder, const CheckpointFile& file);

  private:
    /// When a file was last changed, and how long it is.
    struct Stamp {
        int64_t changed_ns = 0, bytes = 0;
        bool operator==(const Stamp&) const = default;
    };
    struct Known {
        ManifestFile entry;
        Stamp stamp;
    };
    static std::optional<Stamp> stamp_of(const std::string& path);
    std::optional<std::string> find(const std::string& root, const CheckpointFile& file);

    std::optional<Known> known_;  ///< What was written or compared last.
};

}  // namespace llmc
