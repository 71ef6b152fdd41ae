#include "llmc/train/generate_command.h"

#include "llmc/backend/make_backend.h"
#include "llmc/base/error.h"
#include "llmc/base/log.h"
#include "llmc/base/units.h"
#include "llmc/io/tokenizer.h"
#include "llmc/train/checkpointing.h"
#include "llmc/train/generation.h"
#include "llmc/train/initial_weights.h"

#include <algorithm>
#include <cstdio>

namespace llmc {
namespace {

/// Context for a text of that many tokens: all of it where the model can, else the model's longest.
int64_t context_for(const ModelConfig& config, int64_t tokens) { return std::min(config.maxT, tokens); }

std::vector<int32_t> encode_prompt(const Tokenizer& tokenizer, const std::string& prompt, const ModelConfig& config) {
    std::vector<int32_t> tokens;
    if (tokenizer.end_of_text() >= 0) tokens.push_back(tokenizer.end_of_text());
    if (!prompt.empty()) {
        const std::vector<int32_t> words = tokenizer.encode(prompt);
        tokens.insert(tokens.end(), words.begin(), words.end());
    }
    if (tokens.empty()) tokens.push_back(0);
    for (const int32_t token : tokens) {
        if (token >= config.V) fail("--prompt: token {} is beyond the model's vocabulary of {}", token, config.V);
    }
    return tokens;
}

}  // namespace

void generate_command(const Options& options) {
    const std::unique_ptr<WeightSource> weights = trained_weights(options);
    const Model& model = weights->model();
    const std::unique_ptr<Tokenizer> tokenizer = tokenizer_for(options, *weights);
    const std::vector<int32_t> prompt = encode_prompt(*tokenizer, options.prompt, model.config);

    const std::unique_ptr<Backend> backend = make_backend(options.device, static_cast<int>(options.threads));
    const DType dtype = inference_dtype(*weights, *backend);
    const int64_t context = context_for(model.config, static_cast<int64_t>(prompt.size()) + options.length);
    GenerationPlan generation = plan_generation(model, dtype, context, *backend);
    State state(*backend, model, dtype, context, generation.layout.arena_bytes, /*training=*/false);
    load_weights(*weights, state);
    spdlog::info("{}; {} parameters, {}, {}", weights->describe(), format_count(model.parameter_count()),
                 name_of(dtype), format_bytes(state.allocated_bytes()));

    SamplerSettings settings = {options.temperature, options.top_k, options.top_p, static_cast<uint64_t>(options.seed)};
    TextGenerator generator(state, std::move(generation));
    for (int64_t sample = 0; sample < options.samples; ++sample) {
        if (options.samples > 1) std::printf("---- sample %ld ----\n", static_cast<long>(sample + 1));
        std::printf("%s", options.prompt.c_str());
        generator.generate(prompt, options.length, settings, static_cast<uint32_t>(sample), [&](int32_t token) {
            const std::string text = tokenizer->decode_next(token);
            std::fwrite(text.data(), 1, text.size(), stdout);
            std::fflush(stdout);
        });
        std::printf("\n");
    }
}

}  // namespace llmc
