// Exact answers by doubling and bisection: every candidate is planned to the byte, by the planner that a run uses.
#include "llmc/train/plan_what_fits.h"

#include "llmc/base/units.h"
#include "llmc/draw/labels.h"
#include "llmc/draw/what_fits_table.h"
#include "llmc/io/json_text.h"
#include "llmc/plan/search.h"
#include "llmc/train/choose_plan.h"
#include "llmc/train/plan_output.h"
#include "llmc/train/setup.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <functional>

namespace llmc {
namespace {

constexpr int64_t kMostSequences = 1'000'000;  ///< What --batch-size takes.
constexpr int64_t kMostTokens = 100'000'000;   ///< What --seq-len takes.
constexpr int64_t kSequenceMultiple = 64;
/// So that a plan twice as large as what fits can still be counted.
constexpr int64_t kMostBytes = int64_t{1} << 60;

/// Of the sizes 1, 2, ... `count` times `unit` (the last no more than `cap`), the largest that fits. Doubles from
/// `known`, a size that is known to fit or 0, and then bisects.
Largest largest_that_fits(int64_t unit, int64_t cap, int64_t known, const std::function<Fit(int64_t)>& fit) {
    const int64_t count = ceil_div(cap, unit);
    const auto size = [&](int64_t i) { return std::min(cap, i * unit); };
    int64_t low = std::max<int64_t>(1, known / unit), high = count + 1;  // `low` fits, `high` does not.
    Fit best = fit(size(low));
    if (!best.fits) return {0, size(1), best, false};
    for (int64_t next = 2 * low; next < high; next = 2 * low) {
        const Fit found = fit(size(next));
        if (!found.fits) high = next;
        if (found.fits) low = next, best = found;
    }
    while (low + 1 < high) {
        const int64_t middle = low + (high - low) / 2;
        const Fit found = fit(size(middle));
        (found.fits ? low : high) = middle;
        if (found.fits) best = found;
    }
    return {size(low), size(1), best, low == count};
}

class WhatFits {
  public:
    WhatFits(const Options& options, const Model& model, Backend& backend)
        : options_(options),
          model_(model),
          backend_(backend),
          dtype_(dtype_of_option(options, backend)),
          limit_(std::min(kMostBytes, parse_budget("--what-fits", options.what_fits, backend.info().total()))) {
        // The small presets are as long as the run's sequences.
        const std::optional<ModelConfig> preset = find_preset(options.model);
        const bool as_run = preset.has_value() && preset->maxT == 0 && options.max_seq_len == 0;
        published_length_ = as_run ? kMostTokens : model.config.maxT;
    }

    int64_t limit() const { return limit_; }
    DType dtype() const { return dtype_; }
    /// The model as it stands takes sequences so long; where it has learned positions, no longer ones.
    int64_t published_length() const { return published_length_; }
    int64_t longest_sequence() const { return model_.config.is_rotary() ? kMostTokens : published_length_; }

    Largest batch(const std::string& policy, int64_t known) const {
        return largest_that_fits(1, kMostSequences, known, [&](int64_t B) {
            return fit(policy, {B, options_.seq_len});
        });
    }

    Largest sequence(const std::string& policy, int64_t known) const {
        return largest_that_fits(kSequenceMultiple, longest_sequence(), known, [&](int64_t T) {
            return fit(policy, {1, T});
        });
    }

  private:
    Fit fit(const std::string& policy, const BatchShape& shape) const {
        ModelConfig config = model_.config;
        if (shape.T > published_length_ || published_length_ == kMostTokens) config.maxT = shape.T;
        const Model model = model_to_train(options_, config);
        const PlanRequest request = request_for(options_, model, shape, backend_);
        const OpTimes times = operation_times(options_, model, request, backend_);
        const int64_t state = state_bytes(model, request.places, shape.T, request.parallel, true).total();
        int64_t total = state;
        Plan plan;
        if (policy == "auto") {
            SearchResult result = search_plan(
                model, request, times_to_choose_by(options_, model, request, times, backend_), limit_ - state);
            total += result.found ? result.layout.arena_bytes : result.smallest_bytes;
            plan = std::move(result.plan);
        } else {
            plan = make_training_plan(model, request, find_policy(policy));
            total += make_layout(plan).arena_bytes;
        }
        const Parallel& parallel = request.parallel;
        const auto tokens = static_cast<double>(parallel.ranks * parallel.micro_batches * shape.N());
        return {total <= limit_, total, tokens / update_seconds(times, plan)};
    }

    const Options& options_;
    const Model& model_;
    Backend& backend_;
    const DType dtype_;
    const int64_t limit_;
    int64_t published_length_ = 0;
};

nlohmann::ordered_json largest_json(const Largest& largest) {
    if (largest.size == 0) {
        return {
            {"largest", 0}, {"smallest", largest.smallest_size}, {"smallest_total_bytes", largest.plan.total_bytes}};
    }
    return {{"largest", largest.size},
            {"total_bytes", largest.plan.total_bytes},
            {"predicted_tokens_per_second", largest.plan.tokens_per_second}};
}

std::string to_json(const Options& options, const Model& model, const WhatFits& what_fits,
                    const std::vector<WhatFitsRow>& rows) {
    nlohmann::ordered_json json = {{"model", model.config.name},
                                   {"parameters", model.parameter_count()},
                                   {"limit_bytes", what_fits.limit()},
                                   {"dtype", name_of(what_fits.dtype())},
                                   {"seq_len", options.seq_len}};
    if (what_fits.published_length() < kMostTokens) json["max_seq_len"] = what_fits.published_length();
    if (model.has_frozen()) json["trainable_parameters"] = model.trainable_count();
    json["fits"] = nlohmann::ordered_json::array();
    for (const WhatFitsRow& row : rows) {
        json["fits"].push_back({{"recompute", row.policy},
                                {"batch_size", largest_json(row.batch)},
                                {"seq_len", largest_json(row.sequence)}});
    }
    return json_report(json);
}

}  // namespace

std::string what_fits_report(const Options& options, const Model& model, Backend& backend) {
    const WhatFits what_fits(options, model, backend);
    std::vector<std::string> wanted = wanted_policies(options);
    if (!options.was_given("recompute")) wanted.push_back("auto");
    std::vector<WhatFitsRow> rows;
    WhatFitsRow known;  // What fits at a fixed level fits with auto, unless the host's memory takes part of it.
    for (const std::string& policy : wanted) {
        const bool searches = policy == "auto";
        const WhatFitsRow row = {policy, what_fits.batch(policy, searches ? known.batch.size : 0),
                                 what_fits.sequence(policy, searches ? known.sequence.size : 0)};
        rows.push_back(row);
        if (!searches && find_policy(policy).host_memory) continue;
        if (row.batch.size > known.batch.size) known.batch = row.batch;
        if (row.sequence.size > known.sequence.size) known.sequence = row.sequence;
    }
    if (options.json) return to_json(options, model, what_fits, rows);
    const WhatFitsLimits limits = {options.what_fits,
                                   what_fits.limit(),
                                   name_of(what_fits.dtype()),
                                   options.seq_len,
                                   what_fits.published_length(),
                                   what_fits.longest_sequence()};
    return model_line(model) + what_fits_table(limits, model.config.name, rows);
}

}  // namespace llmc
