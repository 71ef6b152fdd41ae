#include "llmc/io/data_file.h"

#include "llmc/base/error.h"
#include "llmc/base/log.h"
#include "llmc/io/data_signature.h"
#include "llmc/io/token_file.h"
#include "llmc/io/unpack.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>
#include <string_view>
#include <utility>

namespace llmc {
namespace {

namespace fs = std::filesystem;

std::string_view file_name(std::string_view path) { return path.substr(path.rfind('/') + 1); }

/// A file's name without what its packing adds to it.
std::string_view unpacked_name(std::string_view path) {
    std::string_view name = file_name(path);
    for (const std::string_view ending : {".gz", ".gzip", ".zst", ".zstd"}) {
        if (name.ends_with(ending)) return name.substr(0, name.size() - ending.size());
    }
    return name;
}

std::string_view ending_of(std::string_view path) {
    const std::string_view name = unpacked_name(path);
    const size_t dot = name.rfind('.');
    return dot == std::string_view::npos ? "" : name.substr(dot);
}

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
    const nlohmann::json json = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!json.is_object()) return "";
    for (const char* usual : {"text", "content"}) {
        if (json.contains(usual) && json[usual].is_string()) return usual;
    }
    const auto field = std::find_if(json.begin(), json.end(), [](const auto& value) { return value.is_string(); });
    return field == json.end() ? "" : field.key();
}

/// What a user should know of a file that is read as plain text: said of the first of its ending.
void warn_of_text(const MappedFile& file, const std::string& option) {
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
        what = "has no known header and is read as text; for token ids give --data-format=uint16";
    }
    static std::set<std::string> said;
    if (what.empty() || !said.insert(option + what).second) return;
    spdlog::warn("{}: '{}' {}", option, path, what);
}

/// What content without a known header is.
DataKind kind_without_header(const MappedFile& file, const std::string& option) {
    const std::string& path = file.path();
    const std::string encoding = utf_encoding_of(file.text());
    const bool is_binary = looks_binary(file.text());
    if (is_named_by_nanogpt(path)) {
        if (!is_binary) {
            fail(
                "{}: '{}' may be text or, by its name, nanoGPT's token ids (uint16, no header); say which: "
                "--data-format=text or --data-format=uint16",
                option, path);
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
            "as nanoGPT writes them, give --data-format=uint16",
            option, path);
    }
    return DataKind::Text;
}

DataKind kind_of(const MappedFile& file, const std::string& option, const DataReading& reading) {
    if (file.size() == 0) return DataKind::Text;
    const DataKind text = reading.jsonl_field.empty() ? DataKind::Text : DataKind::JsonLines;
    if (reading.data_format == "uint16") return DataKind::Uint16;
    if (reading.data_format == "uint32") return DataKind::Uint32;
    if (reading.data_format == "text") return text;
    if (is_token_file(file.bytes())) {
        if (text == DataKind::JsonLines) {
            spdlog::warn("{}: '{}' is a token file; --jsonl-field={} has no effect on it", option, file.path(),
                         reading.jsonl_field);
        }
        return DataKind::TokenFile;
    }
    refuse_foreign(file.text(), file.path(), option);
    const DataKind kind = kind_without_header(file, option);
    if (kind != DataKind::Text) return kind;
    if (text == DataKind::Text) warn_of_text(file, option);
    if (text == DataKind::JsonLines && file.text().starts_with('[')) {
        fail(
            "{}: '{}' is a JSON array, not JSON Lines, which has an object per line; convert it: jq -c '.[]' '{}' > "
            "'{}l'",
            option, file.path(), file.path(), file.path());
    }
    return text;
}

}  // namespace

const char* name_of(DataKind kind) {
    switch (kind) {
        case DataKind::Text: return "text";
        case DataKind::JsonLines: return "JSON Lines";
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

namespace {

/// Names of the regular files in a folder, or of the folders in it, that are not hidden, sorted.
std::vector<std::string> names_in(const std::string& folder, const std::string& option, bool folders = false) {
    std::vector<std::string> names;
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(folder, error)) {
        const std::string name = entry.path().filename().string();
        const bool is_wanted = folders ? entry.is_directory(error) : entry.is_regular_file(error);
        if (!name.starts_with('.') && is_wanted) names.push_back(name);
    }
    if (error) fail("{}: cannot read the folder '{}': {}", option, folder, error.message());
    std::sort(names.begin(), names.end());
    return names;
}

bool is_for_validation(const std::string& name) { return name == "val.bin" || name.find("_val_") != std::string::npos; }

/// A pattern that a user may copy, for all files with that one's ending.
std::string pattern_like(const std::string& folder, const std::string& name) {
    const std::string_view ending = ending_of(name);
    if (ending.empty()) return folder + "/" + name;
    return fmt::format("{}/*{}", folder, name.substr(static_cast<size_t>(ending.data() - name.data())));
}

/// Of shards for training and for validation those that are meant.
std::vector<std::string> chosen_shards(const std::vector<std::string>& names, FolderUse use, const std::string& folder,
                                       const std::string& option) {
    std::vector<std::string> training, validation;
    for (const std::string& name : names) (is_for_validation(name) ? validation : training).push_back(name);
    if (training.empty() || validation.empty()) return names;
    if (use == FolderUse::All) {
        fail("{}: the folder '{}' has files for training and for validation; name those to read: '{}/*{}' or '{}/*{}'",
             option, folder, folder, training[0] == "train.bin" ? "train.bin" : "_train_*.bin", folder,
             validation[0] == "val.bin" ? "val.bin" : "_val_*.bin");
    }
    return use == FolderUse::Validation ? validation : training;
}

std::vector<std::string> chosen_names(const std::string& folder, FolderUse use, const std::string& option) {
    const std::vector<std::string> all = names_in(folder, option);
    if (all.empty()) {
        const std::vector<std::string> folders = names_in(folder, option, /*folders=*/true);
        fail("{}: '{}' is a folder without files; {}", option, folder,
             folders.empty() ? "name a file, or a folder that has some"
                             : fmt::format("name a folder in it, such as '{}/{}'", folder, folders[0]));
    }
    std::vector<std::string> tokens, nanogpt;
    std::map<std::string, std::string> by_ending;
    for (const std::string& name : all) {
        if (is_token_file(map_data(folder + "/" + name, option).bytes())) tokens.push_back(name);
        if (name == "train.bin" || name == "val.bin") nanogpt.push_back(name);
        by_ending.emplace(ending_of(name), name);
    }
    if (!tokens.empty()) return chosen_shards(tokens, use, folder, option);
    if (!nanogpt.empty()) return chosen_shards(nanogpt, use, folder, option);
    if (by_ending.size() == 1) return all;
    std::vector<std::string> patterns;
    for (const auto& [ending, name] : by_ending) patterns.push_back("'" + pattern_like(folder, name) + "'");
    fail("{}: the folder '{}' has files of several kinds; name those to read by a quoted pattern: {}", option, folder,
         fmt::join(patterns, ", "));
}

}  // namespace

std::vector<std::string> data_paths(const std::string& pattern, const std::string& option, FolderUse use) {
    if (pattern == "-") return {pattern};
    std::vector<std::string> paths;
    for (std::string path : glob_paths(pattern)) {
        if (!is_directory(path)) {
            paths.push_back(path);
            continue;
        }
        while (path.size() > 1 && path.ends_with('/')) path.pop_back();
        for (const std::string& name : chosen_names(path, use, option)) paths.push_back(path + "/" + name);
    }
    if (paths.empty()) fail("{}: no file matches '{}'; check the pattern and the current folder", option, pattern);
    return paths;
}

bool has_validation_files(const std::string& folder) {
    if (!is_directory(folder)) return false;
    const std::vector<std::string> names = names_in(folder, "--data");
    const auto count = std::count_if(names.begin(), names.end(), [&](const std::string& name) {
        return is_for_validation(name) && name.ends_with(".bin");
    });
    return count > 0;
}

}  // namespace llmc
