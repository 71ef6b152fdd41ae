// CHECK(expression, values...): a condition that only a mistake in this program can break. It prints the expression,
// the values and the place, and aborts. What a user can cause is an Error (error.h), never a CHECK.
//
// Plain standard C++, because device compilers read it too.
#pragma once

#include <sstream>
#include <string>

namespace llmc {

/// Prints "file:line: check failed: expression (values)" on stderr and aborts.
[[noreturn]] void check_failed(const char* file, int line, const char* expression, const std::string& values);

/// The values of a CHECK as text: "3, 17".
inline std::string check_values() { return ""; }
template <typename First, typename... Rest>
std::string check_values(const First& first, const Rest&... rest) {
    std::ostringstream text;
    text << first;
    ((text << ", " << rest), ...);
    return text.str();
}

}  // namespace llmc

#define CHECK(expression, ...)                                                                        \
    do {                                                                                              \
        if (!(expression)) [[unlikely]]                                                               \
            ::llmc::check_failed(__FILE__, __LINE__, #expression, ::llmc::check_values(__VA_ARGS__)); \
    } while (false)
