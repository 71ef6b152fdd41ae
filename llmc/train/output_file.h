// Files that a user names for what a run or a plan shall write beside its run folder: --profile, --plot, --timeline.
#pragma once

#include <string>
#include <string_view>

namespace llmc {

/// Finds out whether the file can be written, by writing one beside it and removing that again. If not (the folder is
/// not there, a folder has that name, rights, a full disk), an Error that names the option.
void require_output(const std::string& option, const std::string& path);

/// Writes it, or replaces it, in one step. An Error names the option.
void write_output(const std::string& option, const std::string& path, std::string_view text);

}  // namespace llmc
