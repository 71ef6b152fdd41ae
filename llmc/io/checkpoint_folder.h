// Names and places of checkpoints in a run folder; checkpoint.h explains the layout.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace llmc {

constexpr const char* kManifestName = "manifest.json";
constexpr const char* kLatestName = "latest";
constexpr const char* kBestName = "best";
constexpr const char* kTemporaryPrefix = ".tmp-";

/// ROOT/checkpoints.
std::string checkpoints_folder(const std::string& root);

/// "step-00000100".
std::string step_name(int64_t step);

/// The step of a folder name, or nothing if it is no such name.
std::optional<int64_t> step_from_name(std::string_view name);

/// Steps of the complete checkpoints (those with a manifest) in ROOT/checkpoints, ascending; without those that the run
/// has gone back from (run_record.h), which are about to be moved aside.
std::vector<int64_t> list_steps(const std::string& root);

/// The same with those.
std::vector<int64_t> list_all_steps(const std::string& root);

/// The newest folder of a step that has no manifest, and so is no checkpoint; nothing if there is none.
std::optional<int64_t> newest_incomplete_step(const std::string& root);

/// The step that the text file `name` (latest, best) names, or nothing if it is missing, damaged, or names a checkpoint
/// that is not complete.
std::optional<int64_t> named_step(const std::string& root, const std::string& name);

/// The same for whoever must not take a name for missing because the disk fails: a file that is there and cannot be
/// read is an Error.
std::optional<int64_t> read_named_step(const std::string& root, const std::string& name);

/// The step of the checkpoint to go on from: what `latest` names, or was about to name when its writer was killed, else
/// the newest; nothing if none is complete.
std::optional<int64_t> newest_step(const std::string& root);

/// Removes the temporary folders and files that a crashed writer left behind.
void remove_temporaries(const std::string& root);

}  // namespace llmc
