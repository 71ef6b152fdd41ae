// The training loop of one rank. Everything it needs exists before it starts: state, plan, data, the other ranks; what
// it does per step is read, run, reduce, update, report. Rank 0 writes and prints for all.
//
// Where the backend works beside the host, the first micro-batch of the next step is begun before the loss and the norm
// of this one are read, so that the device has work while the host reports. Until its update it changes nothing that is
// kept: where the run ends with this step, the micro-batch has not been.
//
// Nothing that was trained is lost. What can fail beside the step itself (the data of the next step, metrics,
// validation, samples) is tried after it, with the model in the state of a finished step (where the plan delays
// updates, a pending one is flushed first); a failure is heard of by all ranks when they exchange losses or a few
// numbers (exchange()), and ends the run after a checkpoint. A checkpoint that cannot be written ends nothing: it is
// tried again when the next one is due, and at the end, there twice.
#pragma once

#include "llmc/base/error.h"
#include "llmc/base/stop_signal.h"
#include "llmc/run/executor.h"
#include "llmc/train/checkpointing.h"
#include "llmc/train/evaluation.h"
#include "llmc/train/generation.h"
#include "llmc/train/initial_weights.h"
#include "llmc/train/metrics.h"
#include "llmc/train/run_description.h"
#include "llmc/train/run_folder.h"
#include "llmc/train/step_numbers.h"
#include "llmc/train/step_status.h"
#include "llmc/train/step_times.h"

#include <exception>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace llmc {

/// What an exception says, for the user.
std::string words_of(const std::exception& error);

/// The first and the last loss of this process.
struct LossEnds {
    std::optional<double> first, last;
    void add(double loss) {
        if (!first) first = loss;
        last = loss;
    }
    /// Whether what was learned before, or at first, is lost: the last is no number, or far above the first.
    bool have_diverged() const { return first && !(*last <= 1 + 1.25 * *first); }
};

class Trainer {
  public:
    /// All arguments but `origin` must outlive the trainer. A checkpoint that it has is loaded; weights of a model are
    /// in `state` already; else they are drawn. `folder` is there on rank 0, `run_folder` its path on all.
    Trainer(const RunDescription& run, State& state, const Origin& origin, RunFolder* folder,
            const std::string& run_folder, Comm& comm);

    /// Trains up to --steps, or until a signal of stop_signal.h on any rank, which ends the step at hand on all of
    /// them, writes a checkpoint and returns. A failure is an Error that says what is saved and how to go on.
    void run();

    const Progress& progress() const { return progress_; }
    /// Where it is now.
    const std::string& run_folder() const { return run_folder_; }

  private:
    void load(const Origin& origin);
    void recall_validations(const Origin& origin);
    void warn_of_full_disk() const;
    void say_what_moved() const;
    void make_generator(const PlannedMemory& memory);
    StepMetrics try_step();
    StepMetrics train_step();
    bool begins_early() const;
    void begin_step(int64_t done);
    StepMetrics end_step();
    void flush();
    StepMetrics skip_step();
    void read_step_data();
    const Batch& batch_of(int64_t micro);
    void after_step(const StepMetrics& metrics);
    void begin_folder();
    void take_best();
    void name_best();
    void finish();
    void attempt(const std::function<void()>& work);
    std::vector<std::vector<double>> exchange(std::vector<double> mine);
    bool is_ending() const { return stop_signal_ != 0 || failed_rank_ >= 0; }
    std::string how_to_go_on() const;
    [[noreturn]] void end_together(int rank, const std::string& cause, int exit_code = kExitFailed);
    int64_t scored_of_step(int64_t done) const;
    void run_update();
    void run_micro_batch(int64_t micro);
    bool profiles() const;
    double sum_over_ranks(std::span<const double> losses);
    void write_profile(const std::vector<double>& seconds) const;
    void report(const StepMetrics& metrics);
    void report_times() const;
    void warn_of_divergence() const;
    void count_skipped(const StepMetrics& metrics);
    bool has_diverged() const;
    void validate();
    void print_sample();
    void keep_sample(const std::string& text);
    void save();
    std::string next_try() const;
    std::string why_not_saved() const;
    void follow_lines(bool is_said);
    SaveResult follow_folder();
    void sync_lines();
    void keep_gemms() const;
    void tidy_checkpoints();
    bool is_due(int64_t every) const;
    bool is_due_by_time() const;

    struct BegunStep {
        int64_t scored = 0;  ///< Targets that count in it, of all ranks.
        double learning_rate = 0;
    };

    const RunDescription& run_;
    const Options& options_;
    State& state_;
    const Data& data_;
    const std::vector<int32_t>& sample_prompt_;
    Comm& comm_;
    std::string run_folder_;
    int64_t micro_batches_;    ///< Of this rank.
    int64_t tokens_per_step_;  ///< Of all ranks.
    double peak_flops_;
    const Plan& plan_;
    Executor executor_;
    Evaluator evaluator_;
    DataLoader loader_;
    DataLoader val_loader_;
    StepNumbers numbers_;  ///< Of the step at hand.
    std::unique_ptr<TextGenerator> generator_;
    RunFolder* folder_;
    MetricsFile metrics_file_, samples_file_;
    Progress progress_;
    std::vector<Batch> step_data_;            ///< This rank's first micro-batches of the step to come.
    std::optional<BegunStep> begun_;          ///< The step to come, whose first micro-batch is enqueued.
    const StopRequest* stop_ = nullptr;       ///< While it runs.
    int stop_signal_ = 0;                     ///< What some rank was asked to stop by; all know the same.
    std::string failure_;                     ///< What failed on this rank.
    int failed_rank_ = -1;                    ///< A rank where something failed; all know the same.
    bool updates_ = false;                    ///< Parameters are being changed.
    int64_t first_step_ = 0;                  ///< Steps done when this process began.
    int64_t saved_step_ = 0;                  ///< Of the newest checkpoint; 0 if there is none.
    ConstantFile frozen_file_;                ///< What checkpoints share.
    SaveResult save_result_;                  ///< Of the last try.
    bool validates_first_ = false;            ///< Before the first step there is a validation to be done.
    std::optional<double> first_validation_;  ///< Its loss, until the folder is begun.
    double best_loss_ = std::numeric_limits<double>::infinity();  ///< Of the checkpoint that `best` is to name.
    std::optional<double> better_loss_;                           ///< Of the step at hand, which is to be the best.
    std::optional<int64_t> unnamed_best_;                         ///< Of rank 0: what `best` does not name yet.
    int64_t skipped_in_a_row_ = 0;
    bool checkpoint_is_due_ = false;  ///< The same on all ranks.
    double saved_at_ = 0;             ///< Of now_seconds(): the last try, or the beginning.
    double step_from_ = 0;  ///< Of now_seconds(): from where the time of a step counts, or of one that is begun early.
    double smoothed_step_ms_ = 0;
    StepTimes step_times_;
    double predicted_step_ms_;
    double last_loss_ = 0;  ///< Of the step before; 0 before the first.
    LossEnds losses_, validation_losses_;
    StepStatusLine status_line_;
};

}  // namespace llmc
