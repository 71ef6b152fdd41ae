// Learning-rate schedules: linear warm-up, then cosine, linear, constant, or WSD (warm-up, stable, decay; Hu et al.
// 2024). A pure function of the update's number, so a resumed run needs no state.
#pragma once

#include <cstdint>
#include <string>

namespace llmc {

struct Schedule {
    std::string shape = "cosine";  ///< "cosine", "linear", "constant", "wsd".
    double peak = 0;
    double final_fraction = 0;    ///< Of the peak, at the last update.
    int64_t warmup = 0;           ///< Updates; the last of them runs at the peak.
    int64_t steps = 0;            ///< All updates.
    double decay_fraction = 0.2;  ///< wsd: share of all updates that decay, linearly.
    bool operator==(const Schedule&) const = default;
};

/// The learning rate of update `step`, counted from 0.
double learning_rate(const Schedule& schedule, int64_t step);

}  // namespace llmc
