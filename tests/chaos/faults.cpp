// Accidents for a program that knows nothing of them: preloaded (LD_PRELOAD), it stands before the C library and lets
// one call fail, or all from that one on. tests/chaos/run.sh chooses which.
//
//   CHAOS_FAULT=KIND:N[:VALUE]   the Nth call of that kind, counted from 1
//
//   full:N         from then on the disk is full: whatever writes, creates, renames, or closes what it wrote fails with
//                  ENOSPC
//   write:N:ERRNO  that one such call fails
//   read:N:ERRNO   the Nth read of a file fails
//   page:N         the Nth file that is mapped cannot be read: SIGBUS
//   sync:N:ERRNO   the Nth fsync or fdatasync fails
//   slow:N:MS      each of them from the Nth on takes so many milliseconds longer
//   new:N          the Nth `new` finds no memory; map:N the Nth anonymous mapping of the program's own
//   clock:N:SECONDS    from the Nth look on the clock is so far off (not the one that measures time)
//   lie:N          a byte of the Nth message to other ranks is another one
//   power:N        the process is killed before the Nth change to the disk; with CHAOS_DISK=FOLDER disk_image.h keeps
//                  what is left of the folder where the power went, too
//
// CHAOS_COUNT=FILE: at the end, how many calls of that kind there were, and nothing fails.
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "tests/chaos/disk_image.h"

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <dlfcn.h>
#include <fcntl.h>
#include <new>
#include <string>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

namespace {

enum class Kind { None, Full, Write, Read, Sync, Slow, New, Map, Clock, Lie, Power, Page };

struct Fault {
    Kind kind = Kind::None;
    long at = 0, value = 0;
    std::atomic<long> count = 0;
    bool only_counts = false;
};

/// Whole before any allocation of the program's own: read at the first call, without one.
Fault& fault() {
    static Fault fault;
    static const bool is_read = [] {
        constexpr const char* kNames[] = {"",    "full", "write", "read", "sync",  "slow",
                                          "new", "map",  "clock", "lie",  "power", "page"};
        fault.only_counts = getenv("CHAOS_COUNT") != nullptr;
        const char* text = getenv("CHAOS_FAULT");
        for (int kind = 1; text != nullptr && kind < 12; ++kind) {
            const size_t length = strlen(kNames[kind]);
            if (strncmp(text, kNames[kind], length) != 0 || text[length] != ':') continue;
            fault.kind = static_cast<Kind>(kind);
            char* end = nullptr;
            fault.at = strtol(text + length + 1, &end, 10);
            fault.value = *end == ':' ? strtol(end + 1, nullptr, 10) : 0;
        }
        return true;
    }();
    static_cast<void>(is_read);
    return fault;
}

/// Counts a call of this kind; whether it is the one.
bool is_due(Kind kind, bool and_later = false) {
    Fault& it = fault();
    if (it.kind != kind || chaos::Quiet::is_on()) return false;
    const long count = ++it.count;
    return !it.only_counts && (count == it.at || (and_later && count > it.at));
}

chaos::DiskImage& image() { return chaos::DiskImage::get(); }

/// A call that changes what is on the disk at this place: a path, or an open file.
template <typename Place>
void change_disk(const Place& place) {
    if (fault().kind != Kind::Power || chaos::Quiet::is_on()) return;
    if (image().concerns(place) && is_due(Kind::Power)) image().cut();
}

/// A call that needs the disk; whether it fails, with errno.
template <typename Place>
bool disk_fails(const Place& place) {
    change_disk(place);
    const bool fails = is_due(Kind::Full, true) || is_due(Kind::Write);
    if (fails) errno = fault().kind == Kind::Full ? ENOSPC : static_cast<int>(fault().value);
    return fails;
}

/// A call that waits for the disk, which may take long; whether it fails, with errno.
bool sync_fails(int descriptor) {
    change_disk(descriptor);
    if (is_due(Kind::Slow, true)) usleep(static_cast<useconds_t>(fault().value * 1000));
    const bool fails = is_due(Kind::Sync);
    if (fails) errno = static_cast<int>(fault().value);
    return fails;
}

bool is_file(int descriptor) {
    struct stat info = {};
    return fstat(descriptor, &info) == 0 && S_ISREG(info.st_mode);
}

/// A file that the program reads, writes or makes, not one of the system's.
bool is_users(const char* path) { return strncmp(path, "/proc/", 6) != 0 && strncmp(path, "/dev/", 5) != 0; }

/// Not of a library: oneDNN 2.6 runs into its own missing memory for code.
bool is_of_program(const void* caller) {
    Dl_info its = {}, program = {};
    return dladdr(caller, &its) != 0 && dladdr(reinterpret_cast<void*>(getauxval(AT_ENTRY)), &program) != 0 &&
           its.dli_fbase == program.dli_fbase;
}

template <typename Function>
Function next(const char* name) {
    return reinterpret_cast<Function>(dlsym(RTLD_NEXT, name));
}

void write_count() {
    if (const char* path = getenv("CHAOS_COUNT")) {
        char text[32];
        const int length = snprintf(text, sizeof(text), "%ld\n", fault().count.load());
        const int descriptor = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
        if (::write(descriptor, text, static_cast<size_t>(length)) < 0) perror(path);
        close(descriptor);
    }
}
const int registered = atexit(write_count);

}  // namespace

#define REAL(name) static const auto real = next<decltype(&name)>(#name)

extern "C" {

ssize_t write(int descriptor, const void* data, size_t bytes) {
    REAL(write);
    if (is_file(descriptor) && disk_fails(descriptor)) return -1;
    return real(descriptor, data, bytes);
}

ssize_t pwrite(int descriptor, const void* data, size_t bytes, off_t offset) {
    REAL(pwrite);
    if (is_file(descriptor) && disk_fails(descriptor)) return -1;
    return real(descriptor, data, bytes, offset);
}

ssize_t read(int descriptor, void* data, size_t bytes) {
    REAL(read);
    if (is_file(descriptor) && is_due(Kind::Read)) {
        errno = static_cast<int>(fault().value);
        return -1;
    }
    return real(descriptor, data, bytes);
}

ssize_t pread(int descriptor, void* data, size_t bytes, off_t offset) {
    REAL(pread);
    if (is_file(descriptor) && is_due(Kind::Read)) {
        errno = static_cast<int>(fault().value);
        return -1;
    }
    return real(descriptor, data, bytes, offset);
}

size_t fwrite(const void* data, size_t size, size_t count, FILE* file) {
    REAL(fwrite);
    if (is_file(fileno(file)) && disk_fails(fileno(file))) return 0;
    return real(data, size, count, file);
}

int open(const char* path, int flags, ...) {
    REAL(open);
    va_list arguments;
    va_start(arguments, flags);
    const mode_t mode = va_arg(arguments, mode_t);
    va_end(arguments);
    if ((flags & O_CREAT) != 0 && is_users(path) && disk_fails(path)) return -1;
    if ((flags & (O_ACCMODE | O_CREAT | O_TRUNC)) == O_RDONLY || chaos::Quiet::is_on()) return real(path, flags, mode);
    const bool is_new = image().before_writing(path);
    const int descriptor = real(path, flags, mode);
    if (descriptor >= 0 && is_new) image().after_creating(path);
    return descriptor;
}

int close(int descriptor) {
    REAL(close);
    const bool fails =
        (fcntl(descriptor, F_GETFL) & O_ACCMODE) == O_WRONLY && is_file(descriptor) && disk_fails(descriptor);
    const int error = errno, status = real(descriptor);
    if (!fails) return status;
    errno = error;
    return -1;
}

FILE* fopen(const char* path, const char* mode) {
    REAL(fopen);
    const bool is_written = strpbrk(mode, "wa+") != nullptr && is_users(path);
    if (!is_written) return real(path, mode);
    if (disk_fails(path)) return nullptr;
    const bool is_new = image().before_writing(path);
    FILE* file = real(path, mode);
    if (file != nullptr && is_new) image().after_creating(path);
    return file;
}

FILE* fopen64(const char* path, const char* mode) { return fopen(path, mode); }

int ftruncate(int descriptor, off_t bytes) {
    REAL(ftruncate);
    return disk_fails(descriptor) ? -1 : real(descriptor, bytes);
}

int rename(const char* from, const char* to) {
    REAL(rename);
    if (chaos::Quiet::is_on()) return real(from, to);
    if (disk_fails(to)) return -1;
    image().before_naming(from);
    image().before_naming(to);
    const int status = real(from, to);
    if (status == 0) image().after_moving(from, to);
    return status;
}

int renameat2(int from_folder, const char* from, int to_folder, const char* to, unsigned flags) {
    REAL(renameat2);
    if (disk_fails(chaos::DiskImage::path_in(to_folder, to))) return -1;
    image().before_naming(chaos::DiskImage::path_in(from_folder, from));
    image().before_naming(chaos::DiskImage::path_in(to_folder, to));
    return real(from_folder, from, to_folder, to, flags);
}

int link(const char* from, const char* to) {
    REAL(link);
    if (chaos::Quiet::is_on()) return real(from, to);
    if (disk_fails(to)) return -1;
    image().before_naming(to);
    return real(from, to);
}

int symlink(const char* target, const char* path) {
    REAL(symlink);
    if (disk_fails(path)) return -1;
    image().before_naming(path);
    return real(target, path);
}

int mkdir(const char* path, mode_t mode) {
    REAL(mkdir);
    if (chaos::Quiet::is_on()) return real(path, mode);
    if (disk_fails(path)) return -1;
    image().before_naming(path);
    const int status = real(path, mode);
    if (status == 0) image().after_creating(path);
    return status;
}

int unlink(const char* path) {
    REAL(unlink);
    change_disk(path);
    image().before_naming(path);
    return real(path);
}

int unlinkat(int folder, const char* path, int flags) {
    REAL(unlinkat);
    change_disk(chaos::DiskImage::path_in(folder, path));
    image().before_naming(chaos::DiskImage::path_in(folder, path));
    return real(folder, path, flags);
}

int remove(const char* path) {
    REAL(remove);
    change_disk(path);
    image().before_naming(path);
    return real(path);
}

int rmdir(const char* path) {
    REAL(rmdir);
    change_disk(path);
    image().before_naming(path);
    return real(path);
}

int fsync(int descriptor) {
    REAL(fsync);
    if (sync_fails(descriptor)) return -1;
    const int status = real(descriptor);
    if (status == 0) image().after_syncing(descriptor);
    return status;
}

int fdatasync(int descriptor) {
    REAL(fdatasync);
    if (sync_fails(descriptor)) return -1;
    const int status = real(descriptor);
    if (status == 0) image().after_syncing(descriptor);
    return status;
}

void* mmap(void* address, size_t bytes, int protection, int flags, int descriptor, off_t offset) {
    REAL(mmap);
    const bool is_own = is_of_program(__builtin_return_address(0));
    if (is_own && (flags & MAP_ANONYMOUS) != 0 && is_due(Kind::Map)) {
        errno = ENOMEM;
        return MAP_FAILED;
    }
    if (is_own && descriptor >= 0 && is_file(descriptor) && is_due(Kind::Page)) {
        const int empty = memfd_create("unreadable", MFD_CLOEXEC);
        void* const memory = real(address, bytes, protection, flags, empty, 0);
        close(empty);
        return memory;
    }
    return real(address, bytes, protection, flags, descriptor, offset);
}

int clock_gettime(clockid_t clock, timespec* now) {
    REAL(clock_gettime);
    const int status = real(clock, now);
    if (status == 0 && clock == CLOCK_REALTIME && is_due(Kind::Clock, true)) now->tv_sec += fault().value;
    return status;
}

time_t time(time_t* to) {
    timespec now = {};
    clock_gettime(CLOCK_REALTIME, &now);
    if (to != nullptr) *to = now.tv_sec;
    return now.tv_sec;
}

/// A message is sent in two calls, its header ("GTG2" and 12 bytes) and what it says; either may be the lie. What the
/// data connections carry has no such header.
ssize_t send(int socket, const void* data, size_t bytes, int flags) {
    REAL(send);
    static thread_local int after_header = -1;
    const bool is_header = bytes == 16 && memcmp(data, "GTG2", 4) == 0;
    const bool is_message = is_header || socket == after_header;
    after_header = is_header ? socket : -1;
    if (!is_message || !is_due(Kind::Lie) || bytes == 0) return real(socket, data, bytes, flags);
    std::string changed(static_cast<const char*>(data), bytes);
    changed[static_cast<size_t>(fault().at) % bytes] ^= static_cast<char>(1 << (fault().at % 8));
    return real(socket, changed.data(), bytes, flags);
}

}  // extern "C"

void* operator new(size_t bytes) {
    if (is_due(Kind::New)) throw std::bad_alloc();
    void* memory = malloc(bytes == 0 ? 1 : bytes);
    if (memory == nullptr) throw std::bad_alloc();
    return memory;
}
void* operator new[](size_t bytes) { return operator new(bytes); }
void operator delete(void* memory) noexcept { free(memory); }
void operator delete(void* memory, size_t) noexcept { free(memory); }
void operator delete[](void* memory) noexcept { free(memory); }
void operator delete[](void* memory, size_t) noexcept { free(memory); }
