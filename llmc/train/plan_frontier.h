// `train_gpt plan --frontier`: what every budget buys, and what auto gains over each fixed level in its own memory.
#pragma once

#include "llmc/backend/backend.h"
#include "llmc/model/model.h"
#include "llmc/train/options.h"

#include <string>

namespace llmc {

/// Tables for people, or one JSON object with --json; draws the picture where --plot asks for it.
std::string frontier_report(const Options& options, const Model& model, Backend& backend);

}  // namespace llmc
