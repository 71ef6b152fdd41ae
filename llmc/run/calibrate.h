// Measured operation times: a layer of the actual model at the actual shape on the actual device, every step timed.
#pragma once

#include "llmc/plan/cost.h"
#include "llmc/run/executor.h"

#include <string>

namespace llmc {

/// Runs a copy of the model with three layers `repeats` times and takes the median of each step's times. Allocates what
/// that needs while it runs (with one layer, where three do not fit). Some seconds for models that take seconds per
/// step.
OpTimes measure_times(const Model& model, const BatchShape& shape, const Places& places, int64_t logits_chunk_tokens,
                      Backend& backend, bool fuses = true, int repeats = 5);

/// The cache of measured times: one JSON file per device, model and shape in cache_folder(); "" where there is none.
std::string calibration_path(const Model& model, const BatchShape& shape, const Places& places,
                             int64_t logits_chunk_tokens, const Backend& backend, bool fuses = true);
/// Times as JSON and back. What is no such text, or of another model, is a std::exception.
std::string to_json(const OpTimes& times);
OpTimes times_of_json(const std::string& text, const Model& model);

/// False if there is no such file. A file that is damaged or of another program version is ignored with a warning.
bool load_times(const std::string& path, const Model& model, OpTimes* times);
/// True once they are kept; a cache that cannot be written is a warning.
bool save_times(const std::string& path, const OpTimes& times);

}  // namespace llmc
