#include "llmc/train/trainer.h"

#include "llmc/base/error.h"
#include "llmc/base/file.h"
#include "llmc/base/log.h"
#include "llmc/base/median.h"
#include "llmc/base/stop_signal.h"
#include "llmc/base/units.h"
#include "llmc/run/profile.h"
#include "llmc/train/ranks.h"
#include "llmc/train/schedule.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>

namespace llmc {
namespace {

/// Steps at the beginning of a run that are not typical: caches and kernels warm up.
constexpr int64_t kWarmupSteps = 2;

OptimizerSettings optimizer_settings(const Options& options) {
    OptimizerSettings settings;
    settings.kind = optimizer_of(options);
    settings.beta1 = static_cast<float>(options.beta1);
    settings.beta2 = static_cast<float>(options.beta2);
    settings.epsilon = static_cast<float>(options.adam_epsilon);
    settings.weight_decay = static_cast<float>(options.weight_decay);
    settings.grad_clip = static_cast<float>(options.grad_clip);
    return settings;
}

Schedule schedule_of(const Options& options) {
    return {options.lr_schedule, options.learning_rate, options.final_lr_fraction,
            options.warmup,      options.steps,         options.lr_decay_fraction};
}

/// "2 ranks, optimiser state in pieces".
std::string place_in_words(const Plan& plan) {
    const std::string places = plan.places.describe();
    return fmt::format("{} rank{}, {}", plan.parallel.ranks, plan.parallel.ranks == 1 ? "" : "s",
                       places.empty() ? "everything whole on the device" : places);
}

double peak_flops(const Options& options, const DeviceInfo& device, DType dtype) {
    if (options.peak_tflops > 0) return options.peak_tflops * 1e12;
    return dtype == DType::BF16 ? device.peak_flops_bf16 : device.peak_flops_fp32;
}

}  // namespace

Trainer::Trainer(const RunDescription& run, State& state, const Origin& origin, const std::string& run_folder,
                 Comm& comm)
    : options_(run.options),
      state_(state),
      data_(run.data),
      comm_(comm),
      run_folder_(run_folder),
      micro_batches_(run.plan().parallel.micro_batches),
      tokens_per_step_(options_.total_batch_size),
      peak_flops_(comm.size() * peak_flops(options_, state.backend().info(), state.dtype())),
      plan_(run.plan()),
      executor_(state, plan_, run.memory().layout, &comm, optimizer_settings(options_)),
      evaluator_(state, run.memory(), comm),
      loader_(*data_.train, options_.batch_size, options_.seq_len, static_cast<int32_t>(run.model.config.V),
              shuffled_order(data_.train->size(), options_.seq_len, static_cast<uint64_t>(options_.seed)),
              {comm.rank(), comm.size()}),
      val_loader_(*data_.validation, options_.batch_size, options_.seq_len, static_cast<int32_t>(run.model.config.V),
                  spread_order(data_.validation->size(), options_.seq_len, options_.val_sequences),
                  {comm.rank(), comm.size()}),
      predicted_step_ms_(run.chosen.step_seconds * 1e3),
      times_source_(run.chosen.times.source) {
    if (options_.no_overlap) executor_.do_not_overlap();
    load(origin);
    state_.set_loss_scale(1.0f / static_cast<float>(tokens_per_step_));
    state_.set_control(UpdateControl::Updates, static_cast<double>(progress_.updates));
    progress_.tokenizer = data_.tokenizer->name();
    progress_.dtype = options_.dtype;
    progress_.places = place_in_words(plan_);
    progress_.optimizer = options_.optimizer;
    progress_.seq_len = options_.seq_len;
    progress_.total_batch_size = tokens_per_step_;
    progress_.seed = options_.seed;
    progress_.train_tokens = data_.train->size();
    make_generator(run.memory());
    if (comm.is_root()) metrics_file_.open(run_folder + "/metrics.jsonl", progress_.step);
}

/// The weights to begin with.
void Trainer::load(const Origin& origin) {
    if (origin.checkpoint) {
        load_checkpoint(*origin.checkpoint, state_);
        progress_ = progress_of(*origin.checkpoint);
        const bool other_data = progress_.train_tokens != 0 && progress_.train_tokens != data_.train->size();
        if (other_data && comm_.is_root()) {
            spdlog::warn(
                "--data: {} training tokens, {} when the run began; it goes on, but not with the sequences it "
                "would have read",
                format_count(data_.train->size()), format_count(progress_.train_tokens));
        }
        spdlog::info("resumed from '{}', {} steps done", origin.checkpoint->path, progress_.step);
        say_what_moved();
    } else if (origin.weights != nullptr) {
        load_weights(*origin.weights, state_);
        progress_.padded_vocab_size = origin.weights->padded_vocab_size();
    } else {
        state_.initialise(static_cast<uint64_t>(options_.seed));
    }
    gather_parameters(state_, comm_);
}

/// What a run that goes on keeps elsewhere, or in another format, than before.
void Trainer::say_what_moved() const {
    const std::string now = place_in_words(plan_);
    if (!progress_.places.empty() && progress_.places != now) {
        spdlog::info("resume  {} from here on; before: {}; the training stays the same", now, progress_.places);
    }
    if (progress_.train_tokens != 0 && progress_.dtype != options_.dtype) {
        spdlog::info("resume  parameters converted to {}; the run kept them in {} before", options_.dtype,
                     progress_.dtype);
    }
}

/// Samples are rank 0's, or, where no rank has all parameters, everybody's together.
void Trainer::make_generator(const PlannedMemory& memory) {
    const bool together = state_.places().in_pieces(Buffer::Parameters);
    if (options_.sample_length == 0 || data_.tokenizer->vocab_size() == 0) return;
    if (!comm_.is_root() && !together) return;
    const Parallel parallel = together ? state_.parallel() : Parallel();
    const Places places = together ? state_.places() : Places(state_.dtype());
    const Backend& backend = state_.backend();
    int64_t context = fitting_context(state_.model(), places, std::min(options_.seq_len, state_.model().config.maxT),
                                      memory.layout.arena_bytes, backend, parallel);
    if (together) {  // As many calls on every rank, though their kernels' workspaces may differ.
        const std::vector<double> contexts = comm_.all_gather(static_cast<double>(context));
        context = static_cast<int64_t>(*std::min_element(contexts.begin(), contexts.end()));
    }
    if (context == 0) return;
    generator_ = std::make_unique<TextGenerator>(
        state_, plan_generation(state_.model(), places, context, backend, parallel), &comm_);
    generator_->draw_only_tokens_of(*data_.tokenizer);
}

void Trainer::run() {
    const StopRequest stop;
    stop_ = &stop;
    loader_.seek(progress_.next_sequence);
    int64_t saved = progress_.step;
    while (progress_.step < options_.steps && stop_signal_ == 0) {
        const StepMetrics metrics = train_step();
        metrics_file_.write(metrics);
        report(metrics);
        count_skipped(metrics);
        const bool last = progress_.step == options_.steps;
        if (options_.val_every > 0 && (last || is_due(options_.val_every))) validate();
        if (last || is_due(options_.sample_every)) print_sample();
        if (is_due(options_.checkpoint_every)) save(), saved = progress_.step;
    }
    if (stop_signal_ != 0) {
        spdlog::info("stopping after step {}, as asked by signal {}", progress_.step, stop_signal_);
    }
    if (saved != progress_.step) save();
    report_times();
    stop_ = nullptr;
}

bool Trainer::is_due(int64_t every) const { return every > 0 && progress_.step % every == 0; }

/// Runs this rank's micro-batches, and with the last one the update. Where the order of sums must not depend on the
/// ranks, returns the loss of each micro-batch; else the sum of all.
std::vector<double> Trainer::run_update() {
    const bool one_by_one = state_.parallel().rank_invariant;
    std::vector<double> losses;
    for (int64_t micro = 0; micro < micro_batches_; ++micro) {
        run_micro_batch(micro);
        if (!one_by_one && micro + 1 < micro_batches_) continue;
        comm_.synchronize();  // The device is waited for only here.
        state_.backend().copy_to_host(&losses.emplace_back(), state_.loss_sum());
    }
    return losses;
}

void Trainer::run_micro_batch(int64_t micro) {
    Backend& backend = state_.backend();
    const Batch& batch = loader_.next();
    backend.copy_to_device(executor_.tokens(), batch.tokens.data());
    backend.copy_to_device(executor_.targets(), batch.targets.data());
    const RunArguments arguments = {.turn = {.first = micro == 0, .last = micro + 1 == micro_batches_}};
    // The first steps of a run warm up.
    const bool profiles =
        !options_.profile.empty() && arguments.turn.last && comm_.is_root() &&
        (steps_timed_ == kWarmupSteps || (steps_timed_ < kWarmupSteps && progress_.step + 1 == options_.steps));
    if (!profiles) return executor_.run(arguments);
    std::vector<double> seconds;
    executor_.run(arguments, &seconds);
    write_profile(seconds);
}

/// Adds up in the order of the micro-batches' numbers. On the way all ranks hear of a stop that one was asked for.
double Trainer::sum_over_ranks(const std::vector<double>& losses) {
    std::vector<double> mine = losses;
    mine.push_back(stop_->signal());
    const std::string text(reinterpret_cast<const char*>(mine.data()), mine.size() * sizeof(double));
    std::vector<std::vector<double>> all;
    for (const std::string& of_rank : comm_.all_gather(text)) {
        std::vector<double>& values = all.emplace_back(mine.size());
        CHECK(of_rank.size() == text.size(), of_rank.size(), text.size());
        std::memcpy(values.data(), of_rank.data(), of_rank.size());
        if (stop_signal_ == 0) stop_signal_ = static_cast<int>(values.back());
    }
    double sum = 0;
    for (size_t micro = 0; micro < losses.size(); ++micro) {
        for (const std::vector<double>& values : all) sum += values[micro];
    }
    return sum;
}

void Trainer::write_profile(const std::vector<double>& seconds) const {
    const DeviceInfo device = state_.backend().info();
    const std::vector<ProfileRow> rows =
        profile_rows(state_.model(), plan_, seconds, device.attention_backward_products);
    write_text_atomically(options_.profile, chrome_trace(state_.model(), plan_, seconds));
    std::printf("%s\n", profile_table(rows, device, state_.dtype()).c_str());
    std::fflush(stdout);
    spdlog::info(
        "step {}: trace of the last micro-batch and the update in '{}', for chrome://tracing or ui.perfetto.dev",
        progress_.step + 1, options_.profile);
}

StepMetrics Trainer::train_step() {
    const double start = now_seconds();
    StepMetrics metrics;
    metrics.learning_rate = learning_rate(schedule_of(options_), progress_.step);
    comm_.doing(fmt::format("step {}", progress_.step + 1));
    state_.set_control(UpdateControl::LearningRate, static_cast<float>(metrics.learning_rate));
    const std::vector<double> losses = run_update();
    state_.backend().copy_to_host(&metrics.grad_norm, state_.grad_norm());

    ++progress_.step;
    metrics.step = progress_.step;
    metrics.skipped = !std::isfinite(metrics.grad_norm);
    if (!metrics.skipped) ++progress_.updates;
    progress_.next_sequence = loader_.position();
    metrics.loss = sum_over_ranks(losses) / static_cast<double>(tokens_per_step_);
    if (options_.check_ranks) metrics.checksum = common_checksum(state_, comm_);
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
    const bool ends = m.step == options_.steps || m.step == 1 || stop_signal_ != 0;
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
    const bool too_many = skipped_in_a_row_ >= options_.max_skipped_steps;
    if (!comm_.is_root()) return too_many ? comm_.barrier() : void();  // Rank 0 speaks for all, and ends them.
    spdlog::warn("step {}: the gradient is not finite (loss {}); the update was skipped, {} in a row", metrics.step,
                 metrics.loss, skipped_in_a_row_);
    if (too_many) {
        fail(
            "{} updates in a row had non-finite gradients; lower --learning-rate, or resume from an earlier checkpoint "
            "of '{}'",
            skipped_in_a_row_, run_folder_);
    }
}

void Trainer::validate() {
    comm_.doing("validation");
    const double loss = evaluator_.loss(val_loader_, options_.val_sequences);
    metrics_file_.write_validation(progress_.step, loss);
    const bool bytes = data_.tokenizer->name() == "bytes";
    spdlog::info("step {}: validation loss {:.4f} nats per {}", progress_.step, loss, bytes ? "byte" : "token");
}

void Trainer::print_sample() {
    if (generator_ == nullptr) return;
    const auto sampling = comm_.busy("a sample");
    std::vector<int32_t> prompt = {data_.tokenizer->end_of_text()};
    const std::vector<int32_t> words = data_.tokenizer->encode(options_.sample_prompt);
    prompt.insert(prompt.end(), words.begin(), words.end());
    SamplerSettings settings;
    settings.seed = static_cast<uint64_t>(options_.seed);
    std::vector<int32_t> tokens;
    generator_->generate(prompt, options_.sample_length, settings, static_cast<uint32_t>(progress_.step),
                         [&](int32_t token) { tokens.push_back(token); });
    if (!comm_.is_root()) return;
    const std::string text = data_.tokenizer->decode(tokens);
    std::printf("---- sample after %ld steps ----\n%s%s\n----\n", static_cast<long>(progress_.step),
                options_.sample_prompt.c_str(), text.c_str());
    std::fflush(stdout);
}

void Trainer::save() {
    comm_.doing("a checkpoint");
    save_checkpoint(run_folder_, state_, progress_, comm_);
    if (comm_.is_root()) prune_checkpoints(run_folder_, options_.keep_checkpoints);
    spdlog::info("step {}: checkpoint in '{}/checkpoints'", progress_.step, run_folder_);
}

}  // namespace llmc
