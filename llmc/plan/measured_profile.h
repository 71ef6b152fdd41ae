// From measured times back to the rates of a device: what a profile of it says, for plans of other models and shapes.
#pragma once

#include "llmc/plan/cost.h"

namespace llmc {

/// `assumed` with the rates that the times of one model at one shape show: of matrix products (those of the other type
/// in the same proportion), of attention, and of memory by the update. What is shown by nothing stays.
DeviceProfile measured_profile(DeviceProfile assumed, const Model& model, const BatchShape& shape, const Places& places,
                               const OpTimes& times);

}  // namespace llmc
