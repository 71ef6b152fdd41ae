#include "llmc/base/terminal.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <charconv>
#include <cstdlib>
#include <string_view>

namespace llmc {
namespace {

int columns_of(int stream) {
    constexpr int kUsual = 80, kLeast = 20;
    int columns = 0;
    if (const char* given = std::getenv("COLUMNS"); given != nullptr) {
        const std::string_view text = given;
        std::from_chars(text.data(), text.data() + text.size(), columns);
    }
    winsize size = {};
    if (columns < kLeast && ioctl(stream, TIOCGWINSZ, &size) == 0) columns = size.ws_col;
    return columns < kLeast ? kUsual : columns;
}

}  // namespace

int output_columns() { return columns_of(STDOUT_FILENO); }

int error_columns() { return columns_of(STDERR_FILENO); }

}  // namespace llmc
