#include "llmc/train/config_paths.h"

#include "llmc/base/file.h"
#include "llmc/io/chat/chat_template.h"
#include "llmc/model/config.h"
#include "llmc/train/profile_file.h"

#include <spdlog/fmt/fmt.h>

#include <filesystem>
#include <system_error>

namespace llmc {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kPatternCharacters = "*?[\\";
constexpr std::string_view kFile = "file:";

/// Where in an option's text its path begins; npos if it has none.
size_t path_begin(const OptionRow& row, const std::string& value) {
    const bool has_file = value.starts_with(kFile);
    bool is_word = value.empty();
    switch (row.path) {
        case PathKind::None: is_word = true; break;
        case PathKind::Path: break;
        case PathKind::Data: is_word |= value == "-"; break;
        case PathKind::Model: is_word |= find_preset(value).has_value(); break;
        case PathKind::Tokenizer: is_word |= value == "bytes" || value == "none"; break;
        case PathKind::ChatTemplate: is_word |= is_chat_template_name(value); break;
        case PathKind::Algorithms:
            is_word |= value == kFirstAlgorithms || value == kTimedAlgorithms || value == kOwnAlgorithms;
            break;
        case PathKind::Profile: is_word |= !is_profile_file(value); break;
        case PathKind::Link: return has_file ? kFile.size() : std::string::npos;
    }
    return is_word ? std::string::npos : 0;
}

/// Whether the option's path is one to read from: if it is not there, another may be meant.
bool is_read(const OptionRow& row) {
    return row.path == PathKind::Data || row.path == PathKind::Model || row.path == PathKind::Tokenizer ||
           row.path == PathKind::ChatTemplate || row.path == PathKind::Algorithms;
}

bool is_pattern(const std::string& path) {
    return path.find_first_of("*?[{") != std::string::npos && !path_exists(path);
}
bool is_pattern(const OptionRow& row, const std::string& path) {
    return row.path == PathKind::Data && is_pattern(path);
}

/// A folder's name in front of a pattern: its own *, ? and [ are letters.
std::string in_pattern(const std::string& folder, bool is_pattern) {
    std::string text;
    for (const char c : folder) {
        if (is_pattern && kPatternCharacters.find(c) != std::string_view::npos) text += '\\';
        text += c;
    }
    return text;
}

bool is_there(const std::string& path, bool is_pattern) {
    return is_pattern ? !glob_paths(path).empty() : path_exists(path);
}

/// The folder itself, without links on the way; as it is where that cannot be told.
fs::path real_folder(const std::string& folder) {
    std::error_code error;
    const fs::path real = fs::canonical(folder.empty() ? "." : folder, error);
    return error ? fs::path(folder) : real;
}

/// A relative path from `folder`, which has no links in it: `.` and `..` at its beginning are gone. Others stay, since
/// they may stand behind a link.
std::string from_folder(fs::path folder, const std::string& path, bool is_pattern) {
    fs::path rest;
    bool is_beginning = true;
    for (const fs::path& part : fs::path(path)) {
        is_beginning = is_beginning && (part == "." || part == "..");
        if (is_beginning && part == "..") folder = folder.parent_path();
        if (!is_beginning) rest /= part;
    }
    const fs::path start = in_pattern(folder.string(), is_pattern);
    return (rest.empty() ? start : start / rest).string();
}

}  // namespace

bool is_data_there(const std::string& data) { return is_there(data, is_pattern(data)); }

ConfigPlace::ConfigPlace(const std::string& file) : folder_(fs::path(file).parent_path().string()) {}

ConfigPlace::ConfigPlace(const std::string& file, const std::string& written_folder)
    : folder_(fs::path(file).parent_path().string()), is_of_run_(true), written_folder_(written_folder) {}

/// Where a path of a run's file may be, the likeliest first.
std::vector<std::string> ConfigPlace::places(const std::string& path, bool is_pattern) const {
    const fs::path folder = real_folder(folder_);
    if (path.starts_with('/')) {
        const fs::path way = fs::path(path).lexically_relative(in_pattern(written_folder_, is_pattern));
        if (written_folder_.empty() || way.empty()) return {path};
        return {path, from_folder(folder, way.string(), is_pattern)};
    }
    if (!written_folder_.empty()) return {from_folder(folder, path, is_pattern)};
    std::vector<std::string> all = {path};
    for (const fs::path& place : {folder.parent_path(), folder.parent_path().parent_path(), folder}) {
        all.push_back(from_folder(place, path, is_pattern));
    }
    return all;
}

std::string ConfigPlace::resolve(const OptionRow& row, const std::string& value,
                                 std::vector<std::string>* remarks) const {
    const size_t begin = path_begin(row, value);
    if (begin == std::string::npos) return value;
    const std::string path = value.substr(begin);
    if (!is_of_run_ || !is_read(row)) {
        if (path.starts_with('/') || folder_.empty()) return value;
        const bool is_one = is_pattern(row, (fs::path(folder_) / path).string());
        return value.substr(0, begin) + (fs::path(in_pattern(folder_, is_one)) / path).string();
    }
    const bool is_one = is_pattern(row, path);
    const std::vector<std::string> all = places(path, is_one);
    for (const std::string& place : all) {
        if (!is_there(place, is_one)) continue;
        if (place != all.front()) {
            remarks->push_back(
                fmt::format("--{}: there is no '{}'; '{}' is taken, which is in the same place as seen "
                            "from the run folder",
                            row.name(), all.front(), place));
        }
        return place;
    }
    return all.front();
}

Options with_absolute_paths(Options options) {
    for (const OptionRow& row : option_table()) {
        const auto* field = std::get_if<std::string Options::*>(&row.field);
        if (field == nullptr) continue;
        std::string& value = options.**field;
        const size_t begin = path_begin(row, value);
        if (begin == std::string::npos) continue;
        const std::string path = value.substr(begin);
        std::error_code error;
        const fs::path here = fs::current_path(error);
        if (path.starts_with('/') || error) continue;
        value = value.substr(0, begin) + from_folder(here, path, is_pattern(row, path));
    }
    return options;
}

}  // namespace llmc
