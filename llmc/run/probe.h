// A probe of the device: its operations on a few tokens, some 50 ms, before anything is predicted. It needs no more
// memory than some megabytes, or than a run's parameters and optimiser would, and gives it back.
#pragma once

#include "llmc/backend/backend.h"
#include "llmc/plan/probed_times.h"

#include <optional>

namespace llmc {

/// Rates of the operations that `model` has, with activations and parameters of this format. Nothing where there is no
/// memory for it. Every operation runs at least twice, and more often until `seconds` are over; the fastest run counts,
/// which is the one that others disturbed least.
std::optional<ProbedRates> probe(const Model& model, DType dtype, OptimizerKind optimizer, Backend& backend,
                                 double seconds = 0.05);

/// probe() of this model on this backend, asked once by a process; null where there is no memory for it.
const ProbedRates* probe_once(const Model& model, const Places& places, Backend& backend);

}  // namespace llmc
