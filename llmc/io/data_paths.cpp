#include "llmc/io/data_paths.h"

#include "llmc/base/error.h"
#include "llmc/base/file.h"
#include "llmc/base/log.h"
#include "llmc/io/token_file.h"

#include <algorithm>
#include <filesystem>
#include <map>

namespace llmc {
namespace {

namespace fs = std::filesystem;

using Names = std::vector<std::string>;

/// What a folder has but hidden files, each in the order of names.
struct FolderContent {
    Names files;    ///< Regular ones.
    Names folders;  ///< And whatever else is no file.
};

FolderContent content_of(const std::string& folder, const std::string& option) {
    FolderContent content;
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(folder, error)) {
        const std::string name = entry.path().filename().string();
        std::error_code unknown;
        if (name.starts_with('.')) continue;
        (entry.is_regular_file(unknown) ? content.files : content.folders).push_back(name);
    }
    if (error) fail("{}: cannot read the folder '{}': {}", option, folder, error.message());
    std::sort(content.files.begin(), content.files.end(), comes_before);
    std::sort(content.folders.begin(), content.folders.end(), comes_before);
    return content;
}

bool is_for_validation(const std::string& name) { return name == "val.bin" || name.find("_val_") != std::string::npos; }

bool begins_as_token_file(const std::string& path, const std::string& option) {
    try {
        return is_token_file(MappedFile(path).bytes());
    } catch (const Error& cause) {
        fail("{}: {}", option, cause.what());
    }
}

/// A pattern that a user may copy, for all files with that one's ending.
std::string pattern_like(const std::string& folder, const std::string& name) {
    const std::string_view ending = ending_of(name);
    if (ending.empty()) return folder + "/" + name;
    return fmt::format("{}/*{}", folder, name.substr(static_cast<size_t>(ending.data() - name.data())));
}

/// Of shards for training and for validation those that are meant.
Names chosen_shards(const Names& names, FolderUse use, const std::string& folder, const std::string& option) {
    Names training, validation;
    for (const std::string& name : names) (is_for_validation(name) ? validation : training).push_back(name);
    if (training.empty() || validation.empty()) return names;
    if (use == FolderUse::All) {
        fail("{}: the folder '{}' has files for training and for validation; name those to read: '{}/*{}' or '{}/*{}'",
             option, folder, folder, training[0] == "train.bin" ? "train.bin" : "_train_*.bin", folder,
             validation[0] == "val.bin" ? "val.bin" : "_val_*.bin");
    }
    return use == FolderUse::Validation ? validation : training;
}

[[noreturn]] void refuse_empty(const FolderContent& content, const std::string& folder, const std::string& option) {
    const auto inner = std::find_if(content.folders.begin(), content.folders.end(),
                                    [&](const std::string& name) { return is_directory(folder + "/" + name); });
    fail("{}: '{}' is a folder without files; {}", option, folder,
         inner == content.folders.end() ? "name a file, or a folder that has some"
                                        : fmt::format("name a folder in it, such as '{}/{}'", folder, *inner));
}

/// Token files, else nanoGPT's, else all of one ending.
Names readable_names(const FolderContent& content, const std::string& folder, const std::string& option) {
    if (content.files.empty()) refuse_empty(content, folder, option);
    Names tokens, nanogpt;
    std::map<std::string, std::string> by_ending;
    for (const std::string& name : content.files) {
        if (begins_as_token_file(folder + "/" + name, option)) tokens.push_back(name);
        if (name == "train.bin" || name == "val.bin") nanogpt.push_back(name);
        by_ending.emplace(ending_of(name), name);
    }
    if (!tokens.empty()) return tokens;
    if (!nanogpt.empty()) return nanogpt;
    if (by_ending.size() == 1) return content.files;
    Names patterns;
    for (const auto& [ending, name] : by_ending) patterns.push_back("'" + pattern_like(folder, name) + "'");
    fail("{}: the folder '{}' has files of several kinds; name those to read by a quoted pattern: {}", option, folder,
         fmt::join(patterns, ", "));
}

/// Says, once, what stands in a folder and is not `read`.
void warn_of_rest(const FolderContent& content, const Names& read, const std::string& folder,
                  const std::string& option) {
    constexpr size_t kNamed = 3;
    Names rest;
    for (const Names* names : {&content.files, &content.folders}) {
        for (const std::string& name : *names) {
            const bool is_used = name.ends_with("_tokenizer") || name.ends_with(".marks") ||
                                 std::count(read.begin(), read.end(), name) > 0;
            if (!is_used) rest.push_back(name);
        }
    }
    if (rest.empty()) return;
    const Names first(rest.begin(), rest.begin() + static_cast<std::ptrdiff_t>(std::min(rest.size(), kNamed)));
    spdlog::warn("{}: of the folder '{}', {} file{} read; {} left out: {}{}", option, folder, read.size(),
                 read.size() == 1 ? " is" : "s are",
                 rest.size() == 1 ? "1 other is" : fmt::format("{} others are", rest.size()), fmt::join(first, ", "),
                 rest.size() > kNamed ? fmt::format(" and {} more", rest.size() - kNamed) : "");
}

Names chosen_names(const std::string& folder, FolderUse use, const std::string& option) {
    const FolderContent content = content_of(folder, option);
    const Names readable = readable_names(content, folder, option);
    Names chosen = chosen_shards(readable, use, folder, option);
    // Where --data brings files for validation, too, both are read, and asked for one after the other.
    const bool is_one_of_two = option == "--data" && use != FolderUse::All;
    if (!is_one_of_two || use == FolderUse::Training) {
        warn_of_rest(content, is_one_of_two ? readable : chosen, folder, option);
    }
    return chosen;
}

bool is_digit(char c) { return c >= '0' && c <= '9'; }

/// The number that `text` begins with, without zeros in front.
std::string_view leading_number(std::string_view text) {
    const size_t size = static_cast<size_t>(std::find_if_not(text.begin(), text.end(), is_digit) - text.begin());
    std::string_view number = text.substr(0, size);
    while (number.size() > 1 && number[0] == '0') number.remove_prefix(1);
    return number;
}

}  // namespace

std::string_view unpacked_name(std::string_view path) {
    const std::string_view name = path.substr(path.rfind('/') + 1);
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

bool comes_before(std::string_view a, std::string_view b) {
    size_t i = 0, j = 0;
    while (i < a.size() && j < b.size()) {
        if (is_digit(a[i]) && is_digit(b[j])) {
            const std::string_view x = leading_number(a.substr(i)), y = leading_number(b.substr(j));
            if (x.size() != y.size()) return x.size() < y.size();
            if (x != y) return x < y;
            i = static_cast<size_t>(x.data() + x.size() - a.data());
            j = static_cast<size_t>(y.data() + y.size() - b.data());
        } else if (a[i] != b[j]) {
            return static_cast<unsigned char>(a[i]) < static_cast<unsigned char>(b[j]);
        } else {
            ++i, ++j;
        }
    }
    const size_t rest_of_a = a.size() - i, rest_of_b = b.size() - j;
    return rest_of_a != rest_of_b ? rest_of_a < rest_of_b : a < b;  // The same but for zeros in front of numbers.
}

std::vector<std::string> data_paths(const std::string& pattern, const std::string& option, FolderUse use) {
    if (pattern == "-") return {pattern};
    Names found = glob_paths(pattern), paths;
    std::sort(found.begin(), found.end(), comes_before);
    for (std::string& path : found) {
        if (!is_directory(path)) {
            const bool is_beside = path.ends_with(".marks") && found.size() > 1;  // Read with its tokens.
            if (!is_beside) paths.push_back(path);
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
    const Names names = content_of(folder, "--data").files;
    const auto count = std::count_if(names.begin(), names.end(), [&](const std::string& name) {
        return is_for_validation(name) && name.ends_with(".bin");
    });
    return count > 0;
}

}  // namespace llmc
