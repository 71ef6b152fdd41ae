#include "llmc/base/file_lock.h"

#include "llmc/base/check.h"
#include "llmc/base/file.h"

#include <spdlog/fmt/fmt.h>

#include <cerrno>
#include <fcntl.h>
#include <fstream>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utility>

namespace llmc {
namespace {

std::string this_process() {
    char host[256] = {};
    if (gethostname(host, sizeof host - 1) != 0) host[0] = '\0';
    return fmt::format("process {} on {}", getpid(), host);
}

std::string read_holder(int descriptor) {
    char text[512];
    const ssize_t bytes = pread(descriptor, text, sizeof text, 0);
    return bytes > 0 ? std::string(text, static_cast<size_t>(bytes)) : "another process";
}

/// So that the next one can be told. A full disk is no reason not to have the lock.
void write_holder(int descriptor) {
    const std::string text = this_process();
    const bool written = ftruncate(descriptor, 0) == 0 &&
                         pwrite(descriptor, text.data(), text.size(), 0) == static_cast<ssize_t>(text.size());
    if (!written) (void)!ftruncate(descriptor, 0);
}

}  // namespace

std::string FileLock::take(const std::string& path) {
    CHECK(descriptor_ < 0);
    for (;;) {
        const int descriptor = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
        if (descriptor < 0) return "";
        if (flock(descriptor, LOCK_EX | LOCK_NB) != 0) {
            const bool is_held = errno == EWOULDBLOCK;
            const std::string holder = is_held ? read_holder(descriptor) : "";
            close(descriptor);
            if (!is_held) unlink(path.c_str());
            return holder;
        }
        if (is_same_file(descriptor, path)) {  // A holder that ends removes it, and the next one makes another.
            write_holder(descriptor);
            descriptor_ = descriptor;
            path_ = path;
            return "";
        }
        close(descriptor);
    }
}

void FileLock::release() {
    if (descriptor_ < 0) return;
    // The folder may have been moved meanwhile, and another one be in its place.
    for (const std::string& path : {path_, path_of(descriptor_)}) {
        if (is_same_file(descriptor_, path)) unlink(path.c_str());
    }
    close(std::exchange(descriptor_, -1));
}

bool is_locked(const std::string& path) {
    struct stat file = {};
    if (stat(path.c_str(), &file) != 0) return false;
    // "7: FLOCK  ADVISORY  WRITE 1234 fd:01:2345 0 EOF"; some file systems have another device there than stat() says.
    const std::string inode = fmt::format(":{} ", file.st_ino);
    std::ifstream locks("/proc/locks");
    for (std::string line; std::getline(locks, line);) {
        if (line.find(" FLOCK ") != std::string::npos && line.find(inode) != std::string::npos) return true;
    }
    return false;
}

std::string lock_holder(const std::string& path) {
    if (!is_locked(path)) return "";
    const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (descriptor < 0) return "";  // It has just been freed.
    const std::string holder = read_holder(descriptor);
    close(descriptor);
    return holder;
}

}  // namespace llmc
