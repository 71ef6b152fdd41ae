// `train_gpt plan --what-fits=24GiB`: the largest batch and the longest sequence of every level in so much memory.
#pragma once

#include "llmc/backend/backend.h"
#include "llmc/model/model.h"
#include "llmc/train/options.h"

#include <string>

namespace llmc {

/// A table for people, or one JSON object with --json.
std::string what_fits_report(const Options& options, const Model& model, Backend& backend);

/// The same for every preset, trained in full and in part: a line each, as it comes.
std::string all_presets_report(const Options& options, Backend& backend);

}  // namespace llmc
