// Checkpoints: folders of safetensors files that are either complete and intact or not there.
//
//   ROOT/checkpoints/step-00000100/manifest.json       sizes and checksums of the files, and the run's own state
//   ROOT/checkpoints/step-00000100/model.safetensors   and whatever other files the caller names; of a run with several
//                                                      ranks one from each, model-00001-of-00004.safetensors
//                                                      Files that never change are shared by hard links
//                                                      (constant_file.h)
//   ROOT/checkpoints/step-00000100/run                 which run it is of (run_record.h)
//   ROOT/checkpoints/latest                            a text file with the name of the newest complete one
//   ROOT/checkpoints/best                              and one with that of the lowest validation loss (--keep-best)
//
// A checkpoint is written into a folder .tmp-*, synced to the disk, and renamed; latest is replaced after that. The
// manifest holds the XXH3 checksum of every file and of itself, so one wrong byte anywhere is found when it is opened.
#pragma once

#include "llmc/base/dtype.h"
#include "llmc/base/temporary_folder.h"
#include "llmc/io/manifest.h"
#include "llmc/io/safetensors.h"

#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

namespace llmc {

/// Headers, manifest and folders beside the tensors; a checkpoint is not begun with less room.
constexpr int64_t kCheckpointSlack = 1 << 20;

/// A tensor to be written: name, type and shape, and where its elements are.
struct CheckpointTensor {
    SafetensorsEntry entry;
    const void* data = nullptr;
    std::function<const void*()> load = {};  ///< Gives the elements when they are written, where `data` is null.
};

/// A file to be written; `name` ends in ".safetensors".
struct CheckpointFile {
    std::string name;
    std::vector<CheckpointTensor> tensors;
};

/// Writes the checkpoint of `step` in the run folder `root`, replacing one of the same step. Until commit() everything
/// is in a temporary folder, which goes with the writer: on a failure, such as a full disk, what was there stays as it
/// was, and one Error says why. Remains of a writer that crashed are removed first. One writer at a time; others, such
/// as the ranks of a run, may put files into its folder.
class CheckpointWriter {
  public:
    /// `bytes` is about what the checkpoint will need on the disk.
    CheckpointWriter(const std::string& root, int64_t step, int64_t bytes);

    /// Where write_checkpoint_file() puts the files of this checkpoint.
    const std::string& folder() const { return temporary_.path(); }

    /// Adds the manifest and puts the checkpoint in its place; returns its path. `state` is the text of the
    /// caller's own JSON object.
    std::string commit(const std::string& state, std::vector<ManifestFile> files);

  private:
    std::string root_;
    int64_t step_;
    TemporaryFolder temporary_;
};

/// Writes a file into the folder of a CheckpointWriter, synced to the disk, and says what the manifest needs of it.
ManifestFile write_checkpoint_file(const std::string& folder, const CheckpointFile& file);

/// All of it by one writer.
std::string write_checkpoint(const std::string& root, int64_t step, const std::string& state,
                             std::span<const CheckpointFile> files);

/// A checkpoint that has been read and verified.
struct Checkpoint {
    std::string path;  ///< Its step folder.
    int64_t step = 0;
    std::string state;                             ///< The text of the writer's JSON object.
    std::map<std::string, SafetensorsFile> files;  ///< By name.

    /// The file of that name; an Error if the checkpoint has none.
    const SafetensorsFile& file(const std::string& name) const;
};

/// Opens a checkpoint: `path` is its step folder, a link to one, the file `latest` or `best`, or a run folder, of which
/// the one that `latest` names is taken, or where that is missing or damaged the newest complete one. Every size and
/// checksum is verified. Anything missing, truncated, changed or written by a newer program is an Error that starts
/// with `option`, e.g. "--resume". Where `ranks` programs open the same checkpoint together, each compares the
/// checksums of its part of the files.
Checkpoint open_checkpoint(const std::string& path, const std::string& option, int rank = 0, int ranks = 1);

/// Lets `name` (latest, best) name the checkpoint of this step, which must be there.
void name_checkpoint(const std::string& root, const std::string& name, int64_t step);

/// Tries whatever a checkpoint in this run folder will need but its room on the disk: links that lead somewhere,
/// rights, names of their length, renaming. Leaves only ROOT/checkpoints. Every rank that will write tries it. Errors
/// start with `option`.
void rehearse_checkpoint(const std::string& root, int rank, const std::string& option);

/// Removes all but the `keep_last` newest checkpoints of a run (0 keeps all); never one that `latest` or `best` names.
/// Where one of these cannot be read, none is removed; that, and a checkpoint that cannot be removed, is an Error.
void prune_checkpoints(const std::string& root, int64_t keep_last);

}  // namespace llmc
