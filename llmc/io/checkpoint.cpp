#include "llmc/io/checkpoint.h"

#include "llmc/base/check.h"
#include "llmc/base/error.h"
#include "llmc/base/file.h"
#include "llmc/base/file_lock.h"
#include "llmc/base/log.h"
#include "llmc/base/mapped_reading.h"
#include "llmc/base/printable.h"
#include "llmc/base/units.h"
#include "llmc/io/checkpoint_folder.h"
#include "llmc/io/manifest.h"
#include "llmc/io/run_record.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <utility>

namespace llmc {
namespace {

namespace fs = std::filesystem;

std::string system_reason() { return std::strerror(errno); }

/// Says before anything is written that the disk is too full. What cannot be known is left to the writes themselves.
void require_free_space(const std::string& folder, int64_t bytes) {
    const int64_t needed = bytes + kCheckpointSlack;
    const std::optional<int64_t> available = free_bytes(folder);
    if (!available || *available >= needed) return;
    fail("no room for a checkpoint in '{}': {} needed, {} free; free some space, or choose another --output-dir",
         folder, format_bytes(needed), format_bytes(*available));
}

/// Makes the folder of a run's checkpoints ready for a new one, and returns the new one's temporary folder.
std::string prepare_folder(const std::string& root, int64_t step, int64_t bytes) {
    const std::string folder = checkpoints_folder(root);
    make_directories(folder, "--output-dir");
    remove_temporaries(root);
    require_free_space(folder, bytes);
    return folder + "/" + kTemporaryPrefix + step_name(step);
}

/// Gives `target` the content of the folder `fresh`. Where `target` exists the two change places, in one step on file
/// systems that can; elsewhere the old one is first moved aside, to a name that counts as temporary.
void put_in_place(const std::string& fresh, const std::string& target) {
    if (path_exists(target)) {
        if (renameat2(AT_FDCWD, fresh.c_str(), AT_FDCWD, target.c_str(), RENAME_EXCHANGE) == 0) return;
        const std::string aside = fresh + "-old";
        if (rename(target.c_str(), aside.c_str()) != 0) {
            fail("cannot replace the checkpoint '{}': {}", target, system_reason());
        }
        if (rename(fresh.c_str(), target.c_str()) == 0) {
            std::error_code ignored;
            fs::remove_all(aside, ignored);
            return;
        }
        const std::string why = system_reason();
        rename(aside.c_str(), target.c_str());
        fail("cannot replace the checkpoint '{}': {}", target, why);
    }
    if (rename(fresh.c_str(), target.c_str()) != 0) {
        fail("cannot rename the new checkpoint to '{}': {}", target, system_reason());
    }
}

/// A file that names a checkpoint (latest, best): first written aside, then put in place.
class PendingName {
  public:
    PendingName(const std::string& folder, const std::string& name, int64_t step)
        : folder_(folder), name_(name), temporary_(folder + "/" + kTemporaryPrefix + name) {
        write_text(temporary_.path() + "/" + name, step_name(step) + "\n");
    }
    void put_in_place() const {
        const std::string from = temporary_.path() + "/" + name_, to = folder_ + "/" + name_;
        if (rename(from.c_str(), to.c_str()) != 0) {
            fail("cannot replace '{}': {}; the checkpoint that it is to name is complete", to, system_reason());
        }
        sync_directory(folder_);
    }

  private:
    std::string folder_, name_;
    TemporaryFolder temporary_;
};

/// That the run has a checkpoint. The one at hand is complete whether this can be written or not; else the next tells
/// it.
void note_checkpoint(const std::string& root) {
    try {
        RunRecord record = read_run_record(root);
        if (record.id.empty() || std::exchange(record.has_saved, true)) return;
        write_run_record(root, record);
    } catch (const Error&) {
    }
}

/// Whether the checkpoint can be used, all of it read.
bool is_intact(const std::string& step_folder) {
    try {
        const std::string path = step_folder + "/" + kManifestName;
        for (const ManifestFile& file : parse_manifest(read_text(path), path).files) {
            const MappedFile data(step_folder + "/" + file.name);
            require_readable(data, 0, data.size());
            if (data.size() != file.bytes || checksum_of(data.bytes()) != file.checksum) return false;
        }
        return true;
    } catch (const Error&) {
        return false;
    }
}

/// What to do when the checkpoint in `step_folder` cannot be used: take the newest other one of its run that can.
std::string remedy_for(const std::string& step_folder, const std::string& option) {
    const fs::path folder = fs::absolute(step_folder);
    std::vector<int64_t> steps = list_steps(folder.parent_path().parent_path().string());
    std::erase(steps, step_from_name(folder.filename().string()).value_or(-1));
    for (auto step = steps.rbegin(); step != steps.rend(); ++step) {
        const std::string other = (fs::path(step_folder).parent_path() / step_name(*step)).string();
        if (is_intact(other)) return fmt::format("another one of its run is {}={}", option, shell_word(other));
    }
    return steps.empty() ? "its run has no other checkpoint, so start again"
                         : "its run's other checkpoints are damaged too, so start again";
}

/// The step folder that a link, or a file that names it, leads to.
std::string step_folder_behind(std::string path) {
    std::error_code none;
    const bool is_run = path_exists(path + "/config.toml") || path_exists(checkpoints_folder(path));
    if (fs::is_symlink(path, none) && !is_run) path = fs::canonical(path, none).string();
    const fs::path name = fs::path(path).filename(), folder = fs::path(path).parent_path();
    if (!fs::is_regular_file(path, none) || (name != kLatestName && name != kBestName)) return path;
    const auto step = named_step((folder / "..").string(), name.string());
    return step ? (folder / step_name(*step)).string() : path;
}

/// `path` has no complete checkpoint: not yet, not any more to come, or it is no run folder at all.
[[noreturn]] void refuse_without_checkpoint(const std::string& path, const std::string& option) {
    if (const std::string holder = lock_holder(path + "/lock"); !holder.empty()) {
        fail(
            "{}: '{}' has no complete checkpoint yet; {} trains into it at the moment, so wait for its first, or stop "
            "it by Ctrl-C, which saves one",
            option, path, holder);
    }
    if (path_exists(path + "/config.toml")) {
        fail(
            "{}: '{}' holds no complete checkpoint: the run ended before its first; begin again, with one every so "
            "many steps: --config={} --checkpoint-every=50",
            option, path, shell_word(path + "/config.toml"));
    }
    fail(
        "{}: '{}' holds no complete checkpoint, and no config.toml as a run folder has; give a run folder, such as "
        "runs/NAME",
        option, path);
}

/// The step folder that `path` stands for.
std::string find_step_folder(std::string path, const std::string& option) {
    while (path.size() > 1 && path.ends_with('/')) path.pop_back();
    if (!path_exists(path)) {
        fail("{}: '{}' {}; give a run folder or a checkpoint in it", option, path,
             fs::is_symlink(path) ? "is a link whose target is not there" : "does not exist");
    }
    path = step_folder_behind(path);
    if (path_exists(path + "/" + kManifestName)) return path;
    if (step_from_name(fs::path(path).filename().string())) {
        fail("{}: '{}' is not a complete checkpoint: {} is missing; {}", option, path, kManifestName,
             remedy_for(path, option));
    }
    const auto step = newest_step(path);
    if (!step && fs::is_symlink(checkpoints_folder(path)) && !path_exists(checkpoints_folder(path))) {
        fail("{}: '{}' is a link to '{}', which is not there; mount or restore it", option, checkpoints_folder(path),
             fs::read_symlink(checkpoints_folder(path)).string());
    }
    if (!step) refuse_without_checkpoint(path, option);
    const std::string found = checkpoints_folder(path) + "/" + step_name(*step);
    if (const auto skipped = newest_incomplete_step(path); skipped > step) {
        spdlog::warn("{}: '{}/{}' is passed over, since {} is missing; the newest complete checkpoint is '{}'", option,
                     checkpoints_folder(path), step_name(*skipped), kManifestName, found);
    }
    return found;
}

/// Opens one file of a checkpoint and compares its size and checksum with the manifest.
SafetensorsFile open_verified(const std::string& path, const ManifestFile& expected, bool compares_checksum) {
    if (!path_exists(path)) throw DamagedError(fmt::format("'{}' is missing", path));
    MappedFile file(path);
    if (file.size() != expected.bytes) {
        throw DamagedError(fmt::format("'{}' is {}: {} bytes, the manifest says {}", path,
                                       file.size() < expected.bytes ? "truncated" : "too long", file.size(),
                                       expected.bytes));
    }
    if (compares_checksum && checksum_of(file.bytes()) != expected.checksum) {
        throw DamagedError(fmt::format("'{}' is damaged: its checksum is wrong", path));
    }
    return SafetensorsFile(std::move(file));
}

}  // namespace

ManifestFile write_checkpoint_file(const std::string& folder, const CheckpointFile& file) {
    CHECK(file.name.find('/') == std::string::npos, file.name);
    std::vector<SafetensorsEntry> entries;
    for (const CheckpointTensor& tensor : file.tensors) entries.push_back(tensor.entry);
    SafetensorsWriter writer(folder + "/" + file.name, std::move(entries));
    for (const CheckpointTensor& tensor : file.tensors) {
        writer.append(tensor.data == nullptr && tensor.load ? tensor.load() : tensor.data, tensor.entry.bytes());
    }
    writer.close();
    return {file.name, writer.bytes_written(), writer.checksum()};
}

CheckpointWriter::CheckpointWriter(const std::string& root, int64_t step, int64_t bytes)
    : root_(root), step_(step), temporary_(prepare_folder(root, step, bytes)) {
    CHECK(step >= 0, step);
}

std::string CheckpointWriter::commit(const std::string& state, std::vector<ManifestFile> files) {
    const std::string folder = checkpoints_folder(root_);
    write_text(temporary_.path() + "/" + kManifestName, manifest_text({step_, std::move(files), state}));
    write_run_of_checkpoint(root_, temporary_.path());
    sync_directory(temporary_.path());

    // All that needs space on the disk is written before the first rename, so that a full disk changes nothing.
    const PendingName latest(folder, kLatestName, step_);
    const std::string target = folder + "/" + step_name(step_);
    put_in_place(temporary_.path(), target);
    sync_directory(folder);
    latest.put_in_place();
    note_checkpoint(root_);
    return target;
}

void name_checkpoint(const std::string& root, const std::string& name, int64_t step) {
    PendingName(checkpoints_folder(root), name, step).put_in_place();
}

void rehearse_checkpoint(const std::string& root, int rank, const std::string& option) {
    const std::string folder = checkpoints_folder(root);
    make_directories(folder, option);
    const std::string first = fmt::format("{}/{}rehearsal-{}", folder, kTemporaryPrefix, rank), second = first + "-old";
    std::error_code ignored;
    for (const std::string& left : {first, second}) fs::remove_all(left, ignored);  // By one that was killed.
    try {
        for (const char* name : {kLatestName, kBestName}) {
            if (is_directory(folder + "/" + name)) fail("'{}/{}' is a folder, where a file is to be", folder, name);
        }
        const TemporaryFolder before(first);
        write_text(first + "/model-frozen-00000-of-00000.safetensors", "a rehearsal");
        sync_directory(first);
        const TemporaryFolder after(second);
        rename_into_place(first, second);
    } catch (const Error& error) {
        fail("{}: no checkpoint can be written there: {}", option, error.what());
    }
}

std::string write_checkpoint(const std::string& root, int64_t step, const std::string& state,
                             std::span<const CheckpointFile> files) {
    int64_t bytes = 0;
    for (const CheckpointFile& file : files) {
        for (const CheckpointTensor& tensor : file.tensors) bytes += tensor.entry.bytes();
    }
    CheckpointWriter writer(root, step, bytes);
    std::vector<ManifestFile> written;
    for (const CheckpointFile& file : files) written.push_back(write_checkpoint_file(writer.folder(), file));
    return writer.commit(state, std::move(written));
}

const SafetensorsFile& Checkpoint::file(const std::string& name) const {
    const auto found = files.find(name);
    if (found == files.end()) fail("the checkpoint '{}' has no file '{}'", path, name);
    return found->second;
}

Checkpoint open_checkpoint(const std::string& path, const std::string& option, int rank, int ranks) {
    const std::string folder = find_step_folder(path, option);
    const std::string manifest_path = folder + "/" + kManifestName;
    try {
        const Manifest manifest = parse_manifest(read_text(manifest_path), manifest_path);
        Checkpoint checkpoint = {folder, manifest.step, manifest.state, {}};
        int number = 0;
        for (const ManifestFile& file : manifest.files) {
            const bool is_mine = number++ % ranks == rank;
            checkpoint.files.emplace(file.name, open_verified(folder + "/" + file.name, file, is_mine));
        }
        return checkpoint;
    } catch (const DamagedError& error) {
        fail("{}: {}; {}", option, error.what(), remedy_for(folder, option));
    } catch (const Error& error) {
        fail("{}: {}", option, error.what());
    }
}

void prune_checkpoints(const std::string& root, int64_t keep_last) {
    std::vector<int64_t> steps = list_steps(root);
    const auto count = static_cast<int64_t>(steps.size());
    if (keep_last <= 0 || count <= keep_last) return;
    steps.resize(static_cast<size_t>(count - keep_last));
    std::erase(steps, 0);  // An imported model, which is not the run's own work.
    for (const char* name : {kLatestName, kBestName}) std::erase(steps, read_named_step(root, name).value_or(-1));
    const std::string folder = checkpoints_folder(root);
    std::string failure;
    for (const int64_t step : steps) {
        // Renamed first, so that a half-removed checkpoint is never taken for a complete one.
        const std::string path = folder + "/" + step_name(step);
        const std::string doomed = folder + "/" + kTemporaryPrefix + "pruned-" + step_name(step);
        std::error_code ignored;
        fs::remove_all(doomed, ignored);  // Of a process that was killed.
        if (rename(path.c_str(), doomed.c_str()) != 0 && failure.empty()) {
            failure = fmt::format("cannot remove the checkpoint '{}': {}", path, system_reason());
        }
        fs::remove_all(doomed, ignored);
    }
    if (!failure.empty()) fail("{}", failure);
}

}  // namespace llmc
