// A trained model with all that generation needs, on a device: what `generate` draws texts and answers from.
#pragma once

#include "llmc/backend/make_backend.h"
#include "llmc/io/tokenizer.h"
#include "llmc/io/weights.h"
#include "llmc/run/state.h"
#include "llmc/train/generation.h"
#include "llmc/train/options.h"

#include <cstdint>
#include <memory>
#include <optional>

namespace llmc {

class GeneratingModel {
  public:
    /// Loads the weights for a context of up to `context` tokens, and says what was loaded. Only tokens that have a
    /// text in `tokenizer` are drawn.
    GeneratingModel(const Options& options, const WeightSource& weights, const Tokenizer& tokenizer, int64_t context);
    TextGenerator& generator() { return *generator_; }
    int64_t context() const { return context_; }

  private:
    std::unique_ptr<Backend> backend_;
    std::optional<State> state_;
    std::optional<TextGenerator> generator_;
    int64_t context_;
};

/// How the options say that tokens are drawn.
SamplerSettings sampler_settings(const Options& options);

}  // namespace llmc
