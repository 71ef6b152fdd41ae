// What tests of whole trainings in other formats share between devices.
#pragma once

#include "tests/run/rank_team.h"

#include <string>
#include <vector>

namespace llmc {

/// Wide enough that most rows are kept in 8-bit blocks, some with a short last one; the others are small.
inline TeamRun formats_run(Family family, DType dtype, const StateFormats& formats) {
    TeamRun run;
    run.config = preset(family == Family::Gpt2 ? "gpt2-nano" : "llama-nano");
    run.config.L = 2, run.config.C = 72, run.config.NH = 2, run.config.HD = 36, run.config.V = 97;
    run.config.NKV = family == Family::Gpt2 ? 2 : 1;
    run.config.F = family == Family::Gpt2 ? 288 : 184;
    run.config.maxT = 16;
    run.dtype = dtype, run.formats = formats;
    run.parallel.micro_batches = 2;
    return run;
}

inline std::string words(DType dtype, const StateFormats& formats) {
    const std::string state = describe(formats);
    return fmt::format("{}{}{}", name_of(dtype), state.empty() ? "" : ", ", state);
}

/// Every combination there is but all fp32, with the type of the parameters.
inline std::vector<std::pair<DType, StateFormats>> all_state_formats() {
    std::vector<std::pair<DType, StateFormats>> all;
    for (const auto& [dtype, masters] :
         {std::pair(DType::F32, true), std::pair(DType::BF16, true), std::pair(DType::BF16, false)})
        for (const DType moments : {DType::F32, DType::BF16, DType::U8})
            for (const DType gradients : {DType::F32, DType::BF16}) {
                const StateFormats formats = {moments, masters, gradients};
                if (formats != StateFormats()) all.emplace_back(dtype, formats);
            }
    return all;
}

inline void expect_same_training(const TeamResult& ours, const TeamResult& expected, const std::string& what) {
    EXPECT_EQ(ours.losses, expected.losses) << what;
    EXPECT_EQ(ours.norms, expected.norms) << what;
    EXPECT_EQ(ours.weights, expected.weights) << what;
}

}  // namespace llmc
