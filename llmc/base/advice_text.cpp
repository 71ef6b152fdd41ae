#include "llmc/base/advice_text.h"

#include "llmc/base/units.h"

#include <spdlog/fmt/fmt.h>

#include <utility>

namespace llmc {

std::string size_option(int64_t bytes) {
    for (const auto& [power, unit] : {std::pair(30, "GiB"), std::pair(20, "MiB"), std::pair(10, "KiB")}) {
        if (bytes > 0 && bytes % (int64_t{1} << power) == 0) return fmt::format("{}{}", bytes >> power, unit);
    }
    return fmt::format("{}B", bytes);
}

std::string size_option_from(int64_t bytes) {
    constexpr int64_t kKiB = 1 << 10, kMiB = 1 << 20, kLarge = 64 * kMiB;
    return size_option(round_up(bytes, bytes < kLarge ? kKiB : kMiB));
}

std::string nearest_multiples(int64_t number, int64_t of) {
    const int64_t below = number / of * of;
    return below == 0 ? std::to_string(of) : fmt::format("{} or {}", below, below + of);
}

std::string format_step_seconds(double seconds) {
    return seconds < 10 ? fmt::format("{:.0f} ms", seconds * 1e3) : fmt::format("{:.0f} s", seconds);
}

}  // namespace llmc
