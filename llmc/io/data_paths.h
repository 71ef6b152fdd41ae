// Which files a name stands for: a file, a shell pattern, or a folder. Numbers in names count as numbers, so that
// shard_10 comes after shard_2. What a folder has besides the files that are read is said.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace llmc {

/// Which files of a folder are meant.
enum class FolderUse : uint8_t {
    Training,    ///< All but those for validation, by their names.
    Validation,  ///< Those; where there are none, all.
    All,         ///< All; both kinds are an Error.
};

/// The files that `pattern` names, in the order of their names. Of a folder its token files are taken; where it has
/// none, nanoGPT's train.bin or val.bin; else all, which must be plain texts or have one ending. What is not clear is
/// an Error that begins with `option` and says how to name them; what is left out is a warning.
std::vector<std::string> data_paths(const std::string& pattern, const std::string& option,
                                    FolderUse use = FolderUse::All);

/// Whether --data, a folder, brings files for validation.
bool has_validation_files(const std::string& folder);

/// A file's name without its folder, and without what its packing adds to it: "a.txt" of "x/a.txt.gz".
std::string_view unpacked_name(std::string_view path);
/// The end of that from its last dot on, ".txt"; "" if there is none.
std::string_view ending_of(std::string_view path);

/// Whether name `a` comes before `b`: as texts, but for numbers, which compare as such ("x2" before "x10").
bool comes_before(std::string_view a, std::string_view b);

}  // namespace llmc
