#include "llmc/base/mapped_reading.h"

#include "llmc/base/error.h"
#include "llmc/base/last_words.h"

#include <array>
#include <csetjmp>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

namespace llmc {
namespace {

constexpr int64_t kPage = 4096;

/// Where this thread goes on if the page that it tries cannot be read.
thread_local sigjmp_buf* way_out = nullptr;

/// A line of /proc/self/maps: "7f00-7f10 r--p 00000000 08:01 1234   /path"; its path if it holds the address, else "".
const char* path_if_inside(char* line, uintptr_t address) {
    char* end = nullptr;
    const uintptr_t first = std::strtoull(line, &end, 16);
    if (*end != '-') return "";
    const uintptr_t last = std::strtoull(end + 1, &end, 16);
    if (address < first || address >= last) return "";
    const char* path = std::strchr(end, '/');
    return path == nullptr ? "" : path;
}

/// The file that is mapped at an address, "" if none is. Without allocations: it is asked for in a signal handler.
void find_file(uintptr_t address, std::array<char, 4096>* found) {
    const int descriptor = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    std::array<char, 4096> line = {};
    size_t length = 0;
    std::array<char, 1024> bytes;
    for (ssize_t count = 0; (count = read(descriptor, bytes.data(), bytes.size())) > 0;) {
        for (ssize_t i = 0; i < count; ++i) {
            if (bytes[static_cast<size_t>(i)] != '\n') {
                if (length + 1 < line.size()) line[length++] = bytes[static_cast<size_t>(i)];
                continue;
            }
            line[length] = '\0';
            length = 0;
            const char* path = path_if_inside(line.data(), address);
            if (*path == '\0') continue;
            std::strncpy(found->data(), path, found->size() - 1);
            close(descriptor);
            return;
        }
    }
    close(descriptor);
}

void on_bus_error(int, siginfo_t* info, void*) {
    if (way_out != nullptr) siglongjmp(*way_out, 1);
    std::array<char, 4096> path = {};
    find_file(reinterpret_cast<uintptr_t>(info->si_addr), &path);
    if (path[0] == '\0') {  // No file's: a fault of the program, or of the machine's memory.
        std::signal(SIGBUS, SIG_DFL);
        return;
    }
    write_last_line({"cannot read '", path.data(), "': it was cut while it was read, or its disk fails"});
    _exit(kExitFailed);
}

[[gnu::noinline]] void touch(const volatile std::byte* begin, const volatile std::byte* end) {
    for (const volatile std::byte* at = begin; at < end; at += kPage) static_cast<void>(*at);
    static_cast<void>(*(end - 1));
}

/// Nothing here has a destructor, which a jump would pass over.
bool can_read(const volatile std::byte* begin, const volatile std::byte* end) {
    sigjmp_buf here;
    if (sigsetjmp(here, 1) != 0) {
        way_out = nullptr;
        return false;
    }
    way_out = &here;
    touch(begin, end);
    way_out = nullptr;
    return true;
}

/// Still the file that was mapped, by its name, and shorter: then what is read beyond its end are zeros.
bool was_cut(const MappedFile& file) {
    struct stat info = {};
    if (stat(file.path().c_str(), &info) != 0 || !S_ISREG(info.st_mode)) return false;
    return info.st_size < file.size() && file.inode() == info.st_ino;
}

}  // namespace

void end_well_on_failed_reads() {
    struct sigaction action = {};
    action.sa_sigaction = on_bus_error;
    action.sa_flags = SA_SIGINFO;
    sigaction(SIGBUS, &action, nullptr);
}

void require_readable(const MappedFile& file, int64_t offset, int64_t bytes) {
    if (bytes <= 0) return;
    const std::byte* begin = file.data() + offset;
    if (can_read(begin, begin + bytes) && !was_cut(file)) return;
    fail("cannot read '{}': it was cut while it was in use, or its disk fails; put it back as it was", file.path());
}

std::string text_of(const MappedFile& file) {
    std::string text;
    read_mapped(file, 0, file.size(), [&](const std::byte* from) {
        text.assign(reinterpret_cast<const char*>(from), static_cast<size_t>(file.size()));
    });
    return text;
}

}  // namespace llmc
