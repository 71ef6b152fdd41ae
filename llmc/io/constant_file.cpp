#include "llmc/io/constant_file.h"

#include "llmc/base/error.h"
#include "llmc/base/file.h"
#include "llmc/base/mapped_reading.h"
#include "llmc/io/checkpoint_folder.h"

#include <algorithm>
#include <cstring>
#include <span>
#include <sys/stat.h>
#include <unistd.h>
#include <vector>

namespace llmc {
namespace {

/// What the manifest of a step folder says of a file; nothing if it has none, or is damaged.
std::optional<ManifestFile> entry_in(const std::string& step_folder, const std::string& name) {
    try {
        const std::string path = step_folder + "/" + kManifestName;
        for (const ManifestFile& file : parse_manifest(read_text(path), path).files) {
            if (file.name == name) return file;
        }
    } catch (const Error&) {  // Whoever opens that checkpoint is told.
    }
    return std::nullopt;
}

bool is_same(const SafetensorsView& view, const CheckpointTensor& tensor) {
    const SafetensorsEntry& entry = tensor.entry;
    if (view.name != entry.name || view.dtype != entry.dtype || view.shape != entry.shape) return false;
    const void* const data = tensor.data == nullptr && tensor.load ? tensor.load() : tensor.data;
    return view.bytes.empty() || std::memcmp(view.bytes.data(), data, view.bytes.size()) == 0;
}

/// Whether the file on the disk, which may be damaged, holds these tensors.
bool holds(const std::string& path, const CheckpointFile& file) {
    try {
        MappedFile data(path);
        require_readable(data, 0, data.size());
        const SafetensorsFile stored(std::move(data));
        return std::equal(stored.tensors().begin(), stored.tensors().end(), file.tensors.begin(), file.tensors.end(),
                          is_same);
    } catch (const Error&) {
        return false;
    }
}

}  // namespace

std::optional<ConstantFile::Stamp> ConstantFile::stamp_of(const std::string& path) {
    struct stat status = {};
    if (stat(path.c_str(), &status) != 0) return std::nullopt;
    return Stamp{status.st_mtim.tv_sec * 1'000'000'000 + status.st_mtim.tv_nsec, status.st_size};
}

std::optional<std::string> ConstantFile::find(const std::string& root, const CheckpointFile& file) {
    const std::vector<int64_t> steps = list_steps(root);
    for (auto step = steps.rbegin(); step != steps.rend(); ++step) {
        const std::string folder = checkpoints_folder(root) + "/" + step_name(*step), path = folder + "/" + file.name;
        const std::optional<ManifestFile> entry = entry_in(folder, file.name);
        const std::optional<Stamp> stamp = stamp_of(path);
        if (!entry || !stamp || stamp->bytes != entry->bytes) continue;
        const bool is_known = known_ && known_->entry == *entry && known_->stamp == *stamp;
        if (!is_known && !holds(path, file)) continue;
        known_ = {*entry, *stamp};
        return path;
    }
    return std::nullopt;
}

int64_t ConstantFile::bytes_to_write(const std::string& root, const CheckpointFile& file) {
    if (find(root, file)) return 0;
    int64_t bytes = 0;
    for (const CheckpointTensor& tensor : file.tensors) bytes += tensor.entry.bytes();
    return bytes;
}

ManifestFile ConstantFile::put(const std::string& root, const std::string& folder, const CheckpointFile& file) {
    const std::string to = folder + "/" + file.name;
    unlink(to.c_str());  // Left by a process that was killed, it may be a link to what other checkpoints have.
    if (const std::optional<std::string> from = find(root, file)) {
        if (link(from->c_str(), to.c_str()) == 0) return known_->entry;
    }
    const ManifestFile entry = write_checkpoint_file(folder, file);
    if (const std::optional<Stamp> stamp = stamp_of(to)) known_ = {entry, *stamp};
    return entry;
}

}  // namespace llmc
