// Files: memory-mapped reading, writing that notices a full disk, atomic replacement, checksums, globbing.
// Every failure is an Error naming the path and the system's reason.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace llmc {

/// A whole file, read-only, mapped into memory. Larger than memory is fine. What happens where it is cut meanwhile, or
/// cannot be read: mapped_reading.h.
class MappedFile {
  public:
    MappedFile() = default;
    /// A pointer of Git LFS in the file's place, as a clone without LFS leaves it, is an Error that says so.
    explicit MappedFile(const std::string& path);
    /// An open file, which is closed; `path` is for messages.
    MappedFile(int descriptor, const std::string& path);
    ~MappedFile();
    MappedFile(MappedFile&& other) noexcept;
    MappedFile& operator=(MappedFile&& other) noexcept;

    const std::string& path() const { return path_; }
    int64_t size() const { return size_; }
    uint64_t inode() const { return inode_; }  ///< The file itself, whatever has its name by now.
    const std::byte* data() const { return data_; }
    std::string_view text() const { return {reinterpret_cast<const char*>(data_), static_cast<size_t>(size_)}; }
    std::span<const std::byte> bytes() const { return {data_, static_cast<size_t>(size_)}; }

  private:
    std::string path_;
    const std::byte* data_ = nullptr;
    int64_t size_ = 0;
    uint64_t inode_ = 0;
};

/// A file without a name, for content that may be larger than memory: in $TMPDIR, gone with its last user.
class UnnamedFile {
  public:
    /// `what` it is for, in messages.
    explicit UnnamedFile(std::string what);
    ~UnnamedFile();
    UnnamedFile(const UnnamedFile&) = delete;
    UnnamedFile& operator=(const UnnamedFile&) = delete;
    void write(std::string_view text);
    /// What was written, under a name for messages. To be called once, at the end.
    MappedFile map(const std::string& path);

  private:
    std::string what_;
    std::string folder_;
    int descriptor_ = -1;
};

/// Writes a new file, in as large pieces as the caller gives. Any short write (a full disk) is an Error and the file is
/// removed, also when the writer is destroyed without close(), or close() fails. That syncs the data to the disk.
class FileWriter {
  public:
    explicit FileWriter(const std::string& path);
    ~FileWriter();
    FileWriter(const FileWriter&) = delete;
    FileWriter& operator=(const FileWriter&) = delete;

    void write(const void* data, int64_t bytes);
    void write(std::string_view text) { write(text.data(), static_cast<int64_t>(text.size())); }
    void close();
    /// 64-bit xxHash (XXH3) of everything written so far, as 16 hexadecimal digits.
    std::string checksum() const;

  private:
    struct Hash;
    std::string path_;
    std::unique_ptr<Hash> hash_;
    int descriptor_ = -1;
};

/// XXH3 of a byte range, as 16 hexadecimal digits.
std::string checksum_of(std::span<const std::byte> bytes);

/// The file's whole content.
std::string read_text(const std::string& path);

/// Writes a new file, synced.
void write_text(const std::string& path, std::string_view text);

/// Writes next to `path`, syncs, and renames over it: readers see the old content or the new, never a part. Where
/// `path` is a link, what it leads to is replaced.
void write_text_atomically(const std::string& path, std::string_view text);

/// The same for a file that several processes may write at a time, as those of a cache: the last one wins. What one
/// that is killed leaves stays.
void write_shared_text(const std::string& path, std::string_view text);

/// Renames a finished file or folder to its final name and syncs the folder around it. Where the renaming is what
/// fails, `from` stays.
void rename_into_place(const std::string& from, const std::string& to);

/// Makes a rename or a new entry in `directory` durable, as far as its file system can.
void sync_directory(const std::string& directory);

/// Creates the folder and its parents, durably. Errors name `what_for`, e.g. "--output-dir".
void make_directories(const std::string& path, const std::string& what_for);

/// Whether both lead to the same file or folder, of which `descriptor` is open.
bool is_same_file(int descriptor, const std::string& path);

/// The path that an open file or folder has now, as the system knows it; " (deleted)" is at its end if it has none.
std::string path_of(int descriptor);

/// Where what may be lost is remembered from one run to the next: $XDG_CACHE_HOME/train_gpt, else
/// ~/.cache/train_gpt. "" where neither variable is set. It need not exist, nor be writable.
std::string cache_folder();

/// What a user may still write where the folder is; nothing if the system does not say.
std::optional<int64_t> free_bytes(const std::string& folder);

/// "" if a file of this name can be written or replaced later on, else what stands in its place.
std::string obstacle_to_writing(const std::string& path);

bool path_exists(const std::string& path);
bool is_directory(const std::string& path);

/// Paths that match a shell pattern (*, ?, []), sorted. A name without such characters is returned as it is.
std::vector<std::string> glob_paths(const std::string& pattern);

}  // namespace llmc
