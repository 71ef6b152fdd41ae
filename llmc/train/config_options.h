// What the entries of a config file (config_file.h) say of options. An option stands above all sections, or in the
// section of its group: [model], [data], [optimisation], [memory], [ranks], [device], [run]. A run's own file says in
// [written] where its folder was (config_paths.h).
#pragma once

#include "llmc/train/config_file.h"
#include "llmc/train/options.h"

#include <string>
#include <string_view>
#include <vector>

namespace llmc {

constexpr const char* kWrittenSection = "written";
constexpr const char* kWrittenFolder = "folder";

/// "data" of "Data and batch".
std::string section_of_group(std::string_view group);

/// One option of a file.
struct ConfigOption {
    const OptionRow* row;
    std::string value;  ///< As on the command line.
    int line;
};

struct ConfigOptions {
    std::vector<ConfigOption> options;
    std::string written_folder;  ///< Where a run folder with this file was; empty if the file is of no run, or old.
};

/// Checks names, sections and types. What is no option for a file, stands in another group's section or twice, or has a
/// value of another type, is an Error (bad usage) that starts with `who` and the line, and says what is right.
ConfigOptions options_in(const std::vector<ConfigEntry>& entries, const std::string& who);

}  // namespace llmc
