// Architectures of GGUF files, as llama.cpp's programs know them: a table of tensor names for each, and the metadata
// that describes a model. A model gets the first architecture that computes what it does and has a place for each of
// its parameters; what none can say is refused by name.
// Names and keys: https://github.com/ggml-org/llama.cpp, gguf-py/gguf/constants.py and src/llama-arch.cpp.
#pragma once

#include "llmc/io/gguf/gguf_file.h"
#include "llmc/model/model.h"

#include <cstdint>
#include <string>
#include <vector>

namespace llmc {

/// Which rows of one of our parameters each of its names gets.
enum class GgufSplit : uint8_t { Whole, QueryKeyValue, Halves };

struct GgufNameRow {
    const char* ours;
    std::vector<const char*> theirs;
    GgufSplit split = GgufSplit::Whole;
    bool always_f32 = false;  ///< A matrix that stays fp32, as vectors do.
};

struct GgufArchitecture {
    const char* name;                    ///< general.architecture, and the beginning of its keys.
    bool (*computes)(const Model&);      ///< Whether its programs compute this model, where they have its parameters.
    std::vector<const char*> must_have;  ///< Block parameters that a model must have.
    bool interleaves_rotary;             ///< A head's rotated channels are neighbours in pairs, not halves of the head.
    bool takes_rope_divisors;            ///< rope_freqs.weight: see gguf_rope.h.
    std::vector<GgufNameRow> model;      ///< Parameters outside the layers.
    std::vector<GgufNameRow> block;      ///< Of one layer; names without "blk.N.".
};

/// The architecture of a model. An Error (exit code 2) if there is none, which names what cannot be said.
const GgufArchitecture& gguf_architecture_of(const Model& model);

/// One tensor of a file: rows of one of our parameters.
struct GgufPart {
    std::string name;  ///< "token_embd.weight", "blk.3.attn_q.weight".
    int parameter = kNone;
    int64_t first_row = 0;
    int64_t rows = 0;              ///< Padding rows of the vocabulary are in no file.
    int64_t interleaved_head = 0;  ///< Rows of a head whose halves are interleaved; 0 for rows in our order.
    bool always_f32 = false;
    /// Where row `row` of the tensor comes from: a row of the parameter.
    int64_t source_row(int64_t row) const;
};

/// All tensors with parameters, in the order of our parameters.
std::vector<GgufPart> gguf_parts(const GgufArchitecture& architecture, const Model& model);

/// Keys of the architecture: sizes, norms, rotary embedding.
void add_model_metadata(const GgufArchitecture& architecture, const Model& model, GgufMetadata* metadata);

}  // namespace llmc
