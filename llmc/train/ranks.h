// What the ranks of a run agree on before the first step, and what each of them gets of its host: a GPU of its own, a
// share of the cores and of the memory. With one rank all of it is nothing.
#pragma once

#include "llmc/comm/comm.h"
#include "llmc/train/choose_plan.h"
#include "llmc/train/options.h"
#include "llmc/train/setup.h"

#include <string>

namespace llmc {

CommSettings comm_settings(const Options& options);

/// Tells the other ranks that this one's command line is wrong, where it may train and they can be reached.
void tell_ranks_of_bad_usage(int argc, const char* const* argv, const Error& error) noexcept;

/// Warns where several processes were started for a command that is the work of one.
void warn_of_others_at_work();

/// Fills in Options::ranks, and device and threads where they were left open; ranks but the first fall silent. More
/// ranks than GPUs on a host, or ranks on devices of different kinds, are refused.
void place_rank(Options& options, Comm& comm);

/// Refuses batches that do not divide among the ranks, and rank counts that an option cannot have.
void require_divisible(const Options& options);

/// Fails on every rank if one was started with other options, another model, other data or another checkpoint; says
/// which and where.
void require_same_run_everywhere(const Options& options, const Model& model, const Data& data,
                                 const std::string& begins_with, Comm& comm);

/// Sets Options::memory_share to the least that any rank has; on a CPU the ranks of a host share its memory. The
/// transport is open, and gets what it wants first.
void share_memory(Options& options, Backend& backend, Comm& comm);

/// Why the ranks cannot all do something, where each says why it cannot, or "": what the first of them says, and which
/// it is; "" if all can.
std::string first_objection(const std::string& mine, Comm& comm);

/// Fails where rank 0's run folder is not to be seen: every rank writes its part of the checkpoints there.
void require_shared_folder(const std::string& run_folder);

/// choose_plan() on rank 0, whose choice all follow. Where the devices of other ranks do not run the same operations as
/// one, none do: options.no_fuse is set.
ChosenPlan agree_on_plan(Options& options, const Model& model, Backend& backend, Comm& comm);

/// Checksum of the parameters, the same for any number of ranks and any ZeRO stage; fails, naming the ranks, if they
/// differ. Between steps only: it may use the arena.
std::string common_checksum(State& state, Comm& comm);

}  // namespace llmc
