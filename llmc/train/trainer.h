// The training loop of one rank. Everything it needs exists before it starts: state, plan, data, the other ranks; what
// it does per step is read, run, reduce, update, report. Rank 0 writes and prints for all.
#pragma once

#include "llmc/base/stop_signal.h"
#include "llmc/run/executor.h"
#include "llmc/train/checkpointing.h"
#include "llmc/train/evaluation.h"
#include "llmc/train/generation.h"
#include "llmc/train/initial_weights.h"
#include "llmc/train/metrics.h"
#include "llmc/train/run_description.h"

#include <memory>
#include <string>

namespace llmc {

class Trainer {
  public:
    /// All arguments but `origin` must outlive the trainer. What that has is loaded, else the weights are drawn.
    Trainer(const RunDescription& run, State& state, const Origin& origin, const std::string& run_folder, Comm& comm);

    /// Trains up to --steps, or until SIGINT, SIGTERM or SIGUSR1 on any rank, which end the step at hand on all of
    /// them, write a checkpoint and return.
    void run();

    const Progress& progress() const { return progress_; }

  private:
    void load(const Origin& origin);
    void say_what_moved() const;
    void make_generator(const PlannedMemory& memory);
    StepMetrics train_step();
    std::vector<double> run_update();
    void run_micro_batch(int64_t micro);
    double sum_over_ranks(const std::vector<double>& losses);
    void write_profile(const std::vector<double>& seconds) const;
    void report(const StepMetrics& metrics);
    void report_times() const;
    void count_skipped(const StepMetrics& metrics);
    void validate();
    void print_sample();
    void save();
    bool is_due(int64_t every) const;

    const Options& options_;
    State& state_;
    const Data& data_;
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
    std::unique_ptr<TextGenerator> generator_;
    MetricsFile metrics_file_;
    Progress progress_;
    const StopRequest* stop_ = nullptr;  ///< While it runs.
    int stop_signal_ = 0;                ///< What some rank was asked to stop by; all know the same.
    int64_t skipped_in_a_row_ = 0;
    double smoothed_step_ms_ = 0;
    std::vector<double> step_ms_;  ///< Of the last steps but the first two, which warm up.
    int64_t steps_timed_ = 0;
    double predicted_step_ms_;
    std::string times_source_;  ///< Of the prediction.
};

}  // namespace llmc
