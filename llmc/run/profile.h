// Where a micro-batch's time, and the update's after the last one, goes: every step of the plan timed by marks on the
// device, against what the operation computes and moves. As a table for people and as a trace for chrome://tracing or
// ui.perfetto.dev.
#pragma once

#include "llmc/backend/backend.h"
#include "llmc/model/model.h"
#include "llmc/plan/step.h"

#include <string>
#include <vector>

namespace llmc {

/// One kind of step, summed over layers.
struct ProfileRow {
    std::string name;  ///< "forward of qkv", "repeated ln1", "input gradient of fc".
    int count = 0;
    double seconds = 0;
    double flops = 0;
    double bytes = 0;  ///< Of the operands, each read or written once.
};

/// Rows by time, longest first. `seconds` are those of the plan's steps, from Executor::run(); attention's backward
/// counts with the products that the device runs (DeviceInfo).
std::vector<ProfileRow> profile_rows(const Model& model, const Plan& plan, const std::vector<double>& seconds,
                                     int attention_backward_products);

/// The table: time, share, GB/s, TFLOP/s, and the share of the roofline (Williams et al. 2009): the time the device's
/// peak rate or its bandwidth would take, whichever is longer, over the time taken; "n/a" where a peak is unknown.
std::string profile_table(const std::vector<ProfileRow>& rows, const DeviceInfo& device, DType dtype);

/// The steps one after the other in the Trace Event Format (JSON), microseconds.
std::string chrome_trace(const Model& model, const Plan& plan, const std::vector<double>& seconds);

}  // namespace llmc
