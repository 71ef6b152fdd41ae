// How a run comes to its arithmetic (base/arithmetic.h): what its checkpoint says, what options ask for, and what the
// devices of all ranks can do. Backends are told here, in one place, for every command.
#pragma once

#include "llmc/backend/backend.h"
#include "llmc/comm/comm.h"
#include "llmc/io/checkpoint.h"
#include "llmc/model/config.h"
#include "llmc/train/options.h"

#include <nlohmann/json_fwd.hpp>

#include <string>

namespace llmc {

/// What was not typed becomes what the checkpoint says, where that is about this kind of device. CPU products that this
/// processor cannot form are left open again. An imported model has no arithmetic yet.
void keep_arithmetic(Options& options, const Checkpoint& checkpoint);

/// Decides what is left open, alike on all ranks, which all call it, tells the backend, and puts it into the options.
/// Kernels for compute capability 9.0 are taken where the model has heads for them, every rank can run them, and they
/// agree with the portable ones on every rank; a warning says where they do not. --kernels=hopper, typed or a
/// checkpoint's, is an Error (exit code 2) where they are not taken.
void settle_arithmetic(Options& options, const ModelConfig& config, DType dtype, Backend& backend, Comm& comm);

/// The same for commands of one process, whose options are not written down.
void settle_arithmetic(const Options& options, const ModelConfig& config, DType dtype, Backend& backend);

/// Why the device that `plan` is for has no kernels for compute capability 9.0; "" if it has.
std::string objection_to_planned_hopper(const Options& options, const Backend& backend);
/// For `plan`: what a run with these options would take on this device, without running anything.
void assume_arithmetic(const Options& options, Backend& backend);

/// In words, as the banner has it.
std::string describe(const Arithmetic& arithmetic);
/// Why attention cannot be on Hopper's kernels whatever the card; "" if it can.
std::string why_portable(DType dtype, const ModelConfig& config);
/// Whether a run that goes on computes in another way than before. What is about another kind of device does not count.
bool changes(const Arithmetic& before, const Arithmetic& now);
/// What a run that goes on is known by: now, and what was noted before of the other kind of device, to which it may
/// return. Hopper's kernels are left for a CPU by --kernels=portable alone, which is noted then.
Arithmetic noted(const Arithmetic& before, const Arithmetic& now);

nlohmann::json to_json(const Arithmetic& arithmetic);
/// What the state of a checkpoint says of it. Old ones say less: on CPUs all products were the library's at first, and
/// GPUs had the portable kernels alone.
Arithmetic arithmetic_in(const nlohmann::json& state);

}  // namespace llmc
