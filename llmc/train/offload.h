// --offload: which rows of the table of places are in host memory.
#pragma once

#include "llmc/plan/places.h"
#include "llmc/train/options.h"

#include <string>
#include <vector>

namespace llmc {

/// What --offload names, in the order in which it is best moved: "moments", "masters", ...
const std::vector<std::string>& offloadable();

/// The table with what the list names in host memory: names with commas between them, or "all", or "none"; "auto", as
/// long as nothing is chosen, is nothing. Frozen parameters are parameters. Fails (exit code 2) on an unknown name, or
/// a list that contradicts itself.
Places with_offload(Places places, const std::string& list);

/// What of it is in host memory, as --offload takes it: "moments,masters"; "none" if nothing.
std::string offload_of(const Places& places);

/// --offload=auto: choose_plan() takes the fastest placement that fits.
bool places_by_itself(const Options& options);

/// Fails where --offload and --recompute contradict each other.
void validate_offload(const Options& options);

}  // namespace llmc
