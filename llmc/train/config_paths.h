// Paths in config files, so that a run can be used from any folder.
//
// In a file of a user's own (--config), a relative path counts from the file's folder. A run's config.toml has absolute
// paths, and says where the run folder was. What is no longer where it was is looked for in the same place as seen from
// the run folder, so that a tree that was moved or copied whole still works; what is in both places is taken from where
// it was. Earlier versions wrote relative paths that counted from the folder a run was started in: such a path is
// looked for in the current folder, then in the folder around the run, in the one around that, and beside the file.
// Whatever is not found where it was is said in one line.
#pragma once

#include "llmc/train/options.h"

#include <string>
#include <vector>

namespace llmc {

/// Counts the paths of one config file.
class ConfigPlace {
  public:
    /// A file of a user's own.
    explicit ConfigPlace(const std::string& file);
    /// A run's; `written_folder` is where it says that the run folder was, empty in a file of an earlier version.
    ConfigPlace(const std::string& file, const std::string& written_folder);

    /// The value of an option in the file, as it counts from the current folder. Where something was found elsewhere, a
    /// line about it is added to `remarks`. What is not there at all stays what it was.
    std::string resolve(const OptionRow& row, const std::string& value, std::vector<std::string>* remarks) const;

  private:
    std::vector<std::string> places(const std::string& path, bool is_pattern) const;

    std::string folder_;
    bool is_of_run_ = false;
    std::string written_folder_;
};

/// The options with every path absolute that --config could read.
Options with_absolute_paths(Options options);

/// Whether there is something that --data may name so: a file, a folder, or what a pattern matches.
bool is_data_there(const std::string& data);

}  // namespace llmc
