#include "llmc/io/data_file.h"

#include "llmc/base/error.h"
#include "llmc/base/log.h"
#include "llmc/base/shallow_json.h"
#include "llmc/io/chat/row_file.h"
#include "llmc/io/data_paths.h"
#include "llmc/io/data_signature.h"
#include "llmc/io/token_file.h"
#include "llmc/io/unpack.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <filesystem>
#include <set>
#include <string_view>
#include <utility>

namespace llmc {
namespace {

namespace fs = std::filesystem;

bool is_named_by_nanogpt(const std::string& path) {
    const std::string_view name = unpacked_name(path);
    return name == "train.bin" || name == "val.bin" || name == "test.bin" ||
           (name.ends_with(".bin") && path_exists((fs::path(path).parent_path() / "meta.pkl").string()));
}

MappedFile map_data(const std::string& path, const std::string& option) {
    if (path == "-") return read_standard_input(option);
    std::error_code error;
    const auto status = fs::status(path, error);
    if (status.type() == fs::file_type::not_found) {
        fail("{}: '{}' does not exist; check the name and the current folder", option, path);
    }
    if (error) {
        const bool is_loop = error == std::errc::too_many_symbolic_link_levels;
        fail("{}: cannot find '{}': {}; {}", option, path, error.message(),
             is_loop ? "it is a link that leads back to itself, so name the file it should lead to"
                     : "check the name, and who may read it");
    }
    if (fs::is_directory(status)) fail("{}: '{}' is a folder; name a file in it", option, path);
    if (!fs::is_regular_file(status)) {
        fail("{}: '{}' is not a regular file; save its content to a file first", option, path);
    }
    try {
        return MappedFile(path);
    } catch (const Error& cause) {
        fail("{}: {}", option, cause.what());
    }
}

/// The field that --jsonl-field would name, where the first line is a JSON object with texts; else "".
std::string text_field(std::string_view text) {
    constexpr size_t kLongestLine = size_t{1} << 20;
    if (text.starts_with("\xef\xbb\xbf")) text.remove_prefix(3);
    const size_t begin = text.find_first_not_of(" \t\r\n");
    if (begin == std::string_view::npos || text[begin] != '{') return "";
    const std::string_view line = text.substr(begin, text.find('\n', begin) - begin);
    if (line.size() > kLongestLine) return "";
    const nlohmann::json json = nlohmann::json::parse(shallow_json(line), nullptr, /*allow_exceptions=*/false);
    if (!json.is_object()) return "";
    for (const char* usual : {"text", "content"}) {
        if (json.contains(usual) && json[usual].is_string()) return usual;
    }
    const auto field = std::find_if(json.begin(), json.end(), [](const auto& value) { return value.is_string(); });
    return field == json.end() ? "" : field.key();
}

/// How ids without a header are read, for somebody who named `path` where only text is of use.
std::string how_to_read_ids(const std::string& path, const DataReading& reading) {
    return reading.only_text ? fmt::format("train on them as they are, with --data='{}' --data-format=uint16", path)
                             : "give --data-format=uint16";
}

/// What a user should know of a file that is read as plain text: said of the first of its ending.
void warn_of_text(const MappedFile& file, const std::string& option, const DataReading& reading) {
    const std::string& path = file.path();
    const std::string_view ending = ending_of(path);
    std::string field = text_field(file.text());
    if (field.empty() && (ending == ".jsonl" || ending == ".ndjson")) field = "text";
    std::string what;
    if (!field.empty()) {
        what =
            "looks like JSON Lines and is read as plain text, names and quotes too; for the texts alone, give "
            "--jsonl-field=" +
            field;
    } else if (ending == ".csv" || ending == ".tsv") {
        what = "is read as text like any other; nothing is taken out of its columns";
    } else if (ending == ".json") {
        what = "is read as plain text, names and quotes too";
    } else if (ending == ".bin") {
        what = "has no known header and is read as text; if it has token ids, " + how_to_read_ids(path, reading);
    }
    static std::set<std::string> said;
    if (what.empty() || !said.insert(option + what).second) return;
    spdlog::warn("{}: '{}' {}", option, path, what);
}

/// What content without a known header is.
DataKind kind_without_header(const MappedFile& file, const std::string& option, const DataReading& reading) {
    const std::string& path = file.path();
    const std::string encoding = utf_encoding_of(file.text());
    const bool is_binary = looks_binary(file.text());
    if (is_named_by_nanogpt(path)) {
        if (!is_binary) {
            fail(
                "{}: '{}' may be text or, by its name, nanoGPT's token ids (uint16, no header); for text give "
                "--data-format=text, and for ids {}",
                option, path, how_to_read_ids(path, reading).substr(reading.only_text ? 0 : 5));
        }
        spdlog::warn("{}: '{}' has no header; by its name it is nanoGPT's and read as uint16 token ids", option, path);
        return DataKind::Uint16;
    }
    if (!encoding.empty()) {
        fail("{}: '{}' is {} text; convert it: iconv -f {} -t UTF-8 '{}' > '{}.utf8.txt'", option, path,
             encoding.substr(0, encoding.find_first_of("LB")), encoding, path, path);
    }
    if (is_binary) {
        fail(
            "{}: '{}' is a binary file, neither text nor an llm.c token file; if it has token ids and nothing else, "
            "as nanoGPT writes them, {}",
            option, path, how_to_read_ids(path, reading));
    }
    return DataKind::Text;
}

bool is_json_object(std::string_view text) {
    return nlohmann::json::parse(shallow_json(text), nullptr, /*allow_exceptions=*/false).is_object();
}

/// Refuses what is no JSON Lines at all, so that every line of it would be bad: nothing among its first lines is a JSON
/// object.
void require_json_lines(const MappedFile& file, const std::string& option, const DataReading& reading) {
    constexpr size_t kLookedAt = size_t{1} << 20;
    const std::string& path = file.path();
    std::string_view text = file.text();
    if (text.starts_with("\xef\xbb\xbf")) text.remove_prefix(3);
    text.remove_prefix(std::min(text.find_first_not_of(" \t\r\n"), text.size()));
    if (text.starts_with('[')) {
        fail(
            "{}: '{}' is a JSON array, not JSON Lines, which has an object per line; convert it: jq -c '.[]' '{}' > "
            "'{}l'",
            option, path, path, path);
    }
    const std::string_view beginning = text.substr(0, kLookedAt);
    bool has_brace = beginning.empty();
    for (std::string_view rest = beginning; !rest.empty();) {
        const size_t end = std::min(rest.find('\n'), rest.size());
        if (is_json_object(rest.substr(0, end))) return;
        has_brace = has_brace || rest.starts_with('{');
        rest.remove_prefix(std::min(end + 1, rest.size()));
    }
    if (is_json_object(beginning)) {
        fail(
            "{}: '{}' is one JSON object over several lines, not JSON Lines, which has an object per line; convert it: "
            "jq -c . '{}' > '{}l'",
            option, path, path, path);
    }
    if (has_brace) return;  // Damaged lines, which are named one by one.
    fail(
        "{}: '{}' is no JSON Lines file: no line at its beginning is a JSON object; to read it as plain text, leave "
        "--jsonl-field={} out",
        option, path, reading.jsonl_field);
}

/// Whether text is instruction rows: what has only a "text" counts as that where it is asked for.
bool is_rows(const MappedFile& file, const std::string& option, const DataReading& reading) {
    const bool asked = reading.data_format == "rows";
    const bool is = looks_like_rows(file.text(), asked || !reading.chat_template.empty());
    const size_t begin = file.text().find_first_not_of("\xef\xbb\xbf \t\r\n");
    const bool could_be = begin != std::string_view::npos && (file.text()[begin] == '{' || file.text()[begin] == '[');
    if (asked && !is && !could_be) {
        fail(
            "{}: '{}' has no instruction rows: it is neither JSON Lines nor a JSON array; leave --data-format=rows out",
            option, file.path());
    }
    return is || asked;
}

/// Text that is asked for as ids: two letters may be an id, but four are beyond every vocabulary.
void mind_text_as_ids(const MappedFile& file, const std::string& option, const std::string& format) {
    constexpr size_t kFewest = 64;
    if (file.text().size() < kFewest || is_token_file(file.bytes()) || !looks_like_utf8(file.text())) return;
    if (format == "uint32") {
        fail("{}: '{}' is text, not token ids of 32 bits; leave --data-format={} out", option, file.path(), format);
    }
    spdlog::warn("{}: '{}' looks like text, and is read as token ids as --data-format={} says", option, file.path(),
                 format);
}

DataKind kind_of(const MappedFile& file, const std::string& option, const DataReading& reading) {
    if (file.size() == 0) return DataKind::Text;
    const DataKind text = reading.jsonl_field.empty() ? DataKind::Text : DataKind::JsonLines;
    if (reading.data_format.starts_with("uint")) {
        mind_text_as_ids(file, option, reading.data_format);
        return reading.data_format == "uint16" ? DataKind::Uint16 : DataKind::Uint32;
    }
    if (reading.data_format == "text") {
        if (text == DataKind::JsonLines) require_json_lines(file, option, reading);
        return text;
    }
    if (is_token_file(file.bytes())) {
        if (text == DataKind::JsonLines) {
            spdlog::warn("{}: '{}' is a token file; --jsonl-field={} has no effect on it", option, file.path(),
                         reading.jsonl_field);
        }
        return DataKind::TokenFile;
    }
    refuse_foreign(file.text(), file.path(), option);
    const DataKind kind = kind_without_header(file, option, reading);
    if (kind != DataKind::Text) return kind;
    if (text == DataKind::Text && is_rows(file, option, reading)) return DataKind::Rows;
    if (text == DataKind::Text) warn_of_text(file, option, reading);
    if (text == DataKind::JsonLines) require_json_lines(file, option, reading);
    return text;
}

}  // namespace

const char* name_of(DataKind kind) {
    switch (kind) {
        case DataKind::Text: return "text";
        case DataKind::JsonLines: return "JSON Lines";
        case DataKind::Rows: return "instruction rows";
        case DataKind::TokenFile: return "an llm.c token file";
        case DataKind::Uint16: return "token ids without a header (uint16)";
        case DataKind::Uint32: return "token ids without a header (uint32)";
    }
    return "?";
}

bool is_text(DataKind kind) { return kind == DataKind::Text || kind == DataKind::JsonLines; }

std::string DataFile::describe() const {
    return fmt::format("'{}' is {}{}", file.path(), name_of(kind), packing.empty() ? "" : " (" + packing + ")");
}

DataFile open_data_file(const std::string& path, const std::string& option, const DataReading& reading) {
    DataFile data = {map_data(path, option), DataKind::Text, ""};
    data.packing = packing_of(data.file.text());
    if (!data.packing.empty()) data.file = unpack(data.file, data.packing, option);
    data.kind = kind_of(data.file, option, reading);
    return data;
}

}  // namespace llmc
