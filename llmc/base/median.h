// The median, for times that a busy machine stretches now and then.
#pragma once

#include <vector>

namespace llmc {

/// Of an odd number of values the middle one, of an even number the upper of the two; there must be at least one.
double median(std::vector<double> values);

}  // namespace llmc
