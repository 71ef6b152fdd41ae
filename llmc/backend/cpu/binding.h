// Whether somebody has bound processes to some of the cores that they could have: a launcher does that (mpirun with one
// or two ranks gives each of them one core), and a computation with threads is then slow without a word.
#pragma once

#include <vector>

namespace llmc::cpu {

/// The processors this process could run on if nobody had bound it: all that its control group (container, batch job)
/// has. Those it may run on where the system does not tell.
std::vector<int> processors_if_unbound();

}  // namespace llmc::cpu
