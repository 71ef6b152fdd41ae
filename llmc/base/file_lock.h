// A lock that one process holds: flock() on a small file, which says who it is. The system frees it however the holder
// ends, so there is nothing to clean up after a crash.
#pragma once

#include <string>

namespace llmc {

class FileLock {
  public:
    FileLock() = default;
    ~FileLock() { release(); }
    FileLock(const FileLock&) = delete;
    FileLock& operator=(const FileLock&) = delete;

    /// Takes the lock of this path: "", or who has it already ("process 123 on host"). A file system without locks
    /// locks nothing. Once.
    std::string take(const std::string& path);
    /// Frees the lock, if it has one, and removes its file.
    void release();

  private:
    std::string path_;
    int descriptor_ = -1;
};

/// Whether some process of this host holds the lock of this path, and which one ("process 123 on host"; "" if none
/// does). Asks the system, and does not try the lock: nobody is
/// kept from taking it meanwhile.
bool is_locked(const std::string& path);
std::string lock_holder(const std::string& path);

}  // namespace llmc
