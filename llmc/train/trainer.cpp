#include "llmc/train/trainer.h"

#include "llmc/base/error.h"
#include "llmc/base/file.h"
#include "llmc/base/log.h"
#include "llmc/base/median.h"
#include "llmc/base/stop_signal.h"
#include "llmc/base/units.h"
#include "llmc/run/profile.h"
#include "llmc/train/schedule.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace llmc {
namespace {

/// Steps at the beginning of a run that are not typical: caches and kernels warm up.
constexpr int64_t kWarmupSteps = 2;

AdamWSettings adamw_settings(const Options& options, double learning_rate, int64_t update) {
    AdamWSettings settings;
    settings.learning_rate = static_cast<float>(learning_rate);
    settings.beta1 = static_cast<float>(options.beta1);
    settings.beta2 = static_cast<float>(options.beta2);
    settings.epsilon = static_cast<float>(options.adam_epsilon);
    settings.weight_decay = static_cast<float>(options.weight_decay);
    settings.grad_clip = static_cast<float>(options.grad_clip);
    settings.update = update;
    return settings;
}

Schedule schedule_of(const Options& options) {
    return {options.lr_schedule, options.learning_rate, options.final_lr_fraction,
            options.warmup,      options.steps,         options.lr_decay_fraction};
}

double peak_flops(const Options& options, const DeviceInfo& device, DType dtype) {
    if (options.peak_tflops > 0) return options.peak_tflops * 1e12;
    return dtype == DType::BF16 ? device.peak_flops_bf16 : device.peak_flops_fp32;
}

}  // namespace

Trainer::Trainer(const Options& options, State& state, const ChosenPlan& chosen, const Data& data, const Origin& origin,
                 const std::string& run_folder)
    : options_(options),
      state_(state),
      data_(data),
      run_folder_(run_folder),
      micro_batches_(std::max<int64_t>(1, options.total_batch_size / chosen.memory.plan.shape.N())),
      tokens_per_step_(micro_batches_ * chosen.memory.plan.shape.N()),
      peak_flops_(peak_flops(options, state.backend().info(), state.dtype())),
      plan_(chosen.memory.plan),
      executor_(state, chosen.memory.plan, chosen.memory.layout),
      evaluator_(state, chosen.memory),
      loader_(*data.train, options.batch_size, options.seq_len, static_cast<int32_t>(state.model().config.V),
              shuffled_order(data.train->size(), options.seq_len, static_cast<uint64_t>(options.seed))),
      val_loader_(*data.validation, options.batch_size, options.seq_len, static_cast<int32_t>(state.model().config.V),
                  spread_order(data.validation->size(), options.seq_len, options.val_sequences)),
      ranges_(parameter_ranges(state.model())),
      predicted_step_ms_(chosen.step_seconds * 1e3),
      times_source_(chosen.times.source) {
    if (origin.checkpoint) {
        load_checkpoint(*origin.checkpoint, state);
        progress_ = progress_of(*origin.checkpoint);
        if (progress_.train_tokens != 0 && progress_.train_tokens != data.train->size()) {
            spdlog::warn(
                "--data: {} training tokens, {} when the run began; it goes on, but not with the sequences it "
                "would have read",
                format_count(data.train->size()), format_count(progress_.train_tokens));
        }
        spdlog::info("resumed from '{}', {} steps done", origin.checkpoint->path, progress_.step);
    } else if (origin.weights != nullptr) {
        load_weights(*origin.weights, state);
        progress_.padded_vocab_size = origin.weights->padded_vocab_size();
    } else {
        state.initialise(static_cast<uint64_t>(options.seed));
    }
    progress_.tokenizer = data.tokenizer->name();
    progress_.dtype = options.dtype;
    progress_.seq_len = options.seq_len;
    progress_.total_batch_size = tokens_per_step_;
    progress_.seed = options.seed;
    progress_.train_tokens = data.train->size();

    const Backend& backend = state.backend();
    const int64_t context =
        fitting_context(state.model(), state.dtype(), std::min(options.seq_len, state.model().config.maxT),
                        chosen.memory.layout.arena_bytes, backend);
    if (options.sample_length > 0 && context > 0 && data.tokenizer->vocab_size() > 0) {
        generator_ =
            std::make_unique<TextGenerator>(state, plan_generation(state.model(), state.dtype(), context, backend));
    }
    metrics_file_.open(run_folder + "/metrics.jsonl", progress_.step);
}

void Trainer::run() {
    const StopRequest stop;
    stop_ = &stop;
    loader_.seek(progress_.next_sequence);
    int64_t saved = progress_.step;
    while (progress_.step < options_.steps && stop.signal() == 0) {
        const StepMetrics metrics = train_step();
        metrics_file_.write(metrics);
        report(metrics);
        count_skipped(metrics);
        const bool last = progress_.step == options_.steps;
        if (options_.val_every > 0 && (last || is_due(options_.val_every))) validate();
        if (last || is_due(options_.sample_every)) print_sample();
        if (is_due(options_.checkpoint_every)) save(), saved = progress_.step;
    }
    if (stop.signal() != 0) {
        spdlog::info("stopping after step {}, as asked by signal {}", progress_.step, stop.signal());
    }
    if (saved != progress_.step) save();
    report_times();
    stop_ = nullptr;
}

bool Trainer::is_due(int64_t every) const { return every > 0 && progress_.step % every == 0; }

void Trainer::accumulate_gradients() {
    // The first steps of a run warm up.
    const bool profiles =
        !options_.profile.empty() &&
        (steps_timed_ == kWarmupSteps || (steps_timed_ < kWarmupSteps && progress_.step + 1 == options_.steps));
    Backend& backend = state_.backend();
    backend.zero(state_.all_gradients());
    backend.zero(state_.loss_sum());
    for (int64_t micro = 0; micro < micro_batches_; ++micro) {
        const Batch& batch = loader_.next();
        backend.copy_to_device(executor_.tokens(), batch.tokens.data());
        backend.copy_to_device(executor_.targets(), batch.targets.data());
        const RunArguments arguments = {.loss_scale = 1.0f / static_cast<float>(tokens_per_step_),
                                        .loss_sum = state_.loss_sum()};
        if (profiles && micro == 0) {
            std::vector<double> seconds;
            executor_.run(arguments, &seconds);
            write_profile(seconds);
        } else {
            executor_.run(arguments);
        }
    }
    backend.global_norm(state_.grad_norm(), state_.all_gradients(), state_.norm_workspace());
}

void Trainer::write_profile(const std::vector<double>& seconds) const {
    const std::vector<ProfileRow> rows = profile_rows(state_.model(), plan_, seconds);
    write_text_atomically(options_.profile, chrome_trace(state_.model(), plan_, seconds));
    std::printf("%s\n", profile_table(rows, state_.backend().info(), state_.dtype()).c_str());
    std::fflush(stdout);
    spdlog::info("step {}: trace of one micro-batch in '{}', for chrome://tracing or ui.perfetto.dev",
                 progress_.step + 1, options_.profile);
}

StepMetrics Trainer::train_step() {
    const double start = now_seconds();
    StepMetrics metrics;
    metrics.learning_rate = learning_rate(schedule_of(options_), progress_.step);
    accumulate_gradients();
    Backend& backend = state_.backend();
    backend.adamw(state_.all_parameters(), state_.all_masters(), state_.all_m(), state_.all_v(), state_.all_gradients(),
                  ranges_, adamw_settings(options_, metrics.learning_rate, progress_.updates + 1), state_.grad_norm());
    double loss_sum = 0;
    backend.copy_to_host(&loss_sum, state_.loss_sum());
    backend.copy_to_host(&metrics.grad_norm, state_.grad_norm());

    ++progress_.step;
    metrics.step = progress_.step;
    metrics.skipped = !std::isfinite(metrics.grad_norm);
    if (!metrics.skipped) ++progress_.updates;
    progress_.next_sequence = loader_.position();
    metrics.loss = loss_sum / static_cast<double>(tokens_per_step_);
    const double seconds = now_seconds() - start;
    metrics.step_ms = seconds * 1e3;
    metrics.tokens_per_second = static_cast<double>(tokens_per_step_) / seconds;
    if (peak_flops_ > 0) {
        metrics.mfu = model_flops_per_token(state_.model(), options_.seq_len) * metrics.tokens_per_second / peak_flops_;
    }
    metrics.memory_bytes = state_.allocated_bytes();
    return metrics;
}

void Trainer::report(const StepMetrics& m) {
    constexpr int64_t kTimedSteps = 1000;
    if (steps_timed_++ >= kWarmupSteps) {
        step_ms_.resize(static_cast<size_t>(std::min(steps_timed_ - kWarmupSteps, kTimedSteps)));
        step_ms_[static_cast<size_t>((steps_timed_ - kWarmupSteps - 1) % kTimedSteps)] = m.step_ms;
    }
    smoothed_step_ms_ = smoothed_step_ms_ == 0 ? m.step_ms : 0.95 * smoothed_step_ms_ + 0.05 * m.step_ms;
    const bool ends = m.step == options_.steps || m.step == 1 || stop_->signal() != 0;
    if (m.step % options_.log_every != 0 && !ends) return;
    const std::string mfu = m.mfu > 0 ? fmt::format("{:.1f} % MFU", 100 * m.mfu) : "MFU n/a";
    const double left = static_cast<double>(options_.steps - m.step) * smoothed_step_ms_ / 1e3;
    spdlog::info("step {:>{}}/{} | loss {:.4f} | lr {:.2e} | norm {:.3f} | {:.1f} ms | {} tok/s | {} | {} | {} left",
                 m.step, std::to_string(options_.steps).size(), options_.steps, m.loss, m.learning_rate, m.grad_norm,
                 m.step_ms, format_count(std::llround(m.tokens_per_second)), mfu, format_bytes(m.memory_bytes),
                 format_duration(left));
}

/// What the plan promised beside what it took.
void Trainer::report_times() const {
    if (step_ms_.empty()) return;
    const double typical = median(step_ms_);
    spdlog::info("time    {:.1f} ms per step in the median of {}, predicted {:.1f} ms ({:+.1f} %; {})", typical,
                 step_ms_.size(), predicted_step_ms_, 100 * (predicted_step_ms_ / typical - 1), times_source_);
}

void Trainer::count_skipped(const StepMetrics& metrics) {
    skipped_in_a_row_ = metrics.skipped ? skipped_in_a_row_ + 1 : 0;
    if (!metrics.skipped) return;
    spdlog::warn("step {}: the gradient is not finite (loss {}); the update was skipped, {} in a row", metrics.step,
                 metrics.loss, skipped_in_a_row_);
    if (skipped_in_a_row_ >= options_.max_skipped_steps) {
        fail(
            "{} updates in a row had non-finite gradients; lower --learning-rate, or resume from an earlier checkpoint "
            "of '{}'",
            skipped_in_a_row_, run_folder_);
    }
}

void Trainer::validate() {
    const double loss = evaluator_.loss(val_loader_, options_.val_sequences);
    metrics_file_.write_validation(progress_.step, loss);
    const bool bytes = data_.tokenizer->name() == "bytes";
    spdlog::info("step {}: validation loss {:.4f} nats per {}", progress_.step, loss, bytes ? "byte" : "token");
}

void Trainer::print_sample() {
    if (generator_ == nullptr) return;
    std::vector<int32_t> prompt = {data_.tokenizer->end_of_text()};
    const std::vector<int32_t> words = data_.tokenizer->encode(options_.sample_prompt);
    prompt.insert(prompt.end(), words.begin(), words.end());
    SamplerSettings settings;
    settings.seed = static_cast<uint64_t>(options_.seed);
    std::vector<int32_t> tokens;
    generator_->generate(prompt, options_.sample_length, settings, static_cast<uint32_t>(progress_.step),
                         [&](int32_t token) { tokens.push_back(token); });
    const std::string text = data_.tokenizer->decode(tokens);
    std::printf("---- sample after %ld steps ----\n%s%s\n----\n", static_cast<long>(progress_.step),
                options_.sample_prompt.c_str(), text.c_str());
    std::fflush(stdout);
}

void Trainer::save() {
    save_checkpoint(run_folder_, state_, progress_);
    prune_checkpoints(run_folder_, options_.keep_checkpoints);
    spdlog::info("step {}: checkpoint in '{}/checkpoints'", progress_.step, run_folder_);
}

}  // namespace llmc
