// What is tested at length: `make test` takes some of the cases, `make test-long` all (tests/long/all_cases.sh).
#pragma once

#include <cstdlib>

namespace llmc {

/// Whether all cases are asked for, by LLMC_LONG_TESTS in the environment.
inline bool long_tests() { return std::getenv("LLMC_LONG_TESTS") != nullptr; }

}  // namespace llmc
