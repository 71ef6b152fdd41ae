// Cores that a launcher has kept from the ranks.
#pragma once

#include "llmc/comm/comm.h"

#include <string>
#include <vector>

namespace llmc {

/// What to tell the user where the launcher has bound the ranks of a host to fewer cores than they could have, with the
/// option that gives them all; "" where none are idle, on ranks but the first, and without a launcher. `places` has
/// place_of_rank() of every rank; all ranks make this call.
std::string warning_of_binding(const std::vector<std::string>& places, Comm& comm);

/// This rank's host and the processors it may run on: equal for ranks that share them.
std::string place_of_rank(const Comm& comm);

}  // namespace llmc
