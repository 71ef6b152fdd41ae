#include "llmc/draw/report_units.h"

#include "llmc/base/units.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cmath>

namespace llmc {
namespace {

constexpr ByteUnit kGibibyte = {"GiB", 1073741824.0};

}  // namespace

ReportUnits::ReportUnits(bool in_full, int64_t largest_bytes)
    : in_full_(in_full),
      unit_(static_cast<double>(largest_bytes) >= kGibibyte.bytes ? kGibibyte : byte_unit(largest_bytes)) {}

std::string ReportUnits::bytes(int64_t count) const {
    if (in_full_) return format_count(count);
    const double value = static_cast<double>(count) / unit_.bytes;
    return fmt::format("{:.{}f}", value, value < 1000 ? 2 : 0);
}

std::string ReportUnits::seconds(double seconds) const {
    if (in_full_) return fmt::format("{:.3f}", seconds * 1e3);
    if (seconds <= 0) return "0";
    const int before = static_cast<int>(std::floor(std::log10(seconds))) + 1;  // Digits before the point.
    return fmt::format("{:.{}f}", seconds, std::clamp(3 - before, 0, 7));
}

std::string ReportUnits::of_bytes(const char* what) const {
    return fmt::format("{}{}{}", what, *what ? " " : "", in_full_ ? "B" : unit_.name);
}

std::string ReportUnits::of_seconds(const char* what) const {
    return fmt::format("{}{}{}", what, *what ? " " : "", in_full_ ? "ms" : "s");
}

std::string rate_text(double per_second) {
    return per_second < 100 ? fmt::format("{:.3g}", per_second) : format_count(std::llround(per_second));
}

}  // namespace llmc
