#include "llmc/base/units.h"

#include <spdlog/fmt/fmt.h>

#include <array>
#include <cctype>
#include <charconv>
#include <cmath>

namespace llmc {

bool parse_bytes(std::string_view text, int64_t* bytes) {
    double number = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error != std::errc() || !(number >= 0)) return false;
    std::string unit;
    for (const char* c = end; c != text.data() + text.size(); ++c) {
        if (*c != ' ') unit += static_cast<char>(std::tolower(static_cast<unsigned char>(*c)));
    }
    double scale = 1;
    if (!unit.empty() && unit != "b") {
        constexpr std::string_view kPrefixes = "kmgt";
        const size_t power = kPrefixes.find(unit[0]);
        if (power == std::string_view::npos) return false;
        const std::string rest = unit.substr(1);
        if (rest != "" && rest != "b" && rest != "i" && rest != "ib") return false;
        scale = std::pow(rest == "b" ? 1000.0 : 1024.0, static_cast<double>(power + 1));
    }
    const double value = number * scale;
    if (!(value < 9.0e18)) return false;
    *bytes = static_cast<int64_t>(std::llround(value));
    return true;
}

std::string format_bytes(int64_t bytes) {
    constexpr std::array kUnits = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
    double value = static_cast<double>(bytes);
    size_t unit = 0;
    while (std::abs(value) >= 1024 && unit + 1 < kUnits.size()) {
        value /= 1024;
        ++unit;
    }
    if (unit == 0) return fmt::format("{} B", bytes);
    return fmt::format("{:.{}f} {}", value, std::abs(value) < 10 ? 2 : 1, kUnits[unit]);
}

std::string format_count(int64_t count) {
    std::string digits = std::to_string(count);
    for (int64_t i = static_cast<int64_t>(digits.size()) - 3; i > (count < 0 ? 1 : 0); i -= 3) {
        digits.insert(static_cast<size_t>(i), 1, ',');
    }
    return digits;
}

std::string format_duration(double seconds) {
    const auto total = static_cast<int64_t>(std::llround(seconds));
    if (total < 60) return fmt::format("{}s", total);
    if (total < 3600) return fmt::format("{}m {:02}s", total / 60, total % 60);
    return fmt::format("{}h {:02}m", total / 3600, total % 3600 / 60);
}

}  // namespace llmc
