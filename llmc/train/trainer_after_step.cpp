// What comes after a step: lines, validation, samples, checkpoints, and the end of the run.
#include "llmc/base/counted.h"
#include "llmc/base/error.h"
#include "llmc/base/log.h"
#include "llmc/base/output.h"
#include "llmc/base/printable.h"
#include "llmc/base/process_limits.h"
#include "llmc/base/shown_text.h"
#include "llmc/base/stop_signal.h"
#include "llmc/base/units.h"
#include "llmc/base/utf8.h"
#include "llmc/draw/report_units.h"
#include "llmc/io/checkpoint_folder.h"
#include "llmc/plan/cost.h"
#include "llmc/train/gemm_choice.h"
#include "llmc/train/plan_files.h"
#include "llmc/train/trainer.h"

#include <algorithm>
#include <cmath>
#include <new>
#include <utility>

namespace llmc {

std::string words_of(const std::exception& error) {
    return dynamic_cast<const std::bad_alloc*>(&error) == nullptr ? error.what() : out_of_host_memory();
}

/// All that a finished step brings with it.
void Trainer::after_step(const StepMetrics& metrics) {
    const bool last = progress_.step == options_.steps;
    progress_.val_loss.reset();
    if (progress_.step == first_step_ + 1) {
        attempt([&] { begin_folder(); });
        better_loss_.reset();
    }
    attempt([&] { metrics_file_.write(metrics); });
    report(metrics);
    attempt([&] { count_skipped(metrics); });
    if (is_ending()) return;
    const bool validates = options_.val_every > 0 && (last || is_due(options_.val_every));
    const bool samples = options_.sample_length > 0 && (last || is_due(options_.sample_every));
    if (validates || samples) flush();
    if (validates) attempt([&] { validate(); });
    if (samples) attempt([&] { print_sample(); });
    if (validates || samples || last || comm_.size() == 1) exchange({});
    if (is_ending() || last) return;
    checkpoint_is_due_ = checkpoint_is_due_ || is_due(options_.checkpoint_every);
    // Skipped updates change nothing, and must not push out the last good checkpoints. A step that is begun already
    // comes first; the one after it is not begun early.
    if ((checkpoint_is_due_ && skipped_in_a_row_ == 0 && !begun_) || better_loss_) save();
    better_loss_.reset();
}

/// Says why the run ends, if it does so early, and saves what is not saved yet. A disk that fails once shall not cost
/// all since the checkpoint before.
void Trainer::finish() {
    if (stop_signal_ != 0) {
        spdlog::info("stopping after step {}, as asked by {}", progress_.step, signal_in_words(stop_signal_));
    }
    if (stop_signal_ != 0 && failed_rank_ < 0 && progress_.step == 0) {
        end_together(0, "stopped before the first step: nothing is saved yet; start again", 128 + stop_signal_);
    }
    for (const bool is_last_try : {false, true}) {
        if (saved_step_ == progress_.step) break;
        if (is_last_try && comm_.is_root()) {
            spdlog::warn("step {}: no checkpoint: {}; it is tried once more", progress_.step, why_not_saved());
        }
        save();
    }
    exchange({});  // What has failed beside the checkpoint.
    report_times();
    warn_of_divergence();
    const bool is_saved = saved_step_ == progress_.step;
    if (failed_rank_ < 0 && is_saved) return;
    std::string cause = failure_;
    if (!is_saved) {
        cause += fmt::format("{}step {} could not be saved: {}", cause.empty() ? "" : "; ", progress_.step,
                             save_result_.cause);
    }
    end_together(failed_rank_ >= 0 ? failed_rank_ : save_result_.failed_rank,
                 fmt::format("{}; {}", cause, how_to_go_on()));
}

/// In a run that goes on nothing is written before its first step is done.
void Trainer::begin_folder() {
    if (folder_ != nullptr && !folder_->has_begun()) {
        folder_->begin(options_, first_step_);
        metrics_file_.open(run_folder_ + "/metrics.jsonl", first_step_);
        if (first_validation_) metrics_file_.write_validation(first_step_, *first_validation_);
    }
    if (folder_ != nullptr) folder_->keep_tokenizer(), write_plan_files(run_, first_step_, run_folder_);
    const bool is_here = options_.output_dir.empty();  // The checkpoint that this process began with.
    if (better_loss_ && is_here) take_best();
    name_best();
}

/// The checkpoint at hand has the lowest validation loss.
void Trainer::take_best() {
    best_loss_ = *std::exchange(better_loss_, std::nullopt);
    if (comm_.is_root()) unnamed_best_ = saved_step_;
}

/// Where it fails it is tried again with the next checkpoint, before any is removed.
void Trainer::name_best() {
    if (!unnamed_best_) return;
    name_checkpoint(run_folder_, kBestName, *unnamed_best_);
    unnamed_best_.reset();
}

/// What fails here on this rank ends the run on all of them: later, together, with a checkpoint.
void Trainer::attempt(const std::function<void()>& work) {
    try {
        work();
    } catch (const std::exception& error) {
        if (failure_.empty()) failure_ = words_of(error);
    }
}

/// Everybody's numbers. On the way all ranks hear of a stop that one was asked for, of a failure, and whether rank 0
/// thinks that a checkpoint is due.
std::vector<std::vector<double>> Trainer::exchange(std::vector<double> mine) {
    mine.push_back(is_due_by_time() ? 1 : 0);
    mine.push_back(stop_->signal());
    mine.push_back(failure_.empty() ? 0 : 1);
    std::vector<std::vector<double>> all = comm_.all_gather(mine);
    for (size_t rank = 0; rank < all.size(); ++rank) {
        if (all[rank].back() != 0 && failed_rank_ < 0) failed_rank_ = static_cast<int>(rank);
        all[rank].pop_back();
        if (stop_signal_ == 0) stop_signal_ = static_cast<int>(all[rank].back());
        all[rank].pop_back();
        if (rank == 0 && all[rank].back() != 0) checkpoint_is_due_ = true;
        all[rank].pop_back();
    }
    return all;
}

bool Trainer::has_diverged() const { return skipped_in_a_row_ >= options_.max_skipped_steps; }

std::string Trainer::how_to_go_on() const try {
    if (has_diverged()) {
        // With the weights of that one there was a finite gradient.
        std::vector<int64_t> steps = list_steps(run_folder_);
        std::erase_if(steps, [&](int64_t step) { return step >= progress_.step - skipped_in_a_row_; });
        if (steps.empty()) return "no checkpoint is from before; start again with a lower --learning-rate";
        return fmt::format("go on from before with a lower --learning-rate and --resume={}",
                           shell_word(fmt::format("{}/checkpoints/{}", run_folder_, step_name(steps.back()))));
    }
    const std::optional<int64_t> newest = newest_step(run_folder_);
    if (!newest) return "there is no checkpoint to go on from";
    if (*newest > progress_.step) return "the run folder is as it was";
    return fmt::format("{} is saved: go on with --resume={}",
                       *newest == progress_.step ? fmt::format("step {}", *newest)
                                                 : fmt::format("only step {} of {}", *newest, progress_.step),
                       shell_word(run_folder_));
} catch (const Error& error) {  // The folder cannot be read, which is no reason to forget what ended the run.
    return error.what();
}

/// Ends the run on all ranks, in the words of one.
void Trainer::end_together(int rank, const std::string& cause, int exit_code) {
    comm_.barrier();                            // Nobody ends the others before all have finished.
    if (comm_.rank() != rank) comm_.barrier();  // The end comes here.
    throw Error(exit_code, cause);
}

void Trainer::report(const StepMetrics& m) {
    step_times_.add(m.step_ms);
    smoothed_step_ms_ = smoothed_step_ms_ == 0 ? m.step_ms : 0.95 * smoothed_step_ms_ + 0.05 * m.step_ms;
    const bool ends = m.step == options_.steps || m.step == 1 || is_ending();
    if (m.step % options_.log_every != 0 && !ends) return;
    const std::string mfu = m.mfu > 0 ? fmt::format("{:.1f} % MFU", 100 * m.mfu) : "MFU n/a";
    const double left = static_cast<double>(options_.steps - m.step) * smoothed_step_ms_ / 1e3;
    spdlog::info("step {:>{}}/{} | loss {:.4f} | lr {:.2e} | norm {:.3f} | {:.1f} ms | {} tok/s | {} | {} | {} left",
                 m.step, std::to_string(options_.steps).size(), options_.steps, m.loss, m.learning_rate, m.grad_norm,
                 m.step_ms, rate_text(m.tokens_per_second), mfu, format_bytes(m.memory_bytes), format_duration(left));
}

/// What the plan promised beside what it took.
void Trainer::report_times() const {
    if (step_times_.size() == 0) return;
    const double typical = step_times_.median_ms(), error = predicted_step_ms_ / typical - 1;
    spdlog::info("time    {:.1f} ms per step in the median of {}, predicted {:.1f} ms ({:+.1f} %; {})", typical,
                 step_times_.size(), predicted_step_ms_, 100 * error, source_in_hindsight(run_.chosen.times, error));
}

/// A run that came to its end may have learned nothing.
void Trainer::warn_of_divergence() const {
    const bool validated = validation_losses_.first.has_value();
    const LossEnds& losses = validated ? validation_losses_ : losses_;
    if (!comm_.is_root() || !losses.have_diverged()) return;
    spdlog::warn(
        "the training diverged: the {} loss is {:.4g} in the end, and was {:.4g} at first; begin again with less than "
        "--learning-rate={:g}, or with more --warmup",
        validated ? "validation" : "training", *losses.last, *losses.first, options_.learning_rate);
}

void Trainer::count_skipped(const StepMetrics& metrics) {
    skipped_in_a_row_ = metrics.skipped ? skipped_in_a_row_ + 1 : 0;
    if (!metrics.skipped) return;
    if (comm_.is_root()) {  // Which speaks for all.
        spdlog::warn("step {}: the gradient is not finite (loss {}); the update was skipped, {} in a row", metrics.step,
                     metrics.loss, skipped_in_a_row_);
    }
    if (!has_diverged()) return;
    failed_rank_ = 0;
    fail("{} in a row had non-finite gradients", counted(skipped_in_a_row_, "update"));
}

/// Cut short where the run is asked to stop; there is no line of it then, and a resume begins with it.
void Trainer::validate() {
    comm_.doing("validation");
    const auto loss =
        evaluator_.loss(val_loader_, val_loader_.sequences().per_epoch(), [&] { return stop_->signal() != 0; });
    if (!loss) return;
    validation_losses_.add(*loss);
    progress_.val_loss = loss;
    // There is no checkpoint of step 0.
    if (options_.keep_best && progress_.step > 0 && *loss < best_loss_) better_loss_ = loss;
    spdlog::info("step {}: validation loss {:.4f} {}{}", progress_.step, *loss, loss_unit(run_),
                 better_loss_ ? ", the lowest so far" : "");
    if (folder_ != nullptr && !folder_->has_begun()) {
        first_validation_ = *loss;
    } else {
        metrics_file_.write_validation(progress_.step, *loss);
    }
}

/// Nothing is printed where the run is asked to stop meanwhile.
void Trainer::print_sample() {
    if (generator_ == nullptr) return;
    struct CutShort {};
    const bool together = comm_.size() > 1 && state_.places().in_pieces(Buffer::Parameters);
    const auto sampling = comm_.busy("a sample");
    SamplerSettings settings;
    settings.seed = static_cast<uint64_t>(options_.seed);
    std::vector<int32_t> tokens;
    try {
        generator_->generate(sample_prompt_, options_.sample_length, settings, static_cast<uint32_t>(progress_.step),
                             [&](int32_t token) {
                                 if (together) exchange({});
                                 if (together ? is_ending() : stop_->signal() != 0) throw CutShort();
                                 tokens.push_back(token);
                             });
    } catch (const CutShort&) {
        return;
    }
    if (!comm_.is_root()) return;
    const std::string text = as_utf8(options_.sample_prompt + data_.tokenizer->decode(tokens));
    try_print_output(
        fmt::format("---- sample after {} ----\n{}\n----\n", counted(progress_.step, "step"), shown_on_output(text)),
        "a sample");
    keep_sample(text);
}

/// In samples.jsonl. Nothing depends on it.
void Trainer::keep_sample(const std::string& text) {
    try {
        if (!samples_file_.is_open()) samples_file_.open(run_folder_ + "/samples.jsonl", progress_.step - 1);
        samples_file_.write_sample(progress_.step, text);
    } catch (const Error& error) {
        spdlog::warn("step {}: a sample is not kept: {}", progress_.step, error.what());
    }
}

/// Files that are open may have lost their names; `is_said`: that some were removed.
void Trainer::follow_lines(bool is_said) {
    const std::string metrics = folder_->path() + "/metrics.jsonl", samples = folder_->path() + "/samples.jsonl";
    if (!samples_file_.is_at(samples)) samples_file_.close();
    if (metrics_file_.is_at(metrics)) return;
    if (!is_said && metrics_file_.is_open()) {
        spdlog::warn("'{}' was replaced by another file: lines from here on follow what is in that", metrics);
    }
    attempt([&] { metrics_file_.open(metrics, progress_.step); });
}

/// All ranks write where rank 0 finds the folder.
SaveResult Trainer::follow_folder() {
    std::string obstacle;
    try {
        if (folder_ != nullptr) follow_lines(folder_->follow());
    } catch (const std::exception& error) {
        obstacle = words_of(error);
    }
    run_folder_ = comm_.broadcast(folder_ != nullptr ? folder_->path() : "");
    obstacle = comm_.broadcast(obstacle);
    return {obstacle.empty() ? -1 : 0, obstacle};
}

/// When a checkpoint is due after this one.
std::string Trainer::next_try() const {
    const int64_t every = options_.checkpoint_every;
    if (every == 0 && options_.checkpoint_minutes > 0) {
        return fmt::format("in {:g} minutes", options_.checkpoint_minutes);
    }
    const int64_t step = every == 0 ? options_.steps : std::min((progress_.step / every + 1) * every, options_.steps);
    return fmt::format("at step {}", step);
}

std::string Trainer::why_not_saved() const {
    const std::string& cause = save_result_.cause;
    return comm_.size() == 1 ? cause : fmt::format("rank {}: {}", save_result_.failed_rank, cause);
}

/// A power cut that leaves a checkpoint leaves the lines of its steps.
void Trainer::sync_lines() {
    attempt([&] { metrics_file_.sync(); });
    try {
        samples_file_.sync();
    } catch (const Error& error) {
        spdlog::warn("step {}: samples may not be kept: {}", progress_.step, error.what());
    }
}

/// A failure is no end: disks get room again. What is not kept goes first, since the checkpoint may need its room.
void Trainer::save() {
    flush();
    comm_.doing("a checkpoint");
    checkpoint_is_due_ = false;
    save_result_ = follow_folder();
    progress_.gemms = state_.backend().gemm_algorithms();
    if (save_result_.ok()) {
        sync_lines();
        tidy_checkpoints();
        save_result_ = save_checkpoint(run_folder_, state_, progress_, comm_, frozen_file_);
    }
    saved_at_ = now_seconds();
    if (!save_result_.ok()) {
        if (!comm_.is_root() || is_ending() || progress_.step == options_.steps) return;
        spdlog::warn("step {}: no checkpoint: {}; training goes on, and tries again {}", progress_.step,
                     why_not_saved(), next_try());
        return;
    }
    saved_step_ = progress_.step;
    spdlog::info("step {}: checkpoint in '{}/checkpoints'", progress_.step, run_folder_);
    keep_gemms();
    if (better_loss_) take_best();
    tidy_checkpoints();
}

/// What --gemm-algorithms of another run may be told, as the checkpoint has it.
void Trainer::keep_gemms() const {
    if (!comm_.is_root() || progress_.gemms.library.empty()) return;
    try {
        write_gemm_algorithms(run_folder_ + "/" + kGemmFile, progress_.gemms);
    } catch (const Error& error) {
        spdlog::warn("step {}: {}", progress_.step, error.what());
    }
}

/// What is not needed for going on; a full disk may prevent it. After a failure nothing is thrown away.
void Trainer::tidy_checkpoints() {
    if (!comm_.is_root()) return;
    try {
        name_best();
        const bool has_failed = failed_rank_ >= 0 || !failure_.empty();
        if (!has_failed) prune_checkpoints(run_folder_, options_.keep_checkpoints);
    } catch (const Error& error) {
        spdlog::warn("step {}: {}", progress_.step, error.what());
    }
}

}  // namespace llmc
