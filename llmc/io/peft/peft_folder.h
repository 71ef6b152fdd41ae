// Low-rank adapters in folders as PEFT writes them: adapter_config.json beside adapter_model.safetensors. Tensors are
// named after the modules of the Hugging Face model: "base_model.model." + module + ".lora_A.weight" (rank, in),
// ".lora_B.weight" (out, rank); with DoRA ".lora_magnitude_vector" (out); biases and modules that were trained whole
// stand beside them under their own names.
#pragma once

#include "llmc/io/hf_names.h"
#include "llmc/io/peft/peft_config.h"
#include "llmc/io/safetensors.h"
#include "llmc/io/weights.h"

#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace llmc {

/// Whether the folder has an adapter_config.json.
bool is_peft_folder(const std::string& folder);

/// An open folder, matched with the model it is for.
class PeftFolder {
  public:
    /// Every tensor must belong to a module of the model and have its shape, and every module that the configuration
    /// names must have its tensors; anything else is an Error that lists what does not fit.
    PeftFolder(const std::string& folder, const Model& base);

    const PeftConfig& config() const { return config_; }
    const std::string& folder() const { return folder_; }

    /// The adapters as a training run has them: an Error where layers differ, or where they are weight-decomposed.
    LoraSpec spec() const;
    /// Rows of the base that the folder has anew, whole or in part: biases, and modules that were trained whole.
    std::vector<int> replaced() const;

    /// Row `name` of with_lora(base, spec()).
    void read_adapter(const std::string& name, std::span<float> out) const;
    /// Puts what the folder has anew into the values (used_rows, cols) of a row of the base.
    void replace(int parameter, std::span<float> values) const;
    /// The same, and adds scale * B A, of weight-decomposed ones as they say; in fp32.
    void merge(int parameter, std::span<float> values) const;

  private:
    struct Factors {
        const SafetensorsView *a = nullptr, *b = nullptr, *magnitude = nullptr;
    };
    const SafetensorsView* take(std::map<std::string, const SafetensorsView*>* tensors, const std::string& name,
                                const std::vector<int64_t>& shape) const;
    void match(const Model& base);

    std::string folder_;
    PeftConfig config_;
    std::optional<SafetensorsFile> file_;
    std::vector<ParameterRow> rows_;             ///< Of the base.
    std::vector<HfPart> parts_;                  ///< Of the base.
    std::vector<Factors> factors_;               ///< By part.
    std::vector<const SafetensorsView*> whole_;  ///< By part: what the folder has anew.
    int first_layer_parameter_ = 0, parameters_per_layer_ = 0;
    int64_t layers_ = 0;
};

/// The weights of a model with an adapter merged into them.
std::unique_ptr<WeightSource> merged(std::unique_ptr<WeightSource> base, const std::string& folder);

/// "model.layers.0.self_attn.q_proj": the module whose weight or bias a part is.
std::string module_of(const HfPart& part);

}  // namespace llmc
