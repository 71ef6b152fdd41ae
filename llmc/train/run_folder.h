// The folder of a run: config.toml, metrics.jsonl, train.log, checkpoints/, and while a process writes there, lock.
#pragma once

#include "llmc/base/file_lock.h"
#include "llmc/train/options.h"

#include <string>

namespace llmc {

/// The run folder that `path` names: itself, or the folder of the checkpoint it is. Fails naming `option` if neither.
std::string find_run_folder(const std::string& path, const std::string& option);

/// Whether there is something to go on from.
bool holds_checkpoint(const std::string& run_folder);

/// Where this run writes, held against other processes while the object lives. In a folder whose run goes on nothing
/// changes before begin(): a start that fails leaves it as it was.
class RunFolder {
  public:
    /// --output-dir, else the resumed run's folder, else runs/MODEL-TIME; created where it is not there. A new run
    /// never writes over an old one, and a folder that another process writes to is refused (exit code 2), naming it.
    explicit RunFolder(const Options& options);
    /// Removes a folder that it made and where nothing was begun.
    ~RunFolder();
    RunFolder(const RunFolder&) = delete;
    RunFolder& operator=(const RunFolder&) = delete;

    const std::string& path() const { return path_; }
    /// Whether the folder is that of the run that is resumed.
    bool goes_on() const { return goes_on_; }

    /// Writes the options into config.toml, atomically, and the log so far and from now on into train.log. For a run
    /// that goes on this is after its first step.
    void begin(const Options& options);
    bool has_begun() const { return has_begun_; }

  private:
    std::string path_;
    bool goes_on_ = false, is_made_here_ = false, has_begun_ = false;
    FileLock lock_;
};

}  // namespace llmc
