#include "llmc/base/last_words.h"

#include "llmc/base/error.h"
#include "llmc/base/program_name.h"

#include <array>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <exception>
#include <new>
#include <unistd.h>

namespace llmc {
namespace {

/// The local time is this much ahead, as it was at the start: asking again may allocate.
long seconds_ahead = 0;

void two_digits(char* to, long value) {
    to[0] = static_cast<char>('0' + value / 10);
    to[1] = static_cast<char>('0' + value % 10);
}

[[noreturn]] void on_terminate() {
    try {
        if (const std::exception_ptr error = std::current_exception()) std::rethrow_exception(error);
        write_last_line({"ended without a reason"});
    } catch (const std::bad_alloc&) {
        write_last_line({"out of memory: an allocation of this process was refused; ", program_name().c_str(),
                         " plan shows what every setting needs"});
    } catch (const std::exception& error) {
        write_last_line({"unexpected failure: ", error.what()});
    } catch (...) {
        write_last_line({"unexpected failure"});
    }
    _exit(kExitFailed);
}

}  // namespace

void write_last_line(std::initializer_list<const char*> parts) noexcept {
    std::array<char, 4096> line = {};
    size_t length = 0;
    if (isatty(STDERR_FILENO) == 0) {
        std::memcpy(line.data(), "00:00:00 E ", 11);
        const long now = (time(nullptr) + seconds_ahead) % 86400;
        two_digits(line.data(), now / 3600);
        two_digits(line.data() + 3, now / 60 % 60);
        two_digits(line.data() + 6, now % 60);
        length = 11;
    }
    for (const char* part : parts) {
        const size_t bytes = strnlen(part, line.size() - 1 - length);
        std::memcpy(line.data() + length, part, bytes);
        length += bytes;
    }
    for (size_t i = 0; i < length; ++i) {
        if (static_cast<unsigned char>(line[i]) < ' ' || line[i] == 127) line[i] = '?';
    }
    line[length++] = '\n';
    [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, line.data(), length);
}

void end_with_last_words() {
    const time_t now = time(nullptr);
    tm local = {};
    if (localtime_r(&now, &local) != nullptr) seconds_ahead = local.tm_gmtoff;
    std::set_terminate(on_terminate);
}

}  // namespace llmc
