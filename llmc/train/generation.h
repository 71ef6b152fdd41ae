// Text generation: a forward-only plan with a key/value cache, one sequence at a time.
#pragma once

#include "llmc/io/tokenizer.h"
#include "llmc/run/executor.h"
#include "llmc/train/sampler.h"

#include <functional>
#include <memory>
#include <span>
#include <vector>

namespace llmc {

/// A generation plan with its layout, and how many bytes of arena it wants.
struct GenerationPlan {
    Plan plan;
    Layout layout;
    int64_t context = 0;  ///< Positions of the key/value cache.
};

/// For a context of up to `context` tokens; prompts are read kPrefillTokens at a time.
GenerationPlan plan_generation(const Model& model, const Places& places, int64_t context, const Backend& backend,
                               const Parallel& parallel = {});

/// The longest context, at most `wanted`, whose plan fits in `arena_bytes`; 0 if none does. With it, sampling during
/// training uses the trainer's arena and costs no memory.
int64_t fitting_context(const Model& model, const Places& places, int64_t wanted, int64_t arena_bytes,
                        const Backend& backend, const Parallel& parallel = {});

class TextGenerator {
  public:
    /// `state` owns the arena, which must hold generation.layout.arena_bytes.
    /// Where the parameters are sharded over the ranks of `comm`, all must generate the same text together.
    TextGenerator(State& state, GenerationPlan generation, Comm* comm = nullptr);

    /// From now on only tokens that have a text in `tokenizer` are drawn: the vocabulary of a model may be padded, or
    /// larger than that of its tokenizer. Where only ids are known (vocab_size() is 0), all are.
    void draw_only_tokens_of(const Tokenizer& tokenizer);

    /// Feeds `prompt` (at least one token), then draws `length` tokens, handing each to `emit` at once, until `ends` is
    /// true of one, which is the last. `text` numbers the sample. When the context is full, its newer half becomes the
    /// prompt of a fresh one. An Error if the model's output is no number.
    void generate(
        std::span<const int32_t> prompt, int64_t length, const SamplerSettings& settings, uint32_t text,
        const std::function<void(int32_t token)>& emit,
        const std::function<bool(int32_t token)>& ends = [](int32_t) { return false; });

  private:
    void feed(std::span<const int32_t> tokens);
    void read_logits();

    State& state_;
    Comm* comm_;
    GenerationPlan generation_;
    Executor executor_;
    int64_t position_ = 0;
    std::vector<float> logits_;
    std::vector<int32_t> without_text_;  ///< Tokens that are never drawn.
};

}  // namespace llmc
