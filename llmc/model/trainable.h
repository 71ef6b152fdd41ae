// Which parameter rows train and which are frozen, and what follows for the backward: where gradients have to reach.
// Frozen rows have no gradient, no moments and no weight-gradient step, and nothing before the first trainable row has
// a backward at all. (Fine-tuning some layers, biases alone (Ben Zaken et al. 2022, "BitFit"), or norms alone.)
#pragma once

#include "llmc/model/model.h"

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace llmc {

/// "These rows train", or "these are frozen". `glob` is matched against names of parameter rows ("wte",
/// "layers.3.qkv_weight"): `*` stands for any characters, `?` for one, `[a-c]` and `[!a-c]` for one of a set, and
/// `6-11` for a number from 6 to 11.
struct TrainablePattern {
    bool trainable = true;
    std::string glob;
    bool operator==(const TrainablePattern&) const = default;
};

/// Patterns separated by commas; one with "!" in front says the opposite of `trainable`. Fails (exit code 2), naming
/// the option, where one is empty or a bracket is not closed.
std::vector<TrainablePattern> parse_patterns(const std::string& option, std::string_view text, bool trainable);
/// The text that parse_patterns() reads as these, with trainable = false: "layers.*,!layers.*.ln1_weight".
std::string text_of(std::span<const TrainablePattern> patterns);

/// The whole of `name` matches.
bool matches(std::string_view glob, std::string_view name);

/// The table with trainable and frozen rows, as the patterns say: of those that match a row, the one with the most
/// literal characters, and among equals the last; without any, the row trains. Fails (exit code 2) with the names there
/// are where a pattern matches none, and where everything is frozen.
Model with_trainable(Model model, std::span<const TrainablePattern> patterns);

/// The model with another number of layers (config.h), for measuring what a layer costs: a row of a layer trains where
/// it does in any layer that has a backward.
Model with_layers(const Model& model, int64_t layers);

/// "85,054,464 of 124,439,808 parameters (68.4 %), from layer 0 up".
std::string describe_trainable(const Model& model);

/// Names of the rows, those of layers once: "wte, wpe, layers.*.ln1_weight, ..., lnf_weight".
std::string row_names(const Model& model);

/// Where the backward has to bring gradients: to every activation that a trainable parameter lies before.
class GradientPath {
  public:
    explicit GradientPath(const Model& model);

    /// The gradient of a layer's input is wanted; of layer L's, that of the last layer's output.
    bool reaches(int layer) const { return layer > first_; }
    /// The gradient of an activation of a layer is wanted.
    bool reaches(int layer, int slot) const;
    /// The lowest layer with a backward; L if none has.
    int lowest_layer() const { return first_ < 0 ? 0 : first_; }

  private:
    const Model& model_;
    int first_;  ///< The layer of the first trainable row; -1: the embedding, L: what follows the layers.
    std::vector<bool> wanted_;  ///< By slot of layer first_.
};

}  // namespace llmc
