// What a file of data is. This is the one place that decides it, by the content: text, JSON Lines, instruction rows
// (chat/row.h), token files of llm.c, token ids without a header, each perhaps packed by gzip or zstd; everything else
// is refused by its name, with what to do about it.
#pragma once

#include "llmc/base/file.h"

#include <cstdint>
#include <string>

namespace llmc {

/// How a user wants data read: the options of these names.
struct DataReading {
    std::string data_format =
        "auto";  ///< "auto", or what the content is not asked for: "text", "rows", "uint16", "uint32".
    std::string jsonl_field = {};  ///< Where it is not empty, text is JSON Lines.
    bool special_tokens = false;
    bool skip_bad_lines = false;
    bool only_text = false;           ///< Token ids are of no use: advice does not speak of reading them.
    std::string chat_template = {};   ///< Of instruction rows: a family's name or a file; "": the tokenizer's.
    std::string score = "assistant";  ///< Of instruction rows: "assistant", "all" or "completion".
};

enum class DataKind : uint8_t {
    Text,
    JsonLines,
    Rows,       ///< Instruction data, as JSON Lines or a JSON array.
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

/// Opens a file, or standard input for "-". What it cannot be, and what is not there, is an Error that begins with
/// `option`; what it could be as well is a warning. An empty file is text.
DataFile open_data_file(const std::string& path, const std::string& option, const DataReading& reading = {});

}  // namespace llmc
