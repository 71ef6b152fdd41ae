// Numbers with what they count.
#pragma once

#include <spdlog/fmt/fmt.h>

#include <cstdint>
#include <string>
#include <string_view>

namespace llmc {

/// "step" for one, "steps" for others; where the plural is another, it is given: noun(2, "batch", "batches").
inline std::string noun(int64_t count, std::string_view one, std::string_view several = "") {
    if (count == 1) return std::string(one);
    return several.empty() ? fmt::format("{}s", one) : std::string(several);
}

/// "1 step", "2 steps".
inline std::string counted(int64_t count, std::string_view one, std::string_view several = "") {
    return fmt::format("{} {}", count, noun(count, one, several));
}

}  // namespace llmc
