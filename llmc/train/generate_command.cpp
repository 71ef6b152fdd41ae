#include "llmc/train/generate_command.h"

#include "llmc/backend/make_backend.h"
#include "llmc/base/error.h"
#include "llmc/base/log.h"
#include "llmc/base/units.h"
#include "llmc/io/tokenizer.h"
#include "llmc/train/checkpointing.h"
#include "llmc/train/generation.h"

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
    const Checkpoint checkpoint = open_checkpoint(options.run, "--run");
    const Progress progress = progress_of(checkpoint);
    const Model model = make_model(model_of(checkpoint));
    const std::unique_ptr<Tokenizer> tokenizer = make_tokenizer(progress.tokenizer);
    const std::vector<int32_t> prompt = encode_prompt(*tokenizer, options.prompt, model.config);

    const std::unique_ptr<Backend> backend = make_backend(options.device, static_cast<int>(options.threads));
    // A model trained in bf16 runs in bf16 where the device can; its weights are stored in fp32 either way.
    const bool use_bf16 = progress.dtype == "bf16" && backend->info().supports_bf16;
    const DType dtype = use_bf16 ? DType::BF16 : DType::F32;
    const int64_t context = context_for(model.config, static_cast<int64_t>(prompt.size()) + options.length);
    GenerationPlan generation = plan_generation(model, dtype, context, *backend);
    State state(*backend, model, dtype, context, generation.layout.arena_bytes, /*training=*/false);
    load_checkpoint(checkpoint, state, /*training=*/false);
    spdlog::info("{} after {} steps; {} parameters, {}, {}", model.config.name, progress.step,
                 format_count(model.parameter_count()), name_of(dtype), format_bytes(state.allocated_bytes()));

    SamplerSettings settings = {options.temperature, options.top_k, options.top_p, static_cast<uint64_t>(options.seed)};
    TextGenerator generator(state, std::move(generation));
    for (int64_t sample = 0; sample < options.samples; ++sample) {
        if (options.samples > 1) std::printf("---- sample %ld ----\n", static_cast<long>(sample + 1));
        std::printf("%s", options.prompt.c_str());
        generator.generate(prompt, options.length, settings, static_cast<uint32_t>(sample), [&](int32_t token) {
            const std::string text = tokenizer->decode({&token, 1});
            std::fwrite(text.data(), 1, text.size(), stdout);
            std::fflush(stdout);
        });
        std::printf("\n");
    }
}

}  // namespace llmc
