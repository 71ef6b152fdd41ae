// A run that goes on from a step: what lies beyond it (checkpoints, lines of metrics, the options it was done with) is
// abandoned and gives way. At every moment weights, `latest`, metrics.jsonl and config.toml are of one branch: the new
// files are prepared beside the old ones, one atomic replacement of run.json decides, and then everything is moved to
// its place, by this process or, if that is killed, by the next that uses the folder. From the decision on nobody sees
// the checkpoints that are still to be moved.
//
//   RUN/abandoned/1/     a run folder itself: later checkpoints, with the options and metrics that go with them
#pragma once

#include <cstdint>
#include <string>

namespace llmc {

/// Makes the folder `root` that of a run which has done `step` steps and goes on with these options, the text of a
/// config.toml. A run whose run.json is lost stays the one that its checkpoint says it is. The caller holds the
/// folder's lock. Returns where abandoned checkpoints are, "" if there were none.
std::string go_on_from(const std::string& root, int64_t step, const std::string& config);

/// Tries, before anything is trained, whether checkpoints later than `step` can be moved aside; leaves nothing, also of
/// a rehearsal that was killed. Errors start with `option`.
void rehearse_going_back(const std::string& root, int64_t step, const std::string& option);

/// Ends the moves that go_on_from() could not end; an Error if they still cannot be. The caller holds the lock.
void finish_going_back(const std::string& root);

/// Moves to its place what a killed go_on_from() has left, where nobody else is at it and the folder can be written.
void settle_run_folder(const std::string& root);

}  // namespace llmc
