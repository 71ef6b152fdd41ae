// Sizes and durations as people write and read them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace llmc {

/// Parses "1234", "1234B", "512KiB", "1.5GiB", "6GB" (powers of 1024 with i, of 1000 without). False if it is no size.
bool parse_bytes(std::string_view text, int64_t* bytes);

/// "0 B", "512.0 KiB", "1.50 GiB": three or four significant digits.
std::string format_bytes(int64_t bytes);

/// "124,439,808".
std::string format_count(int64_t count);

/// "45s", "12m 05s", "3h 07m".
std::string format_duration(double seconds);

/// Rounds up to a multiple.
constexpr int64_t round_up(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

/// Rounds the quotient up.
constexpr int64_t ceil_div(int64_t value, int64_t divisor) { return (value + divisor - 1) / divisor; }

}  // namespace llmc
