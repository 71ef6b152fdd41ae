#include "llmc/train/trainer.h"

#include "llmc/base/counted.h"
#include "llmc/base/error.h"
#include "llmc/base/file.h"
#include "llmc/base/log.h"
#include "llmc/base/output.h"
#include "llmc/base/printable.h"
#include "llmc/base/process_limits.h"
#include "llmc/base/stop_signal.h"
#include "llmc/base/units.h"
#include "llmc/io/checkpoint_folder.h"
#include "llmc/run/profile.h"
#include "llmc/train/arithmetic.h"
#include "llmc/train/lora_options.h"
#include "llmc/train/output_file.h"
#include "llmc/train/ranks.h"
#include "llmc/train/schedule.h"
#include "llmc/train/validations.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace llmc {
namespace {

OptimizerSettings optimizer_settings(const Options& options) {
    OptimizerSettings settings;
    settings.kind = optimizer_of(options);
    settings.beta1 = static_cast<float>(options.beta1);
    settings.beta2 = static_cast<float>(options.beta2);
    settings.epsilon = static_cast<float>(options.adam_epsilon);
    settings.weight_decay = static_cast<float>(options.weight_decay);
    settings.grad_clip = static_cast<float>(options.grad_clip);
    settings.seed = static_cast<uint64_t>(options.seed);
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

/// "1.77e-03" and "3.00e-04", with as many digits as they differ in.
std::pair<std::string, std::string> told_apart(double a, double b) {
    constexpr int kAllDigits = 16;
    std::pair<std::string, std::string> words;
    for (int digits = 2; digits <= kAllDigits && words.first == words.second; ++digits) {
        words = {fmt::format("{:.{}e}", a, digits), fmt::format("{:.{}e}", b, digits)};
    }
    return words;
}

double peak_flops(const Options& options, const DeviceInfo& device, DType dtype) {
    if (options.peak_tflops > 0) return options.peak_tflops * 1e12;
    if (device.arithmetic.tf32) return device.peak_flops_bf16 / kTf32Operands;
    return dtype == DType::BF16 ? device.peak_flops_bf16 : device.peak_flops_fp32;
}

}  // namespace

Trainer::Trainer(const RunDescription& run, State& state, const Origin& origin, RunFolder* folder,
                 const std::string& run_folder, Comm& comm)
    : run_(run),
      options_(run.options),
      state_(state),
      data_(run.data),
      sample_prompt_(run.sample_prompt),
      comm_(comm),
      run_folder_(run_folder),
      micro_batches_(run.plan().parallel.micro_batches),
      tokens_per_step_(options_.total_batch_size),
      peak_flops_(comm.size() * peak_flops(options_, state.backend().info(), state.dtype())),
      plan_(run.plan()),
      executor_(state, plan_, run.memory().layout, &comm, optimizer_settings(options_)),
      evaluator_(state, run.memory(), comm),
      loader_(*run.sequences, options_.batch_size, {comm.rank(), comm.size()}),
      val_loader_(*run.val_sequences, options_.batch_size, {comm.rank(), comm.size()}),
      numbers_(state.backend(), state.parallel().rank_invariant ? micro_batches_ : 1),
      folder_(folder),
      predicted_step_ms_(run.chosen.step_seconds * 1e3),
      status_line_(comm.is_root() && spdlog::should_log(spdlog::level::info)) {
    if (options_.no_overlap) executor_.do_not_overlap();
    load(origin);
    state_.set_control(UpdateControl::Updates, static_cast<double>(progress_.updates));
    progress_.tokenizer = data_.tokenizer->name();
    progress_.dtype = options_.dtype;
    progress_.places = place_in_words(plan_);
    progress_.formats = formats_of(plan_.places);
    progress_.base = name_of(plan_.places.base());
    progress_.freeze = options_.freeze;
    const std::optional<PeftConfig> adapter = adapter_config(options_, make_model(state.model().config));
    progress_.adapter = adapter ? to_json(*adapter) : "";
    progress_.optimizer = options_.optimizer;
    progress_.seq_len = options_.seq_len;
    progress_.pack = options_.pack;
    progress_.arithmetic =
        noted(progress_.train_tokens != 0 ? progress_.arithmetic : Arithmetic(), state.backend().info().arithmetic);
    progress_.total_batch_size = tokens_per_step_;
    progress_.seed = options_.seed;
    progress_.train_tokens = data_.train->size();
    first_step_ = progress_.step;
    if (options_.output_dir.empty()) saved_step_ = first_step_;  // Otherwise it is saved elsewhere.
    recall_validations(origin);
    make_generator(run.memory());
    if (!comm.is_root()) return;
    if (folder_->has_begun()) metrics_file_.open(run_folder + "/metrics.jsonl", progress_.step);
    warn_of_full_disk();
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
        spdlog::info("resumed from '{}', {} done", origin.checkpoint->path, counted(progress_.step, "step"));
        say_what_moved();
    } else if (origin.weights != nullptr) {
        progress_.padded_vocab_size = origin.weights->padded_vocab_size();
    } else {
        state_.initialise(static_cast<uint64_t>(options_.seed));
    }
    give_back_freed_memory();
    // Activations have their memory back (train_gpt.cu lends it), and are where the threads that use them are.
    if (!state_.backend().on_gpu())
        state_.backend().zero({DType::U8, state_.arena(), run_.memory().layout.arena_bytes});
    gather_parameters(state_, comm_);
}

/// The model at the beginning is validated too, and so is one whose validation was cut short when the run was stopped.
/// The best validation so far is of the checkpoints that are there; whoever is killed has not always named it.
void Trainer::recall_validations(const Origin& origin) {
    if (options_.val_every == 0) return;
    std::vector<double> recalled = {0, best_loss_};
    if (comm_.is_root()) {
        const std::string run = origin.checkpoint ? find_run_folder(origin.checkpoint->path, "--resume") : run_folder_;
        recalled[0] = progress_.step == 0 || lacks_validation(options_, run, progress_.step) ? 1 : 0;
        const BestCheckpoint best = best_checkpoint(run_folder_, progress_.step);
        recalled[1] = best.loss;
        if (options_.keep_best && !best.is_named) unnamed_best_ = best.step;
        if (options_.keep_best && best.is_unknown()) {
            const std::string file = checkpoints_folder(run_folder_) + "/" + kBestName;
            spdlog::warn(
                "--keep-best: '{}' names step {}, whose validation loss is lost: it stays the best, whatever comes; "
                "remove that file, and the next --resume names the best of the others",
                file, best.step);
        }
    }
    recalled = comm_.all_gather(recalled)[0];
    validates_first_ = recalled[0] != 0;
    best_loss_ = recalled[1];
}

/// Checkpoints of the run so far are on the disk already; while a new one is written, those to be kept are there too,
/// and what is more goes before. (Later ones, from which the run goes back, are moved aside and do not count.)
void Trainer::warn_of_full_disk() const {
    const int64_t left = options_.steps - progress_.step, every = options_.checkpoint_every;
    const std::vector<int64_t> steps = list_steps(run_folder_);
    const auto there =
        static_cast<int64_t>(std::upper_bound(steps.begin(), steps.end(), progress_.step) - steps.begin());
    const double minutes = static_cast<double>(left) * predicted_step_ms_ / 60e3;
    const double by_time = options_.checkpoint_minutes > 0 ? minutes / options_.checkpoint_minutes : 0;
    const auto to_come = static_cast<int64_t>(std::min(static_cast<double>(left), 1 + by_time));
    const int64_t all = there + (every == 0 ? std::max<int64_t>(1, to_come) : ceil_div(left, every));
    const int64_t keep = options_.keep_checkpoints == 0 ? all : options_.keep_checkpoints + options_.keep_best;
    const int64_t existing = std::min(there, keep), more = std::max<int64_t>(1, std::min(all, keep + 1) - existing);
    const CheckpointBytes bytes = checkpoint_bytes(state_);
    const int64_t shared = has_frozen_files(run_folder_, state_) ? 0 : bytes.once;
    const int64_t to_go = (there - existing) * bytes.each;
    const std::optional<int64_t> available = free_bytes(run_folder_);
    const int64_t needed = more * bytes.each + shared + kCheckpointSlack;
    if (!available || *available + to_go >= needed) return;
    const int64_t room =
        (*available + to_go - kCheckpointSlack - shared) / bytes.each + existing - 1 - options_.keep_best;
    spdlog::warn(
        "'{}' has {} free{}, but {} of {}{} {} {} with some room to spare; free some space, {}or choose another "
        "--output-dir",
        run_folder_, format_bytes(*available),
        to_go == 0 ? "" : fmt::format(", and {} in checkpoints that are not kept", format_bytes(to_go)),
        counted(more, "checkpoint"), format_bytes(bytes.each),
        shared == 0 ? "" : fmt::format(" and the {} of frozen weights that they share", format_bytes(shared)),
        more == 1 && shared == 0 ? "needs" : "need", format_bytes(needed),
        room > 0 && room < keep ? fmt::format("keep fewer (--keep-checkpoints={}), ", room) : "");
}

/// What a run that goes on keeps elsewhere, or in another format, than before.
void Trainer::say_what_moved() const {
    const std::string now = place_in_words(plan_);
    if (!progress_.places.empty() && progress_.places != now) {
        spdlog::info("resume  {} from here on; before: {}; the training stays the same", now, progress_.places);
    }
    const StateFormats formats = formats_of(plan_.places);
    if (progress_.train_tokens != 0 && progress_.formats != formats) {
        const auto words = [](const StateFormats& of) { return of == StateFormats() ? "fp32" : describe(of); };
        spdlog::info("resume  optimiser state converted: {}; the run kept {} before", words(formats),
                     words(progress_.formats));
    }
    if (progress_.train_tokens != 0 && progress_.dtype != options_.dtype) {
        spdlog::info("resume  parameters converted to {}; the run kept them in {} before", options_.dtype,
                     progress_.dtype);
    }
    const std::string_view base = name_of(plan_.places.base());
    if (progress_.train_tokens != 0 && !progress_.base.empty() && progress_.base != base && progress_.dtype != base) {
        spdlog::info("resume  frozen matrices converted to {}; the run kept them as {} before", base, progress_.base);
    }
    const Arithmetic arithmetic = state_.backend().info().arithmetic;
    if (progress_.train_tokens != 0 && changes(progress_.arithmetic, arithmetic)) {
        spdlog::info("resume  {} from here on; before: {}; the last bits change", describe(arithmetic),
                     describe(progress_.arithmetic));
    }
    const std::string run = find_run_folder(options_.resume, "--resume");
    const std::vector<int64_t> steps = list_steps(run);
    if (options_.output_dir.empty() && !steps.empty() && steps.back() > progress_.step) {
        spdlog::info("resume  goes back to step {}: after the next step later checkpoints (up to {}) are moved aside",
                     progress_.step, steps.back());
    }
    const Options before = options_of_run(run, "--resume=" + options_.resume);
    const auto say_dropout = [](const char* name, double now_is, double was) {
        if (now_is != was) spdlog::info("resume  --{}={:g} from here on; {:g} before", name, now_is, was);
    };
    say_dropout("dropout", options_.dropout, before.dropout);
    say_dropout("lora-dropout", options_.lora_dropout, before.lora_dropout);
    const Schedule schedule = schedule_of(options_), earlier = schedule_of(before);
    if (progress_.train_tokens == 0 || schedule == earlier) return;
    int64_t step = progress_.step;
    while (step < options_.steps && learning_rate(schedule, step) == learning_rate(earlier, step)) ++step;
    if (step == options_.steps) return;
    const auto [now_is, was] = told_apart(learning_rate(schedule, step), learning_rate(earlier, step));
    spdlog::info("resume  another schedule of learning rates ({} in all, {} before): {} at step {}, not {}",
                 counted(options_.steps, "step"), before.steps, now_is, step + 1, was);
}

/// Samples are rank 0's, or, where no rank has all parameters, everybody's together.
void Trainer::make_generator(const PlannedMemory& memory) {
    const bool together = state_.places().in_pieces(Buffer::Parameters);
    if (sample_prompt_.empty()) return;
    if (!comm_.is_root() && !together) return;
    const bool at_hand = !state_.places().arrive(Buffer::Parameters) && !state_.places().arrive(Buffer::Frozen);
    const Parallel parallel = at_hand ? Parallel() : state_.parallel();
    const Places places = at_hand ? state_.places().at_hand() : state_.places();
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
    const StopRequest stop(
        fmt::format("--resume={} goes on from the newest checkpoint, if there is one", shell_word(run_folder_)));
    stop_ = &stop;
    saved_at_ = now_seconds();
    loader_.seek(progress_.next_sequence);
    read_step_data();
    if (validates_first_) validate();
    // Of a run that has done all else.
    const bool has_something_to_write = first_validation_ || unnamed_best_;
    if (has_something_to_write && progress_.step == options_.steps) attempt([&] { begin_folder(); });
    exchange({});
    while (progress_.step < options_.steps && !is_ending()) after_step(try_step());
    finish();
    spdlog::debug("used    {} bytes of the arena, {} of host memory, at most", executor_.high_water_bytes(),
                  executor_.host_high_water_bytes());
    stop_ = nullptr;
}

bool Trainer::is_due(int64_t every) const { return every > 0 && progress_.step % every == 0; }

/// By the clock of this rank. Where --checkpoint-every says which steps are kept, none pushes them out.
bool Trainer::is_due_by_time() const {
    return options_.checkpoint_every == 0 && options_.checkpoint_minutes > 0 &&
           now_seconds() - saved_at_ >= 60 * options_.checkpoint_minutes;
}

/// Targets that count in the update after `done` others, of all ranks.
int64_t Trainer::scored_of_step(int64_t done) const {
    const int64_t sequences = tokens_per_step_ / options_.seq_len;
    return scored_in(loader_.sequences(), progress_.next_sequence + (done - progress_.step) * sequences, sequences);
}

/// Enqueues this rank's other micro-batches, the update behind the last, and copies of the numbers: where the order of
/// sums must not depend on the ranks the loss of each micro-batch, else the sum of all.
void Trainer::run_update() {
    const bool one_by_one = state_.parallel().rank_invariant;
    for (int64_t micro = 0; micro < micro_batches_; ++micro) {
        status_line_.micro_batch(micro);
        if (micro > 0) run_micro_batch(micro);
        if (one_by_one || micro + 1 == micro_batches_) numbers_.copy_loss(one_by_one ? micro : 0, state_.loss_sum());
    }
    updates_ = true;
    executor_.release_update();
    numbers_.copy_norm(state_.grad_norm());
}

/// While the device is at work on the step before. Of a large update only the beginning is kept; the rest is read in
/// its turn, and where nobody has scanned the data looked at already now.
void Trainer::read_step_data() {
    constexpr int64_t kKeptBytes = 8 << 20, kKeptBatches = 1024;
    const int64_t batch_bytes = 3 * size_of(DType::I32) * options_.batch_size * options_.seq_len;
    const int64_t kept = std::clamp<int64_t>(kKeptBytes / batch_bytes, 1, std::min(micro_batches_, kKeptBatches));
    step_data_.resize(static_cast<size_t>(kept));
    for (Batch& batch : step_data_) batch = loader_.next();
    if (!options_.no_scan || kept == micro_batches_) return;
    const int64_t position = loader_.position();
    for (int64_t micro = kept; micro < micro_batches_ && stop_->signal() == 0; ++micro) loader_.next();
    loader_.seek(position);
}

const Batch& Trainer::batch_of(int64_t micro) {
    const auto number = static_cast<size_t>(micro);
    return number < step_data_.size() ? step_data_[number] : loader_.next();
}

/// Whether the last micro-batch of the step at hand is timed, with the update; the first steps of a run warm up.
bool Trainer::profiles() const {
    return !options_.profile.empty() && comm_.is_root() &&
           (step_times_.steps() == StepTimes::kWarmupSteps ||
            (step_times_.steps() < StepTimes::kWarmupSteps && progress_.step + 1 == options_.steps));
}

void Trainer::run_micro_batch(int64_t micro) {
    RunArguments arguments = {.turn = {.first = micro == 0, .last = micro + 1 == micro_batches_}};
    arguments.scored = put_batch(executor_, state_.backend(), batch_of(micro));
    const bool is_timed = arguments.turn.last && profiles();
    arguments.holds_update = !is_timed;
    const bool updated = std::exchange(updates_, updates_ || is_timed || executor_.has_pending_update());
    if (state_.places().format(Buffer::Gradients) != DType::F32) {
        state_.set_control(UpdateControl::MicroBatch, static_cast<double>(micro * comm_.size()));
    }
    std::vector<double> seconds;
    executor_.run(arguments, is_timed ? &seconds : nullptr);
    is_timed ? attempt([&] { write_profile(seconds); }) : void(updates_ = updated);
}

/// Adds up in the order of the micro-batches' numbers.
double Trainer::sum_over_ranks(std::span<const double> losses) {
    const std::vector<std::vector<double>> all = exchange({losses.begin(), losses.end()});
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
    write_output("--profile", options_.profile, chrome_trace(state_.model(), plan_, seconds));
    try_print_output(profile_table(rows, device, state_.dtype()) + "\n", "the profile");
    spdlog::info(
        "step {}: trace of the last micro-batch and the update in '{}', for chrome://tracing or ui.perfetto.dev",
        progress_.step + 1, options_.profile);
}

/// A step that fails in its middle leaves no state to be saved; before its update that of the last step is still there,
/// where no other rank has gone further.
StepMetrics Trainer::try_step() {
    try {
        return train_step();
    } catch (const std::exception& error) {
        const bool is_whole = comm_.size() == 1 && !updates_ && saved_step_ != progress_.step;
        if (is_whole) attempt([&] { save(); });
        throw Error(kExitFailed, fmt::format("{}; {}", words_of(error), how_to_go_on()));
    }
}

/// Ends a pending update, before anybody but the next step wants parameters, masters or moments; on all ranks together.
/// Failing in its middle leaves no state to be saved.
void Trainer::flush() {
    if (!executor_.has_pending_update()) return;
    comm_.doing(fmt::format("the update of step {}", progress_.step));
    updates_ = true;
    try {
        executor_.flush();
        comm_.synchronize();
    } catch (const std::exception& error) {
        throw Error(kExitFailed, fmt::format("{}; {}", words_of(error), how_to_go_on()));
    }
    updates_ = false;
}

/// Nothing in it counts, so there is no gradient.
StepMetrics Trainer::skip_step() {
    if (comm_.is_root()) spdlog::warn("step {}: no target counts; the update was skipped", progress_.step + 1);
    StepMetrics metrics;
    metrics.learning_rate = learning_rate(schedule_of(options_), progress_.step);
    metrics.step = ++progress_.step;
    metrics.loss = std::nan("");
    progress_.next_sequence += tokens_per_step_ / options_.seq_len;
    loader_.seek(progress_.next_sequence);
    if (progress_.step < options_.steps) attempt([&] { read_step_data(); });
    exchange({});
    metrics.memory_bytes = state_.allocated_bytes();
    return metrics;
}

/// Whether the first micro-batch of the step after this one is begun before the numbers of this one are read. Not where
/// something comes between the two that uses the device, or is measured; and a backend that finishes before it returns
/// would only have the numbers wait.
bool Trainer::begins_early() const {
    const int64_t done = progress_.step + 1;
    const auto is_due_then = [&](int64_t every) { return every > 0 && done % every == 0; };
    const bool samples = options_.sample_length > 0 && is_due_then(options_.sample_every);
    const bool saves = checkpoint_is_due_ || is_due_then(options_.checkpoint_every);
    return state_.backend().on_gpu() && done < options_.steps && !is_due_then(options_.val_every) && !samples &&
           !saves && !options_.check_ranks && options_.profile.empty();
}

/// Begins the step after `done` others with its first micro-batch; not where nothing counts in it.
void Trainer::begin_step(int64_t done) {
    const int64_t scored = scored_of_step(done);
    if (scored == 0) return;
    begun_ = {scored, learning_rate(schedule_of(options_), done)};
    state_.set_loss_scale(1.0f / static_cast<float>(scored));
    state_.set_control(UpdateControl::LearningRate, static_cast<float>(begun_->learning_rate));
    run_micro_batch(0);
}

StepMetrics Trainer::train_step() {
    if (!begun_) step_from_ = now_seconds();
    comm_.doing(fmt::format("step {}", progress_.step + 1));
    const double expected_ms = smoothed_step_ms_ > 0 ? smoothed_step_ms_ : predicted_step_ms_;
    status_line_.begin({.step = progress_.step + 1,
                        .steps = options_.steps,
                        .micro_batch = 1,
                        .micro_batches = micro_batches_,
                        .expected_seconds = expected_ms / 1e3,
                        .loss = last_loss_});
    if (!begun_) begin_step(progress_.step);
    const StepMetrics metrics = begun_ ? end_step() : skip_step();
    status_line_.end();
    return metrics;
}

/// The loss is the mean over the targets that count in the whole update, whatever micro-batch or rank has how many: it
/// is known how many there are before the first of them.
StepMetrics Trainer::end_step() {
    const BegunStep step = *std::exchange(begun_, std::nullopt);
    run_update();
    const int communication = comm_.begun();
    if (progress_.step + 1 < options_.steps) attempt([&] { read_step_data(); });
    if (begins_early()) begin_step(progress_.step + 1);
    comm_.synchronize(communication);
    numbers_.wait();  // The device is waited for only here.

    StepMetrics metrics;
    metrics.learning_rate = step.learning_rate;
    metrics.grad_norm = numbers_.norm();
    metrics.step = ++progress_.step;
    metrics.skipped = !std::isfinite(metrics.grad_norm);
    if (!metrics.skipped) ++progress_.updates;
    progress_.next_sequence += micro_batches_ * options_.batch_size * comm_.size();
    updates_ = false;
    metrics.loss = sum_over_ranks(numbers_.losses()) / static_cast<double>(step.scored);
    if (loader_.sequences().partly_scored()) metrics.scored_tokens = step.scored;
    if (options_.check_ranks) flush();
    if (options_.check_ranks) metrics.checksum = common_checksum(state_, comm_);
    const double now = now_seconds(), seconds = now - std::exchange(step_from_, now);
    metrics.step_ms = seconds * 1e3;
    metrics.tokens_per_second = static_cast<double>(tokens_per_step_) / seconds;
    if (peak_flops_ > 0) {
        metrics.mfu = model_flops_per_token(state_.model(), options_.seq_len) * metrics.tokens_per_second / peak_flops_;
    }
    metrics.memory_bytes = state_.allocated_bytes();
    last_loss_ = metrics.loss;
    losses_.add(metrics.loss);
    return metrics;
}

}  // namespace llmc
