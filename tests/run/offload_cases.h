// What tests of whole trainings with state in host memory share between devices.
#pragma once

#include "tests/run/formats_cases.h"

#include <string>
#include <vector>

namespace llmc {

/// Three layers, so that some boundary leaves the device; two micro-batches, so that kept gradients come back.
inline TeamRun offload_run(Family family, DType dtype) {
    TeamRun run = formats_run(family, dtype, {});
    run.config.L = 4, run.config.C = 48, run.config.NH = 4, run.config.HD = 12;
    run.config.NKV = family == Family::Gpt2 ? 4 : 2;
    run.config.F = family == Family::Gpt2 ? 192 : 136;
    run.steps = 2;
    return run;
}

/// One row each of what may be moved, some together, and all.
inline const std::vector<std::string> kOffloads = {"moments",
                                                   "masters",
                                                   "gradients",
                                                   "parameters",
                                                   "boundaries",
                                                   "moments,masters",
                                                   "moments,gradients,boundaries",
                                                   "masters,parameters",
                                                   "all"};

inline std::string words(const TeamRun& run) {
    return fmt::format("{}, --offload={} --zero={} --recompute={}, {} ranks, {} micro-batches{}{}{}{}",
                       name_of(run.dtype), run.offload, run.zero, run.policy, run.parallel.ranks,
                       run.parallel.micro_batches, run.parallel.rank_invariant ? ", rank-invariant" : "",
                       run.freeze.empty() ? "" : ", --freeze=", run.freeze,
                       run.update_ahead == 0 ? "" : fmt::format(", delayed, {} ahead", run.update_ahead));
}

}  // namespace llmc
