// How weights are stored: in a type of their own, or in four bits (nf4.h). What operations read may be another type.
#pragma once

#include "llmc/base/dtype.h"

#include <cstdint>
#include <optional>
#include <string_view>

namespace llmc {

enum class WeightFormat : uint8_t { F32, BF16, Nf4, Nf4Double };

constexpr bool is_nf4(WeightFormat format) { return format >= WeightFormat::Nf4; }

/// The type of the elements; of NF4 that of bytes.
constexpr DType dtype_of(WeightFormat format) {
    if (is_nf4(format)) return DType::U8;
    return format == WeightFormat::BF16 ? DType::BF16 : DType::F32;
}

/// fp32 or bf16 as a format of weights.
constexpr WeightFormat plain_format(DType dtype) {
    return dtype == DType::BF16 ? WeightFormat::BF16 : WeightFormat::F32;
}

/// The name used in options, files and messages.
constexpr std::string_view name_of(WeightFormat format) {
    switch (format) {
        case WeightFormat::F32: return "fp32";
        case WeightFormat::BF16: return "bf16";
        case WeightFormat::Nf4: return "nf4";
        case WeightFormat::Nf4Double: return "nf4-double";
    }
    return "?";
}

constexpr std::optional<WeightFormat> find_weight_format(std::string_view name) {
    for (const WeightFormat format :
         {WeightFormat::F32, WeightFormat::BF16, WeightFormat::Nf4, WeightFormat::Nf4Double}) {
        if (name_of(format) == name) return format;
    }
    return std::nullopt;
}

}  // namespace llmc
