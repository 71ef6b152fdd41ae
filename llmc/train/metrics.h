// metrics.jsonl: one JSON object per line, a line per update and a line per validation, for scripts and plots.
// samples.jsonl: a line per sample.
#pragma once

#include "llmc/draw/series.h"

#include <cstdint>
#include <cstdio>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace llmc {

/// What one update reports.
struct StepMetrics {
    int64_t step = 0;           ///< From 1.
    double loss = 0;            ///< Mean cross-entropy, nats per token that counts, before the update.
    int64_t scored_tokens = 0;  ///< How many count, where not all do.
    double learning_rate = 0;
    double grad_norm = 0;  ///< Before clipping.
    double step_ms = 0;
    double tokens_per_second = 0;
    double mfu = 0;            ///< Model FLOPs utilisation, 0 .. 1; 0 where the peak is unknown (null in the file).
    int64_t memory_bytes = 0;  ///< Allocated.
    bool skipped = false;      ///< The gradient was not finite; nothing was updated.
    std::string checksum;      ///< Of the parameters after the update, with --check-ranks.
};

class MetricsFile {
  public:
    MetricsFile() = default;
    ~MetricsFile();
    MetricsFile(const MetricsFile&) = delete;
    MetricsFile& operator=(const MetricsFile&) = delete;

    /// Opens `path` for appending; what metrics_up_to() leaves out is dropped first, in one atomic replacement. May be
    /// called again, for another file; where that fails, none is open.
    void open(const std::string& path, int64_t last_step);
    bool is_open() const { return file_ != nullptr; }
    /// Whether `path` leads to the open file, which may have lost its name, or have lost it to another file.
    bool is_at(const std::string& path) const;
    void close();
    /// All lines so far outlast a power cut. Without an open file there are none.
    void sync() const;
    void write(const StepMetrics& metrics);
    void write_validation(int64_t step, double loss);
    /// Bytes of `text` that are no UTF-8 are replaced.
    void write_sample(int64_t step, const std::string& text);

  private:
    void write_line(const std::string& line);

    std::FILE* file_ = nullptr;
    std::string path_;
};

/// The lines of a run's metrics.jsonl that are still true after going back to `last_step`, with what belongs to no step
/// left out; none where that is 0. Empty if there is no such file.
std::string metrics_up_to(const std::string& path, int64_t last_step);

/// Validation losses by step, as a run's metrics.jsonl has them; empty if there is no such file. Null is NaN.
std::map<int64_t, double> validation_losses(const std::string& path);

/// All that a run's metrics.jsonl has, for pictures.
struct RunHistory {
    Series loss, validation, learning_rate, grad_norm, step_ms, tokens_per_second;
    int64_t last_step = 0, skipped_steps = 0, memory_bytes = 0;
    int64_t tokens = 0;  ///< Of the updates up to the last step.
};

/// Empty if there is no such file. Lines that are cut off or damaged are left out. Updates are of `update_tokens`
/// tokens each, in sequences of `seq_len`, unless a line's time and speed, which are rounded, say that its update had
/// others: then of the nearest number of whole sequences.
RunHistory read_history(const std::string& path, int64_t update_tokens, int64_t seq_len);

/// Samples by step, as a run's samples.jsonl has them.
std::vector<std::pair<int64_t, std::string>> read_samples(const std::string& path);

}  // namespace llmc
