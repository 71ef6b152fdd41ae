// Scoring: how well a model that is not being trained predicts given tokens. A forward-only plan gives the loss of
// every token; rows and batches are padded with targets that are ignored, so the batch size changes nothing but the
// speed.
#pragma once

#include "llmc/io/hellaswag.h"
#include "llmc/io/token_source.h"
#include "llmc/io/tokenizer.h"
#include "llmc/run/executor.h"

#include <span>
#include <vector>

namespace llmc {

struct ScoringPlan {
    Plan plan;
    Layout layout;
};

/// The evaluation plan for batches of that shape.
ScoringPlan plan_scoring(const Model& model, const BatchShape& shape, DType dtype, const Backend& backend);

class Scorer {
  public:
    /// `state` owns the arena, which must hold plan.layout.arena_bytes.
    Scorer(State& state, ScoringPlan plan);

    const BatchShape& shape() const { return plan_.plan.shape; }
    int64_t vocab_size() const { return state_.model().config.V; }

    /// The losses (B*T) of `targets` after `tokens`, both (B*T); 0 where the target is negative. Valid until the next
    /// call.
    std::span<const float> losses(std::span<const int32_t> tokens, std::span<const int32_t> targets);

  private:
    State& state_;
    ScoringPlan plan_;
    Executor executor_;
    std::vector<float> losses_;
};

struct TextScore {
    double nats = 0;     ///< Sum of the losses.
    int64_t tokens = 0;  ///< Tokens predicted: all but the first.
    int64_t bytes = 0;   ///< Of the text those stand for; 0 where the tokenizer is unknown.
    double loss() const { return nats / static_cast<double>(tokens); }
    double perplexity() const;
    double bits_per_token() const;
    double bits_per_byte() const;
};

/// Predicts every token but the first from those before it in windows of T tokens that do not overlap. At least two
/// tokens; one outside the vocabulary is an Error that names its place and `option`.
TextScore score_text(Scorer& scorer, const TokenRange& range, const Tokenizer& tokenizer, const std::string& option);

struct HellaswagScore {
    int64_t correct = 0;
    int64_t examples = 0;
    double accuracy() const { return static_cast<double>(correct) / static_cast<double>(examples); }
};

/// Tokens of the longest row that score_hellaswag() makes: what the scorer's T must be at least.
int64_t longest_row(std::span<const HellaswagExample> examples);

/// The model chooses the ending whose tokens have the lowest mean loss after the context.
HellaswagScore score_hellaswag(Scorer& scorer, std::span<const HellaswagExample> examples);

}  // namespace llmc
