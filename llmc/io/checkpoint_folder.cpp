#include "llmc/io/checkpoint_folder.h"

#include "llmc/base/error.h"
#include "llmc/base/file.h"
#include "llmc/io/run_record.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <system_error>

namespace llmc {
namespace {

constexpr std::string_view kStepPrefix = "step-";

std::vector<std::string> names_in(const std::string& folder) {
    std::vector<std::string> names;
    std::error_code error;
    for (auto entry = std::filesystem::directory_iterator(folder, error); !error && entry != end(entry);
         entry.increment(error)) {
        names.push_back(entry->path().filename().string());
    }
    const bool is_none = error == std::errc::no_such_file_or_directory || error == std::errc::not_a_directory;
    if (error && !is_none) fail("cannot read the folder '{}': {}", folder, error.message());
    return names;
}

bool has_manifest(const std::string& root, int64_t step) {
    return path_exists(checkpoints_folder(root) + "/" + step_name(step) + "/" + kManifestName);
}

/// Whether the run has gone back from the step.
bool is_abandoned(const std::string& root, int64_t step) {
    const RunRecord record = read_run_record(root);
    return record.going_back && step > record.going_back->step;
}

}  // namespace

std::string checkpoints_folder(const std::string& root) { return root + "/checkpoints"; }

std::string step_name(int64_t step) { return fmt::format("{}{:08}", kStepPrefix, step); }

std::optional<int64_t> step_from_name(std::string_view name) {
    if (!name.starts_with(kStepPrefix)) return std::nullopt;
    const std::string_view digits = name.substr(kStepPrefix.size());
    int64_t step = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), step);
    if (error != std::errc() || step < 0 || step_name(step) != name) return std::nullopt;
    return step;
}

std::vector<int64_t> list_all_steps(const std::string& root) {
    std::vector<int64_t> steps;
    for (const std::string& name : names_in(checkpoints_folder(root))) {
        const auto step = step_from_name(name);
        if (step && has_manifest(root, *step)) steps.push_back(*step);
    }
    std::sort(steps.begin(), steps.end());
    return steps;
}

std::vector<int64_t> list_steps(const std::string& root) {
    std::vector<int64_t> steps = list_all_steps(root);
    const RunRecord record = read_run_record(root);
    if (record.going_back) std::erase_if(steps, [&](int64_t step) { return step > record.going_back->step; });
    return steps;
}

std::optional<int64_t> newest_incomplete_step(const std::string& root) {
    std::optional<int64_t> newest;
    for (const std::string& name : names_in(checkpoints_folder(root))) {
        const auto step = step_from_name(name);
        if (step && !has_manifest(root, *step)) newest = std::max(newest, step);
    }
    return newest;
}

std::optional<int64_t> named_step(const std::string& root, const std::string& name) {
    try {
        return read_named_step(root, name);
    } catch (const Error&) {
        return std::nullopt;
    }
}

std::optional<int64_t> read_named_step(const std::string& root, const std::string& name) {
    const std::string path = checkpoints_folder(root) + "/" + name;
    std::error_code error;
    if (std::filesystem::status(path, error).type() == std::filesystem::file_type::not_found) return std::nullopt;
    std::string text = read_text(path);
    if (text.ends_with('\n')) text.pop_back();
    const auto step = step_from_name(text);
    return step && has_manifest(root, *step) && !is_abandoned(root, *step) ? step : std::nullopt;
}

std::optional<int64_t> newest_step(const std::string& root) {
    if (const auto pending = named_step(root, std::string(kTemporaryPrefix) + kLatestName + "/" + kLatestName)) {
        return pending;
    }
    if (const auto latest = named_step(root, kLatestName)) return latest;
    const std::vector<int64_t> steps = list_steps(root);
    return steps.empty() ? std::nullopt : std::optional(steps.back());
}

void remove_temporaries(const std::string& root) {
    const std::string folder = checkpoints_folder(root);
    for (const std::string& name : names_in(folder)) {
        std::error_code ignored;
        if (name.starts_with(kTemporaryPrefix)) std::filesystem::remove_all(folder + "/" + name, ignored);
    }
}

}  // namespace llmc
