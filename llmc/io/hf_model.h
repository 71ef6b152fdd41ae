// Models in Hugging Face folders: config.json beside model.safetensors, or beside shards that
// model.safetensors.index.json lists. Names and layouts are translated by hf_names.h, configurations by hf_config.h.
// Layout: https://huggingface.co/docs/transformers/big_models
#pragma once

#include "llmc/base/dtype.h"
#include "llmc/io/bitsandbytes.h"
#include "llmc/io/hf_names.h"
#include "llmc/io/safetensors.h"
#include "llmc/io/weights.h"

#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace llmc {

/// Whether the folder has a config.json.
bool is_hf_folder(const std::string& folder);

/// The configuration in the folder's config.json, named after the folder. The weights need not be there.
ModelConfig read_hf_config(const std::string& folder);

/// How the folder's matrices are stored, by its config.json.
MatrixFormat read_matrix_format(const std::string& folder);

/// An open folder, its tensors memory-mapped and converted to fp32, or dequantised, when they are read.
class HfModel final : public WeightSource {
  public:
    /// Every tensor of the model must be there with its shape, as F32, F16 or BF16, or as bitsandbytes.h says where
    /// config.json does, and every tensor that is there must belong to the model or be a known buffer. Anything else is
    /// an Error that lists them.
    explicit HfModel(const std::string& folder);

    void read(int parameter, std::span<float> out) const override;
    std::optional<WeightFormat> nf4_format() const override;
    std::optional<Nf4Tensor> nf4_part(int parameter, int64_t first_row) const override;
    std::string describe() const override;
    std::string tokenizer() const override;
    std::string tokenizer_folder() const override { return folder_; }

  private:
    using Tensors = std::map<std::string, FoundTensor>;  ///< By their names in the model, wrappers left out.
    /// Where a part's elements are: in one tensor, or in several that bitsandbytes made of it.
    struct Source {
        const SafetensorsView* plain = nullptr;
        std::optional<QuantisedTensor> quantised;
        bool transposed = false;
    };
    Tensors all_tensors() const;
    void match();
    Source source_of(const HfPart& part, const FoundTensor& found, Tensors* tensors) const;
    bool is_copy_of_embedding(const SafetensorsView& head) const;

    std::string folder_;
    MatrixFormat format_;
    std::vector<SafetensorsFile> files_;
    std::vector<HfPart> parts_;
    std::vector<Source> sources_;  ///< Of every part.
};

/// Writes config.json and model.safetensors into a folder that exists. `token_ids` as for to_hf_config(). With a format
/// other than Plain the matrices are quantised (hf_nf4_writer.h).
void write_hf_model(const std::string& folder, const WeightSource& weights, DType dtype, const std::string& token_ids,
                    MatrixFormat format = MatrixFormat::Plain);

}  // namespace llmc
