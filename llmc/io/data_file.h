// What a file of data is. This is the one place that decides it, by the content: text, JSON Lines, token files of
// llm.c, token ids without a header, each perhaps packed by gzip or zstd; everything else is refused by its name, with
// what to do about it.
#pragma once

#include "llmc/base/file.h"

#include <cstdint>
#include <string>
#include <vector>

namespace llmc {

/// How a user wants data read: the options of these names.
struct DataReading {
    std::string data_format = "auto";  ///< "auto", or what the content is not asked for: "text", "uint16", "uint32".
    std::string jsonl_field = {};      ///< Where it is not empty, text is JSON Lines.
    bool special_tokens = false;
    bool skip_bad_lines = false;
};

enum class DataKind : uint8_t {
    Text,
    JsonLines,
    TokenFile,  ///< With llm.c's header.
    Uint16,     ///< Token ids and nothing else, as nanoGPT writes them.
    Uint32,
};
/// "text", "JSON Lines", ...
const char* name_of(DataKind kind);
bool is_text(DataKind kind);

struct DataFile {
    MappedFile file;  ///< Unpacked, under the name of the file itself.
    DataKind kind = DataKind::Text;
    std::string packing;  ///< "gzip", "zstd" or "".
    /// "'a.jsonl.gz' is JSON Lines (gzip)".
    std::string describe() const;
};

/// Which files of a folder are meant.
enum class FolderUse : uint8_t {
    Training,    ///< All but those for validation, by their names.
    Validation,  ///< Those; where there are none, all.
    All,         ///< All; both kinds are an Error.
};

/// The files that `pattern` names: a file, a shell pattern, or a folder. Of a folder its token files are taken; where
/// it has none, nanoGPT's train.bin or val.bin; else all, which must have one ending. What is not clear is an Error
/// that begins with `option` and says how to name them.
std::vector<std::string> data_paths(const std::string& pattern, const std::string& option,
                                    FolderUse use = FolderUse::All);

/// Whether --data, a folder, brings files for validation.
bool has_validation_files(const std::string& folder);

/// Opens a file, or standard input for "-". What it cannot be, and what is not there, is an Error that begins with
/// `option`; what it could be as well is a warning. An empty file is text.
DataFile open_data_file(const std::string& path, const std::string& option, const DataReading& reading = {});

}  // namespace llmc
