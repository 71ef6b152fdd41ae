#include "llmc/train/generate_command.h"

#include "llmc/base/counted.h"
#include "llmc/base/error.h"
#include "llmc/base/log.h"
#include "llmc/base/output.h"
#include "llmc/base/shown_text.h"
#include "llmc/io/models_tokenizer.h"
#include "llmc/io/tokenizer.h"
#include "llmc/train/chat_command.h"
#include "llmc/train/generating_model.h"
#include "llmc/train/initial_weights.h"
#include "llmc/train/prompt.h"
#include "llmc/train/text_ends.h"

#include <algorithm>

namespace llmc {
namespace {

/// Context for a text of that many tokens: all of it where the model can, else the model's longest.
int64_t context_for(const ModelConfig& config, int64_t tokens) { return std::min(config.maxT, tokens); }

/// What a user would not know: the token in front, and those that end a text.
void say_where_it_ends(const Options& options, const Tokenizer& tokenizer, const EndTokens& tokens) {
    const auto name = [&](int32_t token) { return fmt::format("'{}' ({})", tokenizer.token_bytes(token), token); };
    const bool has_front = tokens.document >= 0 && !options.no_bos;
    std::string ends;
    for (const int32_t token : tokens.ends) ends += (ends.empty() ? "" : ", ") + name(token);
    spdlog::info("the text begins after {}, and ends {}",
                 has_front ? name(tokens.document) + " (not with --no-bos)" : "nothing",
                 ends.empty() || options.ignore_eos ? "after " + counted(options.length, "token")
                                                    : "at " + ends + " (not with --ignore-eos)");
}

}  // namespace

void generate_command(const Options& options) {
    const std::unique_ptr<WeightSource> weights = trained_weights(options);
    const ModelConfig& config = weights->model().config;
    const std::unique_ptr<Tokenizer> tokenizer = tokenizer_for(options, *weights);
    if (options.chat) return chat_command(options, *weights, *tokenizer);
    const EndTokens tokens = end_tokens(*tokenizer, weights->tokenizer_folder(), config.V);
    if (options.prompt.empty() && options.no_bos) {
        fail_usage("--no-bos: a text must begin with something; give a --prompt");
    }
    const std::vector<int32_t> prompt = encode_prompt(options.prompt, *tokenizer, options.no_bos ? -1 : tokens.document,
                                                      config.V, {"--prompt", options.special_tokens});
    warn_if_unread(*tokenizer);

    const int64_t context = context_for(config, static_cast<int64_t>(prompt.size()) + options.length);
    GeneratingModel model(options, *weights, *tokenizer, context);
    say_where_it_ends(options, *tokenizer, tokens);

    for (int64_t sample = 0; sample < options.samples; ++sample) {
        if (options.samples > 1) print_output(fmt::format("---- sample {} ----\n", sample + 1));
        ShownText shown;
        print_output(shown.add(options.prompt));
        StopText text(options.stop, [&](std::string_view part) {
            print_output(shown.add(part));
            flush_output();
        });
        bool is_over = false;
        const auto emit = [&](int32_t token) {
            const bool is_end = std::binary_search(tokens.ends.begin(), tokens.ends.end(), token);
            is_over = is_end && !options.ignore_eos;
            if (!is_over) is_over = text.add(tokenizer->decode_next(token));
        };
        model.generator().generate(prompt, options.length, sampler_settings(options), static_cast<uint32_t>(sample),
                                   emit, [&](int32_t) { return is_over; });
        text.finish();
        print_output(shown.finish() + "\n");
    }
}

}  // namespace llmc
