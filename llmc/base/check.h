// CHECK(expression, values...): a condition that only a mistake in this program can break. It prints the expression,
// the values and the place, and aborts. What a user can cause is an Error (error.h), never a CHECK.
#pragma once

#include <spdlog/fmt/fmt.h>

#include <string>

namespace llmc {

/// Prints "file:line: check failed: expression (values)" on stderr and aborts.
[[noreturn]] void check_failed(const char* file, int line, const char* expression, const std::string& values);

/// The values of a CHECK as text: "3, 17".
inline std::string check_values() { return ""; }
template <typename First, typename... Rest>
std::string check_values(const First& first, const Rest&... rest) {
    std::string text = fmt::format("{}", first);
    ((text += fmt::format(", {}", rest)), ...);
    return text;
}
}  // namespace llmc

#define CHECK(expression, ...)                                                                        \
    do {                                                                                              \
        if (!(expression)) [[unlikely]]                                                               \
            ::llmc::check_failed(__FILE__, __LINE__, #expression, ::llmc::check_values(__VA_ARGS__)); \
    } while (false)
