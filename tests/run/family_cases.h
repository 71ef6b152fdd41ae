// Families and types that tests of whole trainings go through.
#pragma once

#include "llmc/base/dtype.h"
#include "llmc/model/family.h"

#include <gtest/gtest.h>

#include <string>

namespace llmc {

struct FamilyCase {
    Family family;
    DType dtype;
};

inline auto family_cases() {
    return testing::Values(FamilyCase{Family::Gpt2, DType::F32}, FamilyCase{Family::Gpt2, DType::BF16},
                           FamilyCase{Family::Llama, DType::F32}, FamilyCase{Family::Llama, DType::BF16},
                           FamilyCase{Family::Qwen3, DType::F32});
}

inline std::string family_case_name(const testing::TestParamInfo<FamilyCase>& info) {
    return std::string(row_of(info.param.family).key) + (info.param.dtype == DType::F32 ? "_fp32" : "_bf16");
}

}  // namespace llmc
