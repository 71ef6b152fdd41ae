// The folder of a run: config.toml, metrics.jsonl, train.log, run.json, checkpoints/, tokenizer/, and while a process
// writes there, lock. dev/notes/promises.md says what holds of it at every moment.
#pragma once

#include "llmc/base/file.h"
#include "llmc/base/file_lock.h"
#include "llmc/train/options.h"

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace llmc {

/// The run folder that `path` names: itself, or the folder of the checkpoint it is or leads to. What a killed process
/// has left half-moved there is settled first (going_back.h). Fails naming `option` (or the command) if neither.
std::string find_run_folder(const std::string& path, const std::string& option);

/// Whether there is something to go on from. An Error where the run had checkpoints, and they are not there.
bool holds_checkpoint(const std::string& run_folder);

/// Where this run writes, held against other processes while the object lives. In a folder whose run goes on nothing
/// changes before begin(): a start that fails leaves it as it was.
class RunFolder {
  public:
    /// --output-dir, else the resumed run's folder, else runs/MODEL-TIME; created where it is not there. A new run
    /// never writes over an old one, and a folder that another process writes to is refused (exit code 2), naming it;
    /// so is one with a tokenizer that no run has put there.
    explicit RunFolder(const Options& options);
    /// Removes a folder that it made and where nothing was begun.
    ~RunFolder();
    RunFolder(const RunFolder&) = delete;
    RunFolder& operator=(const RunFolder&) = delete;

    const std::string& path() const { return path_; }
    /// Whether the folder is that of the run that is resumed.
    bool goes_on() const { return goes_on_; }

    /// Writes the options into config.toml, atomically, and the log so far and from now on into train.log. For a run
    /// that goes on from `steps_done` steps this is after its first step more; what lies beyond them is moved aside. A
    /// new run has a new name, and nothing of what was written in its folder before.
    void begin(const Options& options, int64_t steps_done = 0);
    bool has_begun() const { return has_begun_; }

    /// Follows a folder that has been moved while the run trains: path() is where it is now. One that was removed is
    /// made anew, with the options and the tokenizer, and so are single files; then true. Files that are open there
    /// may have lost their names. Fails where that cannot be, and where begin() has failed.
    bool follow();

    /// Opens the tokenizer's files, so that follow() has them whatever becomes of the folder. Once all is in its place.
    void keep_tokenizer();

  private:
    void open_folder();
    void require_writable(const std::string& option);
    void undo();
    bool mend();
    void write_belongings();
    void make_anew();

    std::string path_;
    bool goes_on_ = false, is_made_here_ = false, made_runs_ = false, has_begun_ = false;
    FileLock lock_;
    int directory_ = -1;                                         ///< The open folder.
    std::string config_, id_;                                    ///< What config.toml and run.json say.
    std::vector<std::pair<std::string, MappedFile>> tokenizer_;  ///< Files of the tokenizer, which outlive their names.
};

/// Refuses (exit code 2) to go on with a run from a checkpoint that another run has written.
void require_own_checkpoint(const std::string& checkpoint, const std::string& run_folder, const std::string& given);

}  // namespace llmc
