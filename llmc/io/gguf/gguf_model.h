// A model as a GGUF file, which llama.cpp's programs run: weights, vocabulary, metadata. Read next:
// gguf_architecture.h, gguf_vocabulary.h.
#pragma once

#include "llmc/io/gguf/gguf_type.h"
#include "llmc/io/gguf/gguf_vocabulary.h"
#include "llmc/io/weights.h"

#include <string>

namespace llmc {

/// Writes the file `path`. Matrices are of `type`; vectors, and learned positions, fp32; a matrix whose columns are no
/// whole blocks of the type is f16, which the log says. Vocabulary rows beyond the tokenizer's are in the file. An
/// Error (exit code 2) if there is no architecture for the model; one that names the tensor if the type cannot hold a
/// value; one that names `path` if the disk has too little room, before anything is written.
void write_gguf_model(const std::string& path, const WeightSource& weights, GgufType type,
                      const GgufVocabulary& vocabulary);

}  // namespace llmc
