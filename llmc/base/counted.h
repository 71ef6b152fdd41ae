// Numbers with what they count.
#pragma once

#include <spdlog/fmt/fmt.h>

#include <cstdint>
#include <string>
#include <string_view>

namespace llmc {

/// "1 step", "2 steps"; where the plural is another, it is given: counted(2, "batch", "batches").
inline std::string counted(int64_t count, std::string_view one, std::string_view several = "") {
    if (count == 1) return fmt::format("1 {}", one);
    return several.empty() ? fmt::format("{} {}s", count, one) : fmt::format("{} {}", count, several);
}

}  // namespace llmc
