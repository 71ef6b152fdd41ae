#include "llmc/train/choose_update.h"

#include "llmc/base/units.h"
#include "llmc/plan/search.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <optional>
#include <utility>

namespace llmc {
namespace {

/// Slices that come while one is updated. More of them hide behind longer operations, and need more memory in the
/// forward.
constexpr int kAhead[] = {1, 2, 4, 8};
constexpr double kWorthMemory = 1e-3;  ///< Less of a step's time is not.
constexpr double kWorthASearch = 1e-2;

class UpdateChoice {
  public:
    UpdateChoice(const Options& options, const Model& model, const PlanRequest& request, const OpTimes& by,
                 const Backend& backend)
        : model_(model),
          request_(request),
          by_(by),
          room_(arena_room(options, model, request, backend)),
          for_inputs_(room_for_inputs(options, model, request, backend)),
          limit_(memory_limit(options, backend.info())) {}

    /// The fastest delay of this keep-set that fits, if it is faster than `seconds`.
    std::optional<PlannedMemory> delay(const ChosenPlan& chosen, double seconds) const {
        std::optional<PlannedMemory> best;
        const int64_t room = std::max(room_, chosen.memory.layout.arena_bytes);  // What does not fit is refused later.
        for (const int ahead : kAhead) {
            PlannedMemory memory = with_ahead(chosen, ahead);
            if (memory.layout.arena_bytes > room) break;
            const double delayed = update_seconds(by_, memory.plan);
            if (delayed >= seconds * (1 - kWorthMemory)) continue;
            seconds = delayed;
            best = std::move(memory);
        }
        return best;
    }

    /// The same from a search that leaves room for so many slices, where the update takes long enough.
    std::optional<ChosenPlan> search(const ChosenPlan& chosen, int ahead, double seconds) const {
        const Plan& plan = chosen.memory.plan;
        const double of_update = plan_seconds(by_, plan, {}) - plan_seconds(by_, plan, {.first = true, .last = false});
        if (of_update < kWorthASearch * seconds) return std::nullopt;
        const int64_t excess = with_ahead(chosen, ahead).layout.arena_bytes - room_;
        if (excess <= 0) return std::nullopt;
        SearchResult found = search_plan(model_, request_, by_, {room_ - excess, for_inputs_});
        if (!found.found) return std::nullopt;
        ChosenPlan less = chosen;
        less.keep = std::move(found.keep);
        less.words = fmt::format("the fastest within {} with room for slots of the update in the forward: {}",
                                 format_bytes(limit_), found.summary);
        less.memory = with_memory(model_, std::move(found.plan));
        std::optional<PlannedMemory> delayed = delay(less, seconds);
        if (!delayed) return std::nullopt;
        less.memory = std::move(*delayed);
        return less;
    }

    PlannedMemory with_ahead(const ChosenPlan& chosen, int ahead) const {
        PlanRequest request = request_;
        request.update_ahead = ahead;
        return with_memory(model_, make_training_plan(model_, request, chosen.keep, chosen.memory.plan.policy));
    }

  private:
    const Model& model_;
    const PlanRequest& request_;
    const OpTimes& by_;
    const int64_t room_, for_inputs_, limit_;
};

}  // namespace

void choose_update(const Options& options, const Model& model, const PlanRequest& request, const OpTimes& times,
                   const Backend& backend, ChosenPlan* chosen) {
    chosen->times = times;
    chosen->step_seconds = update_seconds(times, chosen->memory.plan);
    const bool from_host = request.places.updates_from_host();  // Else there are no slices.
    if (options.update == "now" || (options.update == "auto" && (options.check_ranks || !from_host))) return;
    const OpTimes by = times_to_choose_by(options, model, request, times, backend);
    const UpdateChoice choice(options, model, request, by, backend);
    const ChosenPlan before = *chosen;
    const double seconds = update_seconds(by, before.memory.plan);
    if (from_host) {
        if (std::optional<PlannedMemory> delayed = choice.delay(before, seconds)) chosen->memory = std::move(*delayed);
        for (const int ahead : {kAhead[0], kAhead[2]}) {
            if (before.memory.plan.policy != "auto" || before.delays_update()) break;
            std::optional<ChosenPlan> other = choice.search(before, ahead, update_seconds(by, chosen->memory.plan));
            if (other) *chosen = std::move(*other);
        }
    }
    chosen->step_seconds = update_seconds(times, chosen->memory.plan);
    if (!chosen->delays_update()) return;
    const bool was_at_once = !before.delays_update();
    chosen->now_seconds = update_seconds(times, was_at_once ? before.memory.plan : choice.with_ahead(before, 0).plan);
}

}  // namespace llmc
