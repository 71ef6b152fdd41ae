// How tables and pictures call a policy and a model.
#pragma once

#include "llmc/model/model.h"

#include <string>

namespace llmc {

/// "1 layer", "  act": as in the first column of a table.
std::string level_label(const std::string& policy);

/// "gpt2-xl: GPT-2, 48 layers, ...; 1,557,611,200 parameters": the first line of a report.
std::string model_line(const Model& model);

}  // namespace llmc
