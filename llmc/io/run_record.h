// run.json: what a run folder knows of itself beside its options. It names the run, so that a checkpoint can be told
// from another run's, and says what is to be done where a run goes back to an earlier step (train/going_back.h).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace llmc {

/// The run has gone back: all after `step` is abandoned, and counts no more from the moment when this is written.
struct GoingBack {
    int64_t step = 0;
    std::string aside;  ///< Where the later checkpoints go, relative to the run folder; empty if there are none.
};

struct RunRecord {
    std::string id;          ///< Drawn when the run began; empty in folders of programs that did not write it.
    bool has_saved = false;  ///< A checkpoint of it was complete: where there is none now, something has become of it.
    std::optional<GoingBack> going_back;  ///< Only while not all is in its place.
};

/// What the folder has; an empty record if it has none, or a damaged one. One that cannot be opened is an Error.
RunRecord read_run_record(const std::string& root);

/// Atomically.
void write_run_record(const std::string& root, const RunRecord& record);

/// 16 hexadecimal digits, unlike any other run's.
std::string new_run_id();

/// Whether it is one.
bool is_run_id(std::string_view text);

/// Which run wrote the checkpoint in this step folder, as its file `run` says; empty if there is none. One that cannot
/// be opened is an Error.
std::string run_of_checkpoint(const std::string& step_folder);

/// Lets a checkpoint that is being written know its run, if the run folder `root` knows it.
void write_run_of_checkpoint(const std::string& root, const std::string& step_folder);

}  // namespace llmc
