// Errors that a user can cause: a bad option, an unreadable file, too little memory, a failed run.
// They are thrown where they are found, as one clear line that names the option, file or tensor, the value given and
// the remedy; main() alone catches them, prints the line and ends the program. Programmer errors go through check.h.
#pragma once

#include <spdlog/fmt/fmt.h>

#include <stdexcept>
#include <string>
#include <utility>

namespace llmc {

/// The one exception type of the project. `exit_code` is what the program ends with.
class Error : public std::runtime_error {
  public:
    Error(int exit_code, const std::string& message) : std::runtime_error(message), exit_code_(exit_code) {}
    int exit_code() const { return exit_code_; }

  private:
    int exit_code_;
};

constexpr int kExitDone = 0;      ///< The run did what was asked.
constexpr int kExitFailed = 1;    ///< The run failed: data, disk, memory, numbers.
constexpr int kExitBadUsage = 2;  ///< The command line or a configuration value was wrong.

/// The run cannot go on (exit code 1). Say what, the given value and the remedy, in one line.
template <typename... Args>
[[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) {
    throw Error(kExitFailed, fmt::format(format, std::forward<Args>(args)...));
}

/// The user asked for something that cannot be (exit code 2). Name the option.
template <typename... Args>
[[noreturn]] void fail_usage(fmt::format_string<Args...> format, Args&&... args) {
    throw Error(kExitBadUsage, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace llmc
