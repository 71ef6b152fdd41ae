// Files of data: text, JSON Lines, token files, packed ones, and those that are refused.
#pragma once

#include "tests/fuzz/targets.h"

#include <vector>

namespace llmc {

std::vector<FuzzTarget> data_targets();

}  // namespace llmc
