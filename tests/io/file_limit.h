// A full disk, simulated: code run in a child process that may not write files beyond a size.
#pragma once

#include "llmc/base/error.h"

#include <csignal>
#include <string>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

namespace llmc {

/// Runs `action` in a child process where every file is limited to `bytes`. Returns the message of its Error, or
/// "no error", or "" if it ended in any other way.
template <typename Action>
std::string error_with_file_limit(int64_t bytes, Action action) {
    int ends[2];
    if (pipe(ends) != 0) return "";
    const pid_t child = fork();
    if (child == 0) {
        signal(SIGXFSZ, SIG_IGN);
        const rlimit limit = {static_cast<rlim_t>(bytes), static_cast<rlim_t>(bytes)};
        setrlimit(RLIMIT_FSIZE, &limit);
        std::string message = "no error";
        try {
            action();
        } catch (const Error& error) {
            message = error.what();
        }
        const bool told = write(ends[1], message.data(), message.size()) == static_cast<ssize_t>(message.size());
        _exit(told ? 0 : 1);
    }
    close(ends[1]);
    std::string message(4096, '\0');
    const ssize_t count = read(ends[0], message.data(), message.size());
    close(ends[0]);
    int status = 0;
    waitpid(child, &status, 0);
    message.resize(WIFEXITED(status) && WEXITSTATUS(status) == 0 && count > 0 ? static_cast<size_t>(count) : 0);
    return message;
}

}  // namespace llmc
