// Sizes and times as advice has them: sizes so that they can be typed.
#pragma once

#include <cstdint>
#include <string>

namespace llmc {

/// A size as an option takes it, to the byte: "24GiB", "23540MiB", "1500B".
std::string size_option(int64_t bytes);
/// The same of one that is no less, for advice: rounded up to MiB from 64 MiB, to KiB below.
std::string size_option_from(int64_t bytes);

/// Of a number that is none, the multiples of `of` (1 or more) below and above: "960 or 1024"; "64" below the least.
std::string nearest_multiples(int64_t number, int64_t of);

/// Of a step: "412 ms"; from 10 s "4413 s".
std::string format_step_seconds(double seconds);

}  // namespace llmc
