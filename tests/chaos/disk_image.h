// What a power cut would leave of a folder: of every file what it held when it was last synced, of every folder the
// names that were in it when that was. Kept beside the folder while a program changes it; what has not changed since
// the program's start counts as synced. tests/chaos/power_cut.bash makes folders of it.
//
//   CHAOS_DISK=FOLDER        its image is FOLDER.image:
//     folders/INODE          the names: a line "INODE KIND NAME<tab>TARGET" for each, as find's '%i %y %f\t%l'
//     files/INODE            the content
//     kept/INODE             a link to each file that has lost a name since: its number is not used again
//     moved                  the INODEs of folders that something was moved between
//     cut                    is there once the power went: other processes at the same folder end as well
//
// Syncing a file does not sync its name, and syncing a folder not its own name in the folder above: file systems differ
// in what they add to that, and this one adds nothing but that a move from one folder to another is done or is not.
// Known are the calls that this program makes: names by open, fopen, mkdir, link, symlink, rename, renameat2, unlink,
// unlinkat, remove and rmdir, contents by fsync and fdatasync.
#pragma once

#include <cerrno>
#include <climits>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dirent.h>
#include <fcntl.h>
#include <mutex>
#include <set>
#include <sstream>
#include <string>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utility>
#include <vector>

namespace chaos {

/// Calls within it are the image's own, and no accident happens to them.
class Quiet {
  public:
    Quiet() : error_(errno) { ++depth(); }
    ~Quiet() {
        --depth();
        errno = error_;
    }
    Quiet(const Quiet&) = delete;
    Quiet& operator=(const Quiet&) = delete;
    static bool is_on() { return depth() > 0; }

  private:
    static int& depth() {
        static thread_local int depth = 0;
        return depth;
    }
    int error_;
};

class DiskImage {
  public:
    /// Where there is none, its functions do nothing.
    static DiskImage& get() {
        static DiskImage& image = *new DiskImage;  // Outlives all that writes at the program's end.
        return image;
    }

    /// Whether the path, or the open file, is in the folder; of any where there is no image.
    bool concerns(const std::string& path) {
        const Turn turn(*this);
        return root_.empty() || holds(path);
    }
    bool concerns(int descriptor) { return concerns(name_of(descriptor)); }

    /// Before a file is opened to be written: whether it will be a new one.
    bool before_writing(const std::string& path) {
        const Turn turn(*this);
        if (!holds(path)) return false;
        struct stat info = {};
        const bool is_new = stat(path.c_str(), &info) != 0;
        if (is_new) remember_folder(parent_of(path));
        if (!is_new && S_ISREG(info.st_mode)) remember_file(path, info.st_ino);
        return is_new;
    }
    /// Of one that is new: nothing of it is synced.
    void after_creating(const std::string& path) {
        const Turn turn(*this);
        struct stat info = {};
        if (!holds(path) || lstat(path.c_str(), &info) != 0) return;
        if (S_ISREG(info.st_mode)) record("files", info.st_ino, "");
        if (S_ISDIR(info.st_mode)) record("folders", info.st_ino, "");
    }
    /// Before a name comes or goes.
    void before_naming(const std::string& path) {
        const Turn turn(*this);
        struct stat info = {};
        if (!holds(path)) return;
        remember_folder(parent_of(path));
        if (lstat(path.c_str(), &info) == 0) keep(path, info);
    }
    void after_moving(const std::string& from, const std::string& to) {
        const Turn turn(*this);
        if (!holds(from) || !holds(to)) return;
        const Place left = place_of(from), entered = place_of(to);
        if (left.inode == entered.inode) return;
        moves_.emplace_back(left, entered);
        const std::string line = std::to_string(left.inode) + "\n" + std::to_string(entered.inode) + "\n";
        const int descriptor = open((image_ + "/moved").c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
        require(write(descriptor, line.data(), line.size()) > 0, image_);
        close(descriptor);
    }
    void after_syncing(int descriptor) {
        const Turn turn(*this);
        const std::string path = path_of(descriptor);
        struct stat info = {};
        if (fstat(descriptor, &info) != 0 || !holds(name_of(descriptor))) return;
        if (S_ISREG(info.st_mode)) record("files", info.st_ino, content_of(link_to(descriptor)));
        if (!S_ISDIR(info.st_mode)) return;
        record("folders", info.st_ino, names_in(path));
        for (const auto& [left, entered] : moves_) {  // The other half of the move is done as well.
            if (left.inode == info.st_ino) sync_name(entered);
            if (entered.inode == info.st_ino) sync_name(left);
        }
        std::erase_if(moves_, [&](const auto& move) {
            return move.first.inode == info.st_ino || move.second.inode == info.st_ino;
        });
    }
    /// The end, between two changes.
    [[noreturn]] void cut() {
        const Turn turn(*this);
        if (!root_.empty()) close(open((image_ + "/cut").c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
        end();
    }

    /// `path` from the folder that `folder` (as in openat) is.
    static std::string path_in(int folder, const char* path) {
        return folder == AT_FDCWD || *path == '/' ? path : path_of(folder) + "/" + path;
    }

  private:
    struct Place {
        std::string folder, name;
        ino_t inode = 0;  ///< Of the folder.
    };

    /// One at a time, of all processes.
    struct Turn {
        explicit Turn(DiskImage& its) : image(its), guard(its.mutex_) {
            if (image.lock_ < 0) return;
            while (flock(image.lock_, LOCK_EX) != 0 && errno == EINTR) {
            }
            if (access((image.image_ + "/cut").c_str(), F_OK) == 0) end();
        }
        ~Turn() {
            if (image.lock_ >= 0) flock(image.lock_, LOCK_UN);
        }
        Turn(const Turn&) = delete;
        Turn& operator=(const Turn&) = delete;
        Quiet quiet;
        DiskImage& image;
        std::lock_guard<std::mutex> guard;
    };
    [[noreturn]] static void end() {
        for (;;) kill(getpid(), SIGKILL);
    }

    DiskImage() {
        const Quiet quiet;
        const char* folder = getenv("CHAOS_DISK");
        char real[PATH_MAX];
        if (folder == nullptr || realpath(folder, real) == nullptr) return;
        root_ = real;
        image_ = root_ + ".image";
        for (const char* part : {"", "/folders", "/files", "/kept"}) mkdir((image_ + part).c_str(), 0755);
        lock_ = open((image_ + "/lock").c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    }

    /// The image is not to be trusted from here on.
    static void require(bool is_so, const std::string& what) {
        if (is_so) return;
        perror(what.c_str());
        abort();
    }
    static std::string parent_of(const std::string& path) {
        const size_t end = path.find_last_not_of('/'), slash = path.rfind('/', end);
        return slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
    }
    static Place place_of(const std::string& path) {
        struct stat info = {};
        char real[PATH_MAX];
        const std::string folder = parent_of(path);
        if (stat(folder.c_str(), &info) != 0 || realpath(folder.c_str(), real) == nullptr) return {};
        const size_t end = path.find_last_not_of('/') + 1, begin = path.rfind('/', end - 1) + 1;
        return {real, path.substr(begin, end - begin), info.st_ino};
    }
    static std::string link_to(int descriptor) { return "/proc/self/fd/" + std::to_string(descriptor); }
    static std::string path_of(int descriptor) {
        char path[PATH_MAX];
        const ssize_t length = readlink(link_to(descriptor).c_str(), path, sizeof(path));
        return std::string(path, length > 0 ? static_cast<size_t>(length) : 0);
    }
    /// A folder's own name counts as one in it.
    static std::string name_of(int descriptor) {
        struct stat info = {};
        const bool is_folder = fstat(descriptor, &info) == 0 && S_ISDIR(info.st_mode);
        return path_of(descriptor) + (is_folder ? "/." : "");
    }
    bool holds(const std::string& path) const {
        char real[PATH_MAX];
        if (root_.empty() || realpath(parent_of(path).c_str(), real) == nullptr) return false;
        return (std::string(real) + "/").starts_with(root_ + "/");
    }
    std::string record_of(const char* kind, ino_t inode) const {
        return image_ + "/" + kind + "/" + std::to_string(inode);
    }

    static std::string content_of(const std::string& path) {
        std::string content;
        char part[1 << 16];
        const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC);
        require(descriptor >= 0, path);
        for (ssize_t n; (n = read(descriptor, part, sizeof(part))) > 0;) content.append(part, static_cast<size_t>(n));
        close(descriptor);
        return content;
    }
    /// The line of a name that is there; else "".
    static std::string line_of(const std::string& folder, const std::string& name) {
        const std::string path = folder + "/" + name;
        struct stat info = {};
        if (lstat(path.c_str(), &info) != 0) return "";
        char target[PATH_MAX];
        const ssize_t length = readlink(path.c_str(), target, sizeof(target));
        const char kind = length >= 0 ? 'l' : S_ISDIR(info.st_mode) ? 'd' : S_ISREG(info.st_mode) ? 'f' : 'p';
        return std::to_string(info.st_ino) + ' ' + kind + ' ' + name + '\t' +
               std::string(target, length > 0 ? static_cast<size_t>(length) : 0) + '\n';
    }
    static std::string names_in(const std::string& folder) {
        std::string names;
        DIR* entries = opendir(folder.c_str());
        require(entries != nullptr, folder);
        while (const dirent* entry = readdir(entries)) {
            const std::string name = entry->d_name;
            if (name != "." && name != "..") names += line_of(folder, name);
        }
        closedir(entries);
        return names;
    }
    /// This name alone, as it is there or is not.
    void sync_name(const Place& place) const {
        if (place_of(place.folder + "/.").inode != place.inode) return;  // The folder is gone.
        std::string names;
        std::istringstream lines(content_of(record_of("folders", place.inode)));
        for (std::string line; std::getline(lines, line);) {
            const size_t begin = line.find(' ') + 3;
            if (line.substr(begin, line.rfind('\t') - begin) != place.name) names += line + '\n';
        }
        record("folders", place.inode, names + line_of(place.folder, place.name));
    }

    /// Old or new, also where the process ends in its middle.
    void record(const char* kind, ino_t inode, const std::string& text) const {
        const std::string place = record_of(kind, inode), fresh = image_ + "/fresh";
        const int descriptor = open(fresh.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
        require(descriptor >= 0, fresh);
        for (size_t at = 0; at < text.size();) {
            const ssize_t n = write(descriptor, text.data() + at, text.size() - at);
            require(n > 0, fresh);
            at += static_cast<size_t>(n);
        }
        close(descriptor);
        require(rename(fresh.c_str(), place.c_str()) == 0, place);
    }
    void remember_file(const std::string& path, ino_t inode) const {
        if (access(record_of("files", inode).c_str(), F_OK) != 0) record("files", inode, content_of(path));
    }
    void remember_folder(const std::string& path) const {
        struct stat info = {};
        if (stat(path.c_str(), &info) != 0 || access(record_of("folders", info.st_ino).c_str(), F_OK) == 0) return;
        record("folders", info.st_ino, names_in(path));
    }
    /// What loses a name, or may: a file's number by a link, a folder's as long as the process lives.
    void keep(const std::string& path, const struct stat& info) {
        if (S_ISDIR(info.st_mode)) {
            remember_folder(path);
            if (kept_.insert(info.st_ino).second) require(open(path.c_str(), O_PATH | O_CLOEXEC) >= 0, path);
        } else if (S_ISREG(info.st_mode)) {
            static_cast<void>(link(path.c_str(), record_of("kept", info.st_ino).c_str()));
        }
    }

    std::string root_, image_;
    std::vector<std::pair<Place, Place>> moves_;
    std::set<ino_t> kept_;
    int lock_ = -1;
    std::mutex mutex_;
};

}  // namespace chaos
