// Whether every id of the data is in the model's vocabulary, found out before the first step rather than when the
// loader comes to it.
#pragma once

#include "llmc/comm/comm.h"
#include "llmc/train/options.h"
#include "llmc/train/setup.h"

#include <cstdint>
#include <string>

namespace llmc {

/// An Error that names `option`, file, position and id if a token file has an id of `V` or more. `remedy` is what it
/// says to do. Nothing with --no-scan.
void require_ids_below(int64_t V, const TokenSource& source, const std::string& option, const std::string& remedy,
                       const Options& options);

/// The same for training and validation data, by rank 0 for all. `is_new`: the model's vocabulary can still be chosen.
void check_data(const Options& options, const Data& data, int64_t V, bool is_new, Comm& comm);

}  // namespace llmc
