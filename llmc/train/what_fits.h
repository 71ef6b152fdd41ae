// What fits a device: the largest batch, the longest sequence and the fastest batch of every level, by plans to the
// byte, of which as few are made as will do.
#pragma once

#include "llmc/draw/what_fits_table.h"
#include "llmc/train/choose_plan.h"

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace llmc {

class WhatFits {
  public:
    /// Of a run with these options (their --offload, --ranks, --dtype ...) within `limit` bytes.
    WhatFits(Options options, const Model& model, Backend& backend, int64_t limit);

    /// The model as it stands takes sequences so long; where it has learned positions, no longer ones.
    int64_t published_length() const { return published_length_; }
    int64_t longest_sequence() const;

    bool fits(const std::string& policy, const BatchShape& shape) const;
    /// With speed. Where it does not fit, auto's bytes are those of its smallest plan.
    Fit measure(const std::string& policy, const BatchShape& shape) const;

    /// Tokens per second of a fixed level, whatever it needs: without the layout that bytes take.
    double speed(const std::string& policy, const BatchShape& shape) const;

    /// The most sequences of `T` tokens.
    Largest batch(const std::string& policy, int64_t T) const;
    /// The longest of one sequence, a multiple of 64.
    Largest sequence(const std::string& policy) const;
    /// The fastest of batches up to `largest`, and of those in `others`.
    Largest fastest(const std::string& policy, int64_t T, const Largest& largest,
                    const std::vector<int64_t>& others = {}) const;
    WhatFitsRow row(const std::string& policy, int64_t T, const std::vector<int64_t>& others = {}) const;

    const Options& options() const { return options_; }

  private:
    Model model_for(int64_t T) const;
    PlanRequest request(const Model& model, const BatchShape& shape) const;
    bool fits(const std::string& policy, const Model& model, const PlanRequest& request) const;
    Fit measure(const std::string& policy, const Model& model, const PlanRequest& request) const;
    /// What `shape` needs at least, and one sequence more or less: where to begin to look.
    int64_t guess(const std::string& policy, const BatchShape& unit, int64_t step) const;

    const Options options_;
    const Model& model_;
    Backend& backend_;
    const int64_t limit_;
    int64_t published_length_ = 0;
};

/// Sequences are not shortened below this.
constexpr int64_t kShortestContext = 128;

/// The options with a --offload, and perhaps shorter sequences, with which something fits: as they are, if that does;
/// else the fastest placement. Only what the user left open is changed. Nothing if nothing fits.
std::optional<Options> with_what_fits(const Options& options, const Model& model, Backend& backend, int64_t limit);

}  // namespace llmc
