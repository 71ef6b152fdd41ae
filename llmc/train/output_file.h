// Files that a user names for what a run, a plan or a report shall write beside its run folder: --profile, --plot,
// --timeline, --emit-config, and --out of `report`. What is there already is replaced only by a newer one of its kind.
#pragma once

#include <string>
#include <string_view>

namespace llmc {

/// Finds out whether the file can be written, by writing one beside it and removing that again. If not (the folder is
/// not there, a folder has that name, rights, a full disk), an Error that names the option; exit code 2 where something
/// else than an earlier output of this option is there.
void require_output(const std::string& option, const std::string& path);

/// Writes it, or replaces an earlier one, in one step. Errors as of require_output().
void write_output(const std::string& option, const std::string& path, std::string_view text);

}  // namespace llmc
