#include "llmc/train/evaluate_command.h"

#include "llmc/backend/make_backend.h"
#include "llmc/base/counted.h"
#include "llmc/base/error.h"
#include "llmc/base/log.h"
#include "llmc/base/output.h"
#include "llmc/base/units.h"
#include "llmc/io/models_tokenizer.h"
#include "llmc/train/arithmetic.h"
#include "llmc/train/check_data.h"
#include "llmc/train/checkpointing.h"
#include "llmc/train/config_paths.h"
#include "llmc/train/hellaswag_tokens.h"
#include "llmc/train/initial_weights.h"
#include "llmc/train/load_weights.h"
#include "llmc/train/run_folder.h"
#include "llmc/train/scoring.h"
#include "llmc/train/setup.h"

#include <algorithm>
#include <cmath>

namespace llmc {
namespace {

constexpr int64_t kDefaultBatchTokens = 4096;
constexpr int64_t kLongestDefaultSequence = 1024;

/// What to predict.
struct EvaluationText {
    std::unique_ptr<TokenSource> source;
    Data run_data;  ///< Instead of `source`, where the text is a run's held-out part.
    std::optional<TokenRange> range;
    const TokenSource& all() const {
        return source ? *source : run_data.val_source ? *run_data.val_source : *run_data.source;
    }
    std::string describe() const { return (source ? "" : "held-out part: ") + all().describe(); }
};

/// What every token of is predicted.
EvaluationText open_all_text(const Options& options, const WeightSource& weights, const Tokenizer& tokenizer) {
    EvaluationText text;
    if (options.was_given("data")) {
        text.source = open_token_source(options.data, "--data", &tokenizer, reading_of(options));
        text.range = TokenRange(*text.source);
        return text;
    }
    if (weights.seq_len() == 0) {
        fail_usage("evaluate needs --data=FILE or --hellaswag=FILE: '{}' was imported and has no data of its own",
                   options.run);
    }
    Options run_options = options_of_run(find_run_folder(options.run, "--run"), "--run=" + options.run);
    say_remarks(run_options);
    if (!is_data_there(run_options.data)) {
        fail("--run={}: the data it was trained on, '{}', is not there any more; give --data=FILE", options.run,
             run_options.data);
    }
    run_options.tokenizer.clear();  // The run folder has a copy, or another was asked for.
    text.run_data = open_data(run_options, tokenizer.name());
    text.range = text.run_data.validation;
    return text;
}

EvaluationText open_text(const Options& options, const WeightSource& weights, const Tokenizer& tokenizer) {
    EvaluationText text = open_all_text(options, weights, tokenizer);
    if (text.range->is_marked()) {
        fail(
            "evaluate: {}; it predicts every token of a text, and the loss of answers alone is what a run prints for "
            "--val-data",
            text.all().describe());
    }
    return text;
}

/// --batch-size, or as many sequences as make a moderate batch.
int64_t batch_for(const Options& options, int64_t T) {
    const bool chosen = options.was_given("batch-size") && options.batch_size > 0;
    return chosen ? options.batch_size : std::max<int64_t>(1, kDefaultBatchTokens / T);
}

/// --seq-len, or the length the model was trained on, or else all it can take up to a limit.
int64_t sequence_for(const Options& options, const WeightSource& weights) {
    const int64_t maxT = weights.model().config.maxT;
    if (options.was_given("seq-len")) {
        if (options.seq_len <= maxT) return options.seq_len;
        fail_usage("--seq-len={}: '{}' takes at most {} tokens; choose --seq-len={} or less", options.seq_len,
                   weights.model().config.name, maxT, maxT);
    }
    return weights.seq_len() > 0 ? weights.seq_len() : std::min(maxT, kLongestDefaultSequence);
}

int64_t hellaswag_length(const Options& options, const ModelConfig& config,
                         const std::vector<HellaswagExample>& examples) {
    const int64_t longest = longest_row(examples);
    if (longest > config.maxT) {
        fail("--hellaswag={}: an example has {} tokens, the model takes at most {}; evaluate a model that takes more",
             options.hellaswag, longest, config.maxT);
    }
    return longest;
}

void print_score(const TextScore& score, const std::string& what) {
    if (!std::isfinite(score.nats)) {
        fail("the loss is {}: the model's output is no number; try --dtype=fp32, or an earlier checkpoint", score.nats);
    }
    print_output(fmt::format("data            {}\n", what));
    print_output(fmt::format("loss            {:.6f} nats per token, over {} {}\n", score.loss(),
                             format_count(score.tokens), noun(score.tokens, "token")));
    print_output(fmt::format("perplexity      {:.4f}\n", score.perplexity()));
    print_output(fmt::format("bits per token  {:.6f}\n", score.bits_per_token()));
    if (score.bytes == 0) return;
    print_output(fmt::format("bits per byte   {:.6f}, over {} {}\n", score.bits_per_byte(), format_count(score.bytes),
                             noun(score.bytes, "byte")));
}

}  // namespace

void evaluate_command(const Options& options) {
    const std::unique_ptr<WeightSource> weights = trained_weights(options);
    const Model& model = weights->model();
    const std::unique_ptr<Tokenizer> tokenizer = tokenizer_for(options, *weights);
    const std::unique_ptr<Backend> backend =
        make_backend(options.device, static_cast<int>(options.threads), options.cpu_products);
    const DType dtype =
        options.was_given("dtype") ? dtype_of_option(options, *backend) : inference_dtype(*weights, *backend);
    require_dtype(*backend, dtype);
    settle_arithmetic(options, model.config, dtype, *backend);

    // What to score, and a plan for each.
    std::vector<HellaswagExample> examples;
    std::optional<ScoringPlan> text_plan, hellaswag_plan;
    int64_t longest = 0, arena_bytes = 0;
    const auto plan = [&](int64_t T) {
        longest = std::max(longest, T);
        ScoringPlan made = plan_scoring(model, {batch_for(options, T), T}, dtype, *backend);
        arena_bytes = std::max(arena_bytes, made.layout.arena_bytes);
        return made;
    };
    EvaluationText text;
    if (options.was_given("data") || options.hellaswag.empty()) {
        text = open_text(options, *weights, *tokenizer);
        require_ids_below(model.config.V, text.all(), "--data", "give data made for this model's tokenizer", options);
        text_plan = plan(sequence_for(options, *weights));
    }
    if (!options.hellaswag.empty()) {
        examples = read_hellaswag(options.hellaswag, "--hellaswag");
        require_tokens_of(*tokenizer, model.config.V, examples, options.hellaswag);
        hellaswag_plan = plan(hellaswag_length(options, model.config, examples));
    }
    warn_if_unread(*tokenizer);

    State state(*backend, model, dtype, longest, arena_bytes, /*training=*/false);
    load_weights(*weights, state);
    spdlog::info("{}; {} parameters, {}, {}", weights->describe(), format_count(model.parameter_count()),
                 name_of(dtype), format_bytes(state.allocated_bytes()));
    if (text_plan) {
        Scorer scorer(state, *std::move(text_plan));
        print_score(score_text(scorer, *text.range, *tokenizer, "--data"), text.describe());
    }
    if (hellaswag_plan) {
        Scorer scorer(state, *std::move(hellaswag_plan));
        const HellaswagScore score = score_hellaswag(scorer, examples);
        print_output(fmt::format("hellaswag       {:.4f}, {} of {} right\n", score.accuracy(),
                                 format_count(score.correct), format_count(score.examples)));
    }
}

}  // namespace llmc
