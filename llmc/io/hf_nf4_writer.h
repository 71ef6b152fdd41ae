// model.safetensors with its matrices in NF4, as transformers and bitsandbytes write it: what a model's linear layers
// hold, but its head, is quantised; embeddings, norms, biases and the head are plain.
#pragma once

#include "llmc/base/dtype.h"
#include "llmc/io/bitsandbytes.h"
#include "llmc/io/weights.h"

#include <string>

namespace llmc {

/// Values are rounded to `dtype`, and quantised then. They must be finite. A matrix is read and quantised twice, so
/// that the model need not be in memory: the header has to know what comes of it.
void write_nf4_tensors(const std::string& path, const WeightSource& weights, MatrixFormat format, DType dtype);

}  // namespace llmc
