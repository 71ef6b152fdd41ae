#include "llmc/io/checkpoint.h"

#include "llmc/base/check.h"
#include "llmc/base/error.h"
#include "llmc/base/file.h"
#include "llmc/base/units.h"
#include "llmc/io/checkpoint_folder.h"
#include "llmc/io/manifest.h"

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

void write_text(const std::string& path, const std::string& text) {
    FileWriter writer(path);
    writer.write(text);
    writer.close();
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

/// What to do when the checkpoint in `step_folder` cannot be used: take the newest other one of its run.
std::string remedy_for(const std::string& step_folder, const std::string& option) {
    const fs::path folder = fs::absolute(step_folder);
    std::vector<int64_t> steps = list_steps(folder.parent_path().parent_path().string());
    std::erase(steps, step_from_name(folder.filename().string()).value_or(-1));
    if (steps.empty()) return "its run has no other checkpoint, so start again";
    const fs::path other = fs::path(step_folder).parent_path() / step_name(steps.back());
    return fmt::format("another one of its run is {}={}", option, other.string());
}

/// The step folder that `path` stands for.
std::string find_step_folder(std::string path, const std::string& option) {
    while (path.size() > 1 && path.ends_with('/')) path.pop_back();
    if (!path_exists(path)) fail("{}: '{}' does not exist; give a run folder or a checkpoint in it", option, path);
    if (path_exists(path + "/" + kManifestName)) return path;
    if (step_from_name(fs::path(path).filename().string())) {
        fail("{}: '{}' is not a complete checkpoint: {} is missing; {}", option, path, kManifestName,
             remedy_for(path, option));
    }
    const auto step = newest_step(path);
    if (!step) {
        fail("{}: '{}' holds no complete checkpoint; give a run folder, in which there is checkpoints/{}", option, path,
             step_name(100));
    }
    return checkpoints_folder(path) + "/" + step_name(*step);
}

/// Opens one file of a checkpoint and compares its size and checksum with the manifest.
SafetensorsFile open_verified(const std::string& path, const ManifestFile& expected, const std::string& remedy,
                              bool compares_checksum) {
    if (!path_exists(path)) fail("'{}' is missing; {}", path, remedy);
    MappedFile file(path);
    if (file.size() != expected.bytes) {
        fail("'{}' is {}: {} bytes, the manifest says {}; {}", path,
             file.size() < expected.bytes ? "truncated" : "too long", file.size(), expected.bytes, remedy);
    }
    if (compares_checksum && checksum_of(file.bytes()) != expected.checksum) {
        fail("'{}' is damaged: its checksum is wrong; {}", path, remedy);
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

std::string CheckpointWriter::commit(const nlohmann::json& state, std::vector<ManifestFile> files) {
    CHECK(state.is_object());
    const std::string folder = checkpoints_folder(root_);
    write_text(temporary_.path() + "/" + kManifestName, manifest_text({step_, std::move(files), state}));
    sync_directory(temporary_.path());

    // All that needs space on the disk is written before the first rename, so that a full disk changes nothing.
    const PendingName latest(folder, kLatestName, step_);
    const std::string target = folder + "/" + step_name(step_);
    put_in_place(temporary_.path(), target);
    sync_directory(folder);
    latest.put_in_place();
    return target;
}

void name_best(const std::string& root, int64_t step) {
    PendingName(checkpoints_folder(root), kBestName, step).put_in_place();
}

std::string write_checkpoint(const std::string& root, int64_t step, const nlohmann::json& state,
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
    const std::string remedy = remedy_for(folder, option);
    try {
        const Manifest manifest = parse_manifest(read_text(manifest_path), manifest_path, remedy);
        Checkpoint checkpoint = {folder, manifest.step, manifest.state, {}};
        int number = 0;
        for (const ManifestFile& file : manifest.files) {
            const bool is_mine = number++ % ranks == rank;
            checkpoint.files.emplace(file.name, open_verified(folder + "/" + file.name, file, remedy, is_mine));
        }
        return checkpoint;
    } catch (const Error& error) {
        fail("{}: {}", option, error.what());
    }
}

void prune_checkpoints(const std::string& root, int64_t keep_last) {
    if (keep_last <= 0) return;
    std::vector<int64_t> steps = list_steps(root);
    const auto count = static_cast<int64_t>(steps.size());
    steps.resize(static_cast<size_t>(std::max<int64_t>(0, count - keep_last)));
    for (const char* name : {kLatestName, kBestName}) std::erase(steps, named_step(root, name).value_or(-1));
    const std::string folder = checkpoints_folder(root);
    for (const int64_t step : steps) {
        // Renamed first, so that a half-removed checkpoint is never taken for a complete one.
        const TemporaryFolder doomed(folder + "/" + kTemporaryPrefix + "pruned-" + step_name(step));
        rename((folder + "/" + step_name(step)).c_str(), (doomed.path() + "/" + step_name(step)).c_str());
    }
}

}  // namespace llmc
