#include "llmc/comm/place_file.h"

#include "llmc/base/error.h"
#include "llmc/base/file.h"
#include "llmc/comm/socket.h"

#include <cerrno>
#include <fcntl.h>
#include <filesystem>
#include <sys/stat.h>
#include <unistd.h>
#include <utility>

namespace llmc {
namespace {

constexpr mode_t kOfOwner = S_IRUSR | S_IWUSR;
constexpr off_t kLongest = 64 << 10;

/// Closes and removes a half-written file.
[[noreturn]] void give_up(int descriptor, const std::string& path, const char* what) {
    const int error = errno;
    close(descriptor);
    unlink(path.c_str());
    fail("cannot {} '{}': {}", what, path, words_of(error));
}

/// Nobody has it open, or has laid a link in its place.
void write_new(const std::string& path, const std::string& content) {
    unlink(path.c_str());
    const int descriptor = open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, kOfOwner);
    if (descriptor < 0) fail("cannot create '{}': {}", path, words_of(errno));
    const auto bytes = static_cast<ssize_t>(content.size());
    if (write(descriptor, content.data(), content.size()) != bytes) give_up(descriptor, path, "write");
    if (fsync(descriptor) != 0) give_up(descriptor, path, "write");
    struct stat info = {};
    const bool is_known = fstat(descriptor, &info) == 0;
    if (!is_known || (info.st_mode & (S_IRWXG | S_IRWXO)) != 0) {
        close(descriptor);
        unlink(path.c_str());
        fail("'{}' can be read by others, since its file system keeps no rights, and would tell them the job's secret",
             path);
    }
    close(descriptor);
}

}  // namespace

PlaceFile::PlaceFile(std::string path, std::string content) : path_(std::move(path)), content_(std::move(content)) {
    const std::string temporary = path_ + ".tmp";
    write_new(temporary, content_);
    try {
        rename_into_place(temporary, path_);
    } catch (const Error&) {
        unlink(temporary.c_str());
        throw;
    }
}

PlaceFile::~PlaceFile() {
    try {
        if (read_place_file(path_) == content_) unlink(path_.c_str());
    } catch (const std::exception&) {  // Somebody has removed it, or laid something else in its place.
    }
}

std::string read_place_file(const std::string& path) {
    // What is looked at is what is read, whoever exchanges names meanwhile.
    const Socket file(open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
    struct stat info = {};
    if (!file || fstat(file.descriptor(), &info) != 0) fail("cannot open '{}': {}", path, words_of(errno));
    if (!S_ISREG(info.st_mode)) fail("it is no regular file");
    if (info.st_uid != geteuid() && info.st_uid != 0) fail("the file is another user's");
    if ((info.st_mode & (S_IRWXG | S_IRWXO)) != 0) fail("the file can be read or written by others");
    if (info.st_size > kLongest) fail("the file is too long");
    std::string text(kLongest, '\0');
    const ssize_t bytes = read(file.descriptor(), text.data(), text.size());
    if (bytes < 0) fail("cannot read '{}': {}", path, words_of(errno));
    text.resize(static_cast<size_t>(bytes));
    return text;
}

}  // namespace llmc
