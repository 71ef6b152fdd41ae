// What fits a device: the largest batch, the longest sequence and the fastest batch of every level, by plans to the
// byte, of which as few are made as will do.
#pragma once

#include "llmc/draw/what_fits_table.h"
#include "llmc/plan/search.h"
#include "llmc/train/choose_plan.h"

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

namespace llmc {

/// With one placement. What it was asked it remembers: an answer takes milliseconds, and is wanted by several.
class WhatFits {
  public:
    /// Of a run with these options (their --offload, --ranks, --dtype ...) within `limit` bytes.
    WhatFits(Options options, const Model& model, Backend& backend, int64_t limit);

    /// The model as it stands takes sequences so long; where it has learned positions, no longer ones.
    int64_t published_length() const { return published_length_; }
    int64_t longest_sequence() const;

    bool fits(const std::string& policy, const BatchShape& shape) const;
    /// Predicted tokens per second, without the layout that bytes take: of a fixed level whatever it needs, of auto
    /// within the limit, where it finds nothing 0.
    double speed(const std::string& policy, const BatchShape& shape) const;
    /// With bytes. Where it does not fit, auto's are those of its smallest plan.
    Fit measure(const std::string& policy, const BatchShape& shape) const;

    /// The most sequences of `T` tokens that fit; 0: not one.
    int64_t batch(const std::string& policy, int64_t T) const;
    /// The longest of one sequence that fits, a multiple of 64; 0: none.
    int64_t sequence(const std::string& policy) const;
    /// The fastest of batches up to the largest, and of those in `others`; 0: none fits.
    int64_t fastest(const std::string& policy, int64_t T, const std::vector<int64_t>& others = {}) const;
    WhatFitsRow row(const std::string& policy, int64_t T, const std::vector<int64_t>& others = {}) const;

  private:
    /// How a level runs a shape, and how fast.
    struct Way {
        KeepSet keep;
        int64_t tile_tokens = 0;
        double tokens_per_second = 0;
        bool fits = false;  ///< Of auto.
    };
    /// What has been found of a level and a shape.
    struct Found {
        std::optional<bool> fits;
        std::optional<Way> way;
        std::optional<Fit> fit;
    };

    Model model_for(int64_t T) const;
    PlanRequest request(const Model& model, const BatchShape& shape) const;
    Found& found(const std::string& policy, const BatchShape& shape) const;
    bool fits(const std::string& policy, const Model& model, const PlanRequest& request) const;
    int64_t room(const Model& model, const PlanRequest& request, int64_t plan_on_host) const;
    const Way& way(const std::string& policy, const BatchShape& shape) const;
    Way fixed_way(const std::string& policy, const Model& model, const BatchShape& shape) const;
    /// What auto finds, or its smallest plan.
    struct OfAuto {
        SearchResult result;
        bool fits = false;
    };
    OfAuto search_auto(const Model& model, const PlanRequest& request, const OpTimes& times) const;
    Way auto_way(const Model& model, const BatchShape& shape) const;
    double speed_of(const PlanRequest& request, const OpTimes& times, const Plan& plan) const;
    /// What `shape` needs at least, and one sequence more or less: where to begin to look.
    int64_t guess(const std::string& policy, const BatchShape& unit, int64_t step) const;

    const Options options_;
    const Model& model_;
    Backend& backend_;
    const int64_t limit_;
    const int64_t host_limit_;
    const std::optional<int64_t> both_limit_;  ///< Where host and device are one memory.
    int64_t published_length_ = 0;
    using Key = std::tuple<std::string, int64_t, int64_t>;  ///< Level, B, T.
    mutable std::map<Key, Found> found_;
    mutable std::map<std::pair<std::string, int64_t>, int64_t> batches_;
};

/// With every placement: whoever asks for the same one gets the same answers.
class PlacedFits {
  public:
    PlacedFits(Options options, const Model& model, Backend& backend, int64_t limit)
        : options_(std::move(options)), model_(model), backend_(backend), limit_(limit) {}

    /// The options with this --offload.
    const WhatFits& with(const std::string& offload);
    /// work(i, with(offloads[i])) for each of these, no two of which are the same; on several threads for a
    /// --device-profile, else on one, since the times of this machine are measured on the way.
    void for_each(const std::vector<std::string>& offloads, const std::function<void(size_t, const WhatFits&)>& work);

    const Options& options() const { return options_; }
    const Backend& backend() const { return backend_; }

  private:
    const Options options_;
    const Model& model_;
    Backend& backend_;
    const int64_t limit_;
    std::map<std::string, WhatFits> placed_;
};

/// Sequences are not shortened below this.
constexpr int64_t kShortestContext = 128;

/// The options with a --offload, and perhaps shorter sequences, with which something fits: as they are, if that does;
/// else the fastest placement. Only what the user left open is changed. Nothing if nothing fits.
std::optional<Options> with_what_fits(PlacedFits* placed);

}  // namespace llmc
