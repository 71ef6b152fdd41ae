#include "llmc/base/file.h"

#include "llmc/base/error.h"
#include "llmc/base/mapped_reading.h"
#include "llmc/base/process_limits.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <glob.h>
#include <random>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include <utility>

namespace llmc {
namespace {

std::string reason() { return std::strerror(errno); }

/// What Git LFS leaves in a file's place until it is fetched, at most 1 KB:
/// https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md
bool is_lfs_pointer(std::string_view text) {
    return text.size() <= 1024 && (text.starts_with("version https://git-lfs.github.com/spec/") ||
                                   text.starts_with("version https://hawser.github.com/spec/"));
}

/// True once all of it is written; else errno says why not.
bool write_all(int descriptor, const char* data, int64_t bytes) {
    while (bytes > 0) {
        const ssize_t written = ::write(descriptor, data, static_cast<size_t>(bytes));
        if (written < 0 && errno == EINTR) continue;
        if (written <= 0) return false;
        data += written;
        bytes -= written;
    }
    return true;
}

/// Where a link leads to, through all links; the path itself if it is none.
std::string target_of(const std::string& path) {
    std::error_code error;
    if (!std::filesystem::is_symlink(path, error)) return path;
    const std::string target = std::filesystem::weakly_canonical(path, error).string();
    return error ? path : target;
}

std::string hex(uint64_t hash) { return fmt::format("{:016x}", hash); }

/// By way of `temporary`, a new name in the same folder.
void replace_text(const std::string& path, const std::string& temporary, std::string_view text) {
    FileWriter writer(temporary);
    writer.write(text);
    writer.close();
    try {
        rename_into_place(temporary, path);
    } catch (const Error&) {
        unlink(temporary.c_str());
        throw;
    }
}

}  // namespace

// Without O_NONBLOCK a named pipe would not open until somebody writes to it.
MappedFile::MappedFile(const std::string& path)
    : MappedFile(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK), path) {
    if (!is_lfs_pointer(text())) return;
    fail("'{}' is a Git LFS pointer, not the file itself; fetch that: git lfs pull, in the folder's repository", path);
}

MappedFile::MappedFile(int descriptor, const std::string& path) : path_(path) {
    if (descriptor < 0) fail("cannot open '{}': {}", path, reason());
    struct stat info = {};
    if (fstat(descriptor, &info) != 0 || !S_ISREG(info.st_mode)) {
        close(descriptor);
        fail("cannot read '{}': not a regular file", path);
    }
    size_ = info.st_size;
    inode_ = info.st_ino;
    if (size_ > 0) {
        void* memory = mmap(nullptr, static_cast<size_t>(size_), PROT_READ, MAP_PRIVATE, descriptor, 0);
        if (memory == MAP_FAILED) {
            const int error = errno;
            close(descriptor);
            fail("cannot map '{}' into memory: {}{}", path, std::strerror(error),
                 error == ENOMEM ? memory_limit_in_words() : "");
        }
        data_ = static_cast<const std::byte*>(memory);
    }
    close(descriptor);
}

MappedFile::~MappedFile() {
    if (data_ != nullptr) munmap(const_cast<std::byte*>(data_), static_cast<size_t>(size_));
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      inode_(other.inode_) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
    std::swap(path_, other.path_);
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(inode_, other.inode_);
    return *this;
}

UnnamedFile::UnnamedFile(std::string what) : what_(std::move(what)) {
    std::error_code none;
    folder_ = std::filesystem::temp_directory_path(none).string();
    if (none) folder_ = "/tmp";
    std::string name = folder_ + "/train_gpt_XXXXXX";
    descriptor_ = mkostemp(name.data(), O_CLOEXEC);
    if (descriptor_ < 0) fail("cannot write {} in '{}': {}; set TMPDIR to another folder", what_, folder_, reason());
    unlink(name.c_str());
}

UnnamedFile::~UnnamedFile() {
    if (descriptor_ >= 0) close(descriptor_);
}

void UnnamedFile::write(std::string_view text) {
    if (write_all(descriptor_, text.data(), static_cast<int64_t>(text.size()))) return;
    fail("cannot write {} in '{}': {}; set TMPDIR to a folder with more room", what_, folder_, reason());
}

MappedFile UnnamedFile::map(const std::string& path) { return {std::exchange(descriptor_, -1), path}; }

struct FileWriter::Hash {
    XXH3_state_t state;
};

FileWriter::FileWriter(const std::string& path) : path_(path), hash_(std::make_unique<Hash>()) {
    XXH3_64bits_reset(&hash_->state);
    descriptor_ = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (descriptor_ < 0) fail("cannot create '{}': {}", path, reason());
}

FileWriter::~FileWriter() {
    if (descriptor_ < 0) return;
    ::close(descriptor_);
    unlink(path_.c_str());
}

void FileWriter::write(const void* data, int64_t bytes) {
    XXH3_64bits_update(&hash_->state, data, static_cast<size_t>(bytes));
    if (write_all(descriptor_, static_cast<const char*>(data), bytes)) return;
    fail("cannot write '{}': {}; the unfinished file was removed", path_, reason());
}

void FileWriter::close() {
    if (fsync(descriptor_) != 0) fail("cannot write '{}' to the disk: {}", path_, reason());
    if (::close(std::exchange(descriptor_, -1)) == 0) return;
    const std::string why = reason();
    unlink(path_.c_str());
    fail("cannot write '{}': {}; the unfinished file was removed", path_, why);
}

std::string FileWriter::checksum() const { return hex(XXH3_64bits_digest(&hash_->state)); }

std::string checksum_of(std::span<const std::byte> bytes) { return hex(XXH3_64bits(bytes.data(), bytes.size())); }

std::string read_text(const std::string& path) { return text_of(MappedFile(path)); }

void write_text(const std::string& path, std::string_view text) {
    FileWriter writer(path);
    writer.write(text);
    writer.close();
}

void write_text_atomically(const std::string& given, std::string_view text) {
    const std::string path = target_of(given);
    replace_text(path, path + ".tmp", text);
}

void write_shared_text(const std::string& given, std::string_view text) {
    const std::string path = target_of(given);
    std::random_device random;
    replace_text(path, fmt::format("{}.{:08x}{:08x}.tmp", path, random(), random()), text);
}

void rename_into_place(const std::string& from, const std::string& to) {
    if (rename(from.c_str(), to.c_str()) != 0) fail("cannot replace '{}': {}", to, reason());
    sync_directory(std::filesystem::path(to).parent_path().string());
}

void sync_directory(const std::string& directory) {
    const std::string path = directory.empty() ? "." : directory;
    const int descriptor = open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (descriptor < 0) fail("cannot open the folder '{}': {}", path, reason());
    // Some file systems do not support it on folders; the rename itself is still atomic.
    const bool is_done = fsync(descriptor) == 0 || errno == EINVAL || errno == ENOTSUP || errno == ENOSYS;
    const std::string why = is_done ? "" : reason();
    close(descriptor);
    if (!is_done) fail("cannot write the folder '{}' to the disk: {}", path, why);
}

void make_directories(const std::string& path, const std::string& what_for) {
    std::error_code error;
    if (std::filesystem::is_symlink(path, error) && !path_exists(path)) {
        fail("{}: '{}' is a link to '{}', which is not there; mount or make that, or choose another folder", what_for,
             path, std::filesystem::read_symlink(path).string());
    }
    std::vector<std::filesystem::path> above_new;
    for (std::filesystem::path part = path; !part.empty() && !path_exists(part.string()); part = part.parent_path()) {
        above_new.push_back(part.parent_path());
    }
    std::filesystem::create_directories(path, error);
    for (std::filesystem::path part = path; error && !part.empty(); part = part.parent_path()) {
        std::error_code of_part;
        const auto kind = std::filesystem::status(part, of_part).type();
        if (kind == std::filesystem::file_type::directory || part == part.parent_path()) break;
        if (of_part || kind == std::filesystem::file_type::not_found) continue;
        fail("{}: cannot make the folder '{}': '{}' is a file; choose another folder, or move the file away", what_for,
             path, part.string());
    }
    if (error) fail("{}: cannot create the folder '{}': {}", what_for, path, error.message());
    if (access(path.c_str(), W_OK | X_OK) != 0) fail("{}: cannot write in '{}': {}", what_for, path, reason());
    for (const std::filesystem::path& folder : above_new) {
        if (access(folder.empty() ? "." : folder.c_str(), R_OK) == 0) sync_directory(folder.string());
    }
}

std::string cache_folder() {
    const char* cache = std::getenv("XDG_CACHE_HOME");
    if (cache != nullptr && *cache == '/') return std::string(cache) + "/train_gpt";  // A relative one is no folder.
    const char* home = std::getenv("HOME");
    return home != nullptr && *home != '\0' ? std::string(home) + "/.cache/train_gpt" : "";
}

std::optional<int64_t> free_bytes(const std::string& folder) {
    struct statvfs info = {};
    if (statvfs(folder.c_str(), &info) != 0) return std::nullopt;
    return static_cast<int64_t>(info.f_bavail * info.f_frsize);
}

bool is_same_file(int descriptor, const std::string& path) {
    struct stat opened = {}, named = {};
    return fstat(descriptor, &opened) == 0 && stat(path.c_str(), &named) == 0 && opened.st_ino == named.st_ino &&
           opened.st_dev == named.st_dev;
}

std::string path_of(int descriptor) {
    std::error_code error;
    return std::filesystem::read_symlink(fmt::format("/proc/self/fd/{}", descriptor), error).string();
}

std::string obstacle_to_writing(const std::string& given) {
    const std::string path = target_of(given);
    struct stat info = {};
    if (stat(path.c_str(), &info) == 0) {
        if (!S_ISREG(info.st_mode))
            return fmt::format("'{}' is {}", path, S_ISDIR(info.st_mode) ? "a folder" : "no file");
        return access(path.c_str(), W_OK) == 0 ? "" : fmt::format("cannot write '{}': {}", path, reason());
    }
    const std::string folder = std::filesystem::path(path).parent_path().string();
    if (access(folder.empty() ? "." : folder.c_str(), W_OK | X_OK) == 0) return "";
    return fmt::format("cannot write in '{}': {}", folder, reason());
}

bool path_exists(const std::string& path) {
    std::error_code error;
    return std::filesystem::exists(path, error);
}

bool is_directory(const std::string& path) {
    std::error_code error;
    return std::filesystem::is_directory(path, error);
}

std::vector<std::string> glob_paths(const std::string& pattern) {
    if (pattern.find_first_of("*?[{") == std::string::npos || path_exists(pattern)) return {pattern};
    glob_t matches = {};
    std::vector<std::string> paths;
    if (glob(pattern.c_str(), GLOB_BRACE, nullptr, &matches) == 0) {
        paths.assign(matches.gl_pathv, matches.gl_pathv + matches.gl_pathc);
    }
    globfree(&matches);
    return paths;
}

}  // namespace llmc
