#include "llmc/base/output.h"

#include "llmc/base/error.h"
#include "llmc/base/log.h"

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <string>

namespace llmc {
namespace {

std::optional<Error> first_failure;  ///< Of try_print_output().

[[noreturn]] void fail_to_write(int error) {
    if (error == EPIPE) throw Error(kExitReaderGone, "");
    fail("cannot write to standard output: {}", std::strerror(error));
}

}  // namespace

void print_output(std::string_view text) {
    errno = 0;
    if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size()) fail_to_write(errno);
}

void flush_output() {
    errno = 0;
    if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) fail_to_write(errno != 0 ? errno : EIO);
}

void try_print_output(std::string_view text, std::string_view what) {
    if (first_failure) return;
    show_status("");
    try {
        print_output(text);
        flush_output();
    } catch (const Error& error) {
        first_failure = error;
        if (error.exit_code() != kExitReaderGone) spdlog::warn("{} is not shown: {}", what, error.what());
    }
}

void require_whole_output() {
    if (first_failure && first_failure->exit_code() != kExitReaderGone) throw Error(*first_failure);
}

}  // namespace llmc
