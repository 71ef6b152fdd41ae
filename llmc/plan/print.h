// A plan as text: the list of steps a person can follow, and golden files can hold.
#pragma once

#include "llmc/plan/layout.h"

#include <string>

namespace llmc {

/// One line per step: number, phase, layer, operation, operands (with the offsets in the arena if `layout` is given),
/// bytes live.
std::string print_steps(const Model& model, const Plan& plan, const Layout* layout);

/// "124 forward, 41 repeated, 210 backward": counts of operations by phase; copies and communication, each with its
/// wait, apart.
std::string summarise_steps(const Plan& plan);

}  // namespace llmc
