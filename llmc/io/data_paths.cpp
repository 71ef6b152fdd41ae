#include "llmc/io/data_paths.h"

#include "llmc/base/error.h"
#include "llmc/base/file.h"
#include "llmc/base/log.h"
#include "llmc/io/data_signature.h"
#include "llmc/io/token_file.h"
#include "llmc/io/unpack.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>

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

MappedFile open_in_folder(const std::string& path, const std::string& option) {
    try {
        return MappedFile(path);
    } catch (const Error& cause) {
        fail("{}: {}", option, cause.what());
    }
}

/// Files of one ending.
struct SameEnding {
    Names names;
    bool has_text = false, has_other = false;  ///< Among those that are not packed.
};

/// Whether a file is text that is read as it stands, whatever its name ends in: not rows or columns, and not packed.
bool is_plain_text(const std::string& name, std::string_view content) {
    const std::set<std::string_view> structured = {".json", ".jsonl", ".ndjson", ".csv", ".tsv"};
    return structured.count(ending_of(name)) == 0 && utf_encoding_of(content).empty() && !looks_binary(content);
}

/// A pattern that a user may copy, for all of these files.
std::string pattern_for(const std::string& folder, const std::vector<const SameEnding*>& endings) {
    std::set<std::string> parts;
    for (const SameEnding* ending : endings) {
        for (const std::string& name : ending->names) {
            const std::string_view tail = ending_of(name);
            parts.insert(tail.empty() ? name : "*" + name.substr(static_cast<size_t>(tail.data() - name.data())));
        }
    }
    if (parts.size() == 1) return fmt::format("'{}/{}'", folder, *parts.begin());
    return fmt::format("'{}/{{{}}}'", folder, fmt::join(parts, ","));
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

bool is_run_folder(const std::string& folder) {
    return path_exists(folder + "/config.toml") &&
           (path_exists(folder + "/checkpoints") || path_exists(folder + "/run.json"));
}

constexpr const char* kRunsAreNoData =
    "name a file or folder with text or tokens in it (where a run's are, its config.toml says; the run itself is named "
    "by --run)";

[[noreturn]] void refuse_empty(const FolderContent& content, const std::string& folder, const std::string& option) {
    std::string with_files;
    for (const std::string& name : content.folders) {
        const std::string inner = fmt::format("{}/{}", folder, name);
        if (is_run_folder(inner)) fail("{}: '{}' is a folder of runs, not data; {}", option, folder, kRunsAreNoData);
        const bool has_files = is_directory(inner) && !content_of(inner, option).files.empty();
        if (has_files && with_files.empty()) with_files = inner;
    }
    fail("{}: '{}' is a folder without files; {}", option, folder,
         with_files.empty() ? "name a file, or a folder that has some"
                            : fmt::format("name a folder in it, such as '{}'", with_files));
}

/// Token files, else nanoGPT's, else all of one kind.
Names readable_names(const FolderContent& content, const std::string& folder, const std::string& option) {
    if (content.files.empty()) refuse_empty(content, folder, option);
    if (is_run_folder(folder)) fail("{}: '{}' is the folder of a run, not data; {}", option, folder, kRunsAreNoData);
    Names tokens, nanogpt;
    std::map<std::string, SameEnding> by_ending;
    for (const std::string& name : content.files) {
        const MappedFile file = open_in_folder(folder + "/" + name, option);
        if (is_token_file(file.bytes())) tokens.push_back(name);
        if (name == "train.bin" || name == "val.bin") nanogpt.push_back(name);
        SameEnding& alike = by_ending[std::string(ending_of(name))];
        alike.names.push_back(name);
        if (!packing_of(file.text()).empty()) continue;
        (is_plain_text(name, file.text()) ? alike.has_text : alike.has_other) = true;
    }
    if (!tokens.empty()) return tokens;
    if (!nanogpt.empty()) return nanogpt;
    // Texts are of one kind, whatever their names end in.
    std::map<std::string, std::vector<const SameEnding*>> kinds;
    for (const auto& [ending, alike] : by_ending) {
        kinds[alike.has_text && !alike.has_other ? "text" : ending].push_back(&alike);
    }
    if (kinds.size() == 1) return content.files;
    Names patterns;
    for (const auto& [kind, endings] : kinds) patterns.push_back(pattern_for(folder, endings));
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
