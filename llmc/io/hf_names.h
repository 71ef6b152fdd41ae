// Hugging Face's names of our parameters. Rows of our tables are whole projections in (out, in); theirs may be parts of
// one (q_proj, k_proj, v_proj) or transposed (GPT-2's Conv1D). Reading and writing walk the same list of parts.
#pragma once

#include "llmc/model/model.h"

#include <string>
#include <string_view>
#include <vector>

namespace llmc {

/// A tensor of a Hugging Face file: rows [first_row, first_row + rows) of one of our parameters.
struct HfPart {
    std::string name;  ///< With its prefix: "transformer.h.0.ln_1.weight", "model.layers.3.self_attn.q_proj.weight".
    int parameter = kNone;
    int64_t first_row = 0;
    int64_t rows = 0;         ///< Padding rows of the vocabulary are in no file.
    bool transposed = false;  ///< Stored (in, out).
    std::vector<int64_t> shape(const Model& model) const;
};

/// All tensors of a model's file, in the order of our parameters.
std::vector<HfPart> hf_parts(const Model& model);

/// "transformer." or "model.": files saved without the head leave it out.
std::string_view hf_prefix(Family family);

/// The name without what wrappers of modules put into it: torch.compile "_orig_mod.", DistributedDataParallel
/// "module.", FSDP and activation checkpointing theirs.
std::string unwrapped_hf_name(std::string_view name);

/// Whether it is a buffer that older versions of transformers wrote beside the parameters: masks, rotary frequencies.
bool is_hf_buffer(std::string_view name);

/// The head's own name. A file of a tied model may hold it as a second copy of the embedding.
constexpr std::string_view kHfHead = "lm_head.weight";

}  // namespace llmc
