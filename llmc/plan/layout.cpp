#include "llmc/plan/layout.h"

#include "llmc/base/units.h"
#include "llmc/plan/placed_storages.h"

#include <algorithm>
#include <numeric>
#include <utility>

namespace llmc {
namespace {

/// A stack: at the bottom what lives long, in the order it appears; on it the head's brief tensors, the logits lowest;
/// gradients last, so that they reuse the room of the logits and not of what is still read beside them. Workspaces are
/// brief tensors like others, or the last, or the first; what lives from the last layer's end into its backward is
/// brief or not. What ranks exchange is, for each purpose, of one size in all layers: such tensors take turns in two
/// places, if nothing else lies between. They are all below the rest, or only the parameters, which the forward needs
/// too.
struct Stack {
    enum Level { kParameters = -5, kBottom = -1, kLong = 0, kBrief = 1, kGradients = 2, kTop = 3 };

    const Plan& plan;
    const std::vector<Lifetime>& lives;
    int brief;  ///< Steps.
    int workspace_level;
    bool exchanged_below;

    int level_of(int32_t i) const {
        const PlanTensor& tensor = plan.tensors[static_cast<size_t>(i)];
        const int exchanged = exchanged_below ? kParameters : kTop;
        switch (tensor.consumer) {
            case Consumer::Workspace: return workspace_level;
            case Consumer::Gradients: return kGradients;
            case Consumer::GatheredParameters: return tensor.layer >= 0 ? kParameters : exchanged + 3;
            case Consumer::BucketGradients: return tensor.layer >= 0 ? exchanged + 1 : exchanged + 3;
            case Consumer::Communication: return tensor.layer >= 0 ? exchanged + 2 : exchanged + 3;
            default: return length_of(i) <= brief ? kBrief : kLong;
        }
    }
    int length_of(int32_t i) const { return lives[static_cast<size_t>(i)].last - lives[static_cast<size_t>(i)].first; }

    /// By level; of a level those that appear first, but of brief ones the largest.
    std::vector<int32_t> ordered(std::vector<int32_t> storages) const {
        std::vector<std::pair<int, int64_t>> keys(plan.tensors.size());
        for (const int32_t i : storages) {
            const auto tensor = static_cast<size_t>(i);
            const int level = level_of(i);
            keys[tensor] = {level, level == kBrief ? -plan.tensors[tensor].bytes : lives[tensor].first};
        }
        std::stable_sort(storages.begin(), storages.end(), [&](int32_t a, int32_t b) {
            return keys[static_cast<size_t>(a)] < keys[static_cast<size_t>(b)];
        });
        return storages;
    }
};

/// Lives counted in births: in steps at which something begins to live. Who meets whom is the same, and there are no
/// more of them than storages, however many steps a plan has between two.
std::vector<Lifetime> in_births(const Plan& plan, std::vector<Lifetime> lives) {
    std::vector<int> births(plan.steps.size(), 0);
    for (const Lifetime& life : lives) {
        if (life.last >= life.first) births[static_cast<size_t>(life.first)] = 1;
    }
    std::partial_sum(births.begin(), births.end(), births.begin());
    for (Lifetime& life : lives) {
        if (life.last < life.first) continue;
        life = {births[static_cast<size_t>(life.first)] - 1, births[static_cast<size_t>(life.last)] - 1};
    }
    return lives;
}

/// Places storages in the given order, each at the lowest offset where it fits. `lives` are in_births().
Layout place(const Plan& plan, const std::vector<Lifetime>& lives, const std::vector<int32_t>& order) {
    Layout layout;
    layout.offsets.assign(plan.tensors.size(), 0);
    PlacedStorages placed(order.size());
    for (const int32_t tensor : order) {
        const Lifetime& life = lives[static_cast<size_t>(tensor)];
        const int64_t bytes = plan.tensors[static_cast<size_t>(tensor)].bytes;
        const int64_t offset = placed.lowest_free(life, bytes);
        placed.insert(life, offset, offset + bytes);
        layout.offsets[static_cast<size_t>(tensor)] = offset;
        layout.arena_bytes = std::max(layout.arena_bytes, offset + bytes);
    }
    return layout;
}

int64_t lower_bound_bytes(const Plan& plan, const std::vector<Lifetime>& lives) {
    std::vector<int64_t> change(plan.steps.size() + 1, 0);
    for (size_t i = 0; i < lives.size(); ++i) {
        if (lives[i].last < lives[i].first) continue;
        change[static_cast<size_t>(lives[i].first)] += plan.tensors[i].bytes;
        change[static_cast<size_t>(lives[i].last) + 1] -= plan.tensors[i].bytes;
    }
    int64_t live = 0, peak = 0;
    for (const int64_t step : change) peak = std::max(peak, live += step);
    return peak;
}

/// Narrows the gap to the bound, or to what is enough: what ends at the top of the arena is placed first next time,
/// over and over; the best arena met on the way counts. Bounded work, so that plans of a hundred layers stay fast.
/// `lives` are in_births().
void repair(const Plan& plan, const std::vector<Lifetime>& lives, int64_t enough, std::vector<int32_t> order,
            int64_t most_turns, Layout* best) {
    const auto count = static_cast<int64_t>(order.size());
    const int64_t turns = std::clamp<int64_t>(40'000'000 / (count * count), 4, most_turns);
    Layout layout = *best;
    for (int64_t turn = 0; turn < turns && best->arena_bytes > enough; ++turn) {
        const auto ends_at_top = [&](int32_t i) {
            const auto tensor = static_cast<size_t>(i);
            return layout.offsets[tensor] + plan.tensors[tensor].bytes == layout.arena_bytes;
        };
        if (turn > 0 && std::is_partitioned(order.begin(), order.end(), ends_at_top)) break;  // It would go on so.
        std::stable_partition(order.begin(), order.end(), ends_at_top);
        layout = place(plan, lives, order);
        if (layout.arena_bytes < best->arena_bytes) *best = layout;
    }
}

/// The smallest arena of the orders tried, or the first of at most `enough` bytes; `bound` is lower_bound_bytes().
Layout layout_of(const Plan& plan, const std::vector<Lifetime>& lives, int64_t bound, int64_t enough,
                 bool quick = false) {
    std::vector<int32_t> storages;
    for (size_t i = 0; i < plan.tensors.size(); ++i) {
        if (lives[i].last >= lives[i].first) storages.push_back(static_cast<int32_t>(i));
    }
    const auto bytes = [&](int32_t i) { return plan.tensors[static_cast<size_t>(i)].bytes; };
    const auto first = [&](int32_t i) { return lives[static_cast<size_t>(i)].first; };
    const auto length = [&](int32_t i) {
        return lives[static_cast<size_t>(i)].last - lives[static_cast<size_t>(i)].first;
    };

    const std::vector<Lifetime> counted = in_births(plan, lives);
    Layout best;
    std::vector<std::vector<int32_t>> orders;  ///< Tried; the best first.
    const auto is_enough = [&] { return !best.offsets.empty() && best.arena_bytes <= enough; };
    const auto attempt = [&](std::vector<int32_t> order) {
        if (std::find(orders.begin(), orders.end(), order) != orders.end()) return;  // It has been tried.
        Layout layout = place(plan, counted, order);
        orders.push_back(std::move(order));
        if (!best.offsets.empty() && layout.arena_bytes >= best.arena_bytes) return;
        best = std::move(layout);
        std::swap(orders.front(), orders.back());
    };
    // One of these nearly always meets the bound.
    const bool communicates = std::any_of(plan.tensors.begin(), plan.tensors.end(), [](const PlanTensor& tensor) {
        return tensor.consumer == Consumer::GatheredParameters || tensor.consumer == Consumer::BucketGradients ||
               tensor.consumer == Consumer::Communication;
    });
    for (const bool below : {true, false}) {
        if (!below && !communicates) break;
        for (const int brief : {5, 4}) {
            for (const int workspace : {Stack::kBrief, Stack::kTop, Stack::kBottom}) {
                if (!is_enough()) attempt(Stack{plan, lives, brief, workspace, below}.ordered(storages));
            }
        }
    }
    // Plainer orders: length, size, appearance, bytes times steps.
    const auto attempt_by = [&](auto before) {
        if (is_enough()) return;
        std::vector<int32_t> order = storages;
        std::stable_sort(order.begin(), order.end(), before);
        attempt(std::move(order));
    };
    attempt_by(
        [&](int32_t a, int32_t b) { return length(a) != length(b) ? length(a) > length(b) : bytes(a) > bytes(b); });
    attempt_by(
        [&](int32_t a, int32_t b) { return bytes(a) != bytes(b) ? bytes(a) > bytes(b) : length(a) > length(b); });
    attempt_by(
        [&](int32_t a, int32_t b) { return first(a) != first(b) ? first(a) < first(b) : length(a) > length(b); });
    attempt_by([&](int32_t a, int32_t b) {
        return static_cast<double>(bytes(a)) * length(a) > static_cast<double>(bytes(b)) * length(b);
    });

    repair(plan, counted, enough, orders.front(), /*most_turns=*/quick ? 8 : 200, &best);
    // Tensors of many sizes, as ranks exchange them, leave larger gaps.
    for (size_t i = 1; i < orders.size() && communicates && !quick && best.arena_bytes > bound + bound / 1000; ++i) {
        repair(plan, counted, enough, orders[i], /*most_turns=*/40, &best);
    }

    for (size_t i = 0; i < plan.tensors.size(); ++i) {
        const int32_t storage = storage_of(plan, static_cast<int32_t>(i));
        best.offsets[i] = best.offsets[static_cast<size_t>(storage)];
    }
    return best;
}

}  // namespace

Layout make_layout(const Plan& plan) {
    const std::vector<Lifetime> lives = lifetimes(plan);
    const int64_t bound = lower_bound_bytes(plan, lives);
    return layout_of(plan, lives, bound, bound);
}

ArenaFit arena_within(const Plan& plan, int64_t bytes, bool quick) {
    const std::vector<Lifetime> lives = lifetimes(plan);
    const int64_t bound = lower_bound_bytes(plan, lives);
    if (bound > bytes) return {false, bound};
    return {layout_of(plan, lives, bound, bytes, quick).arena_bytes <= bytes, bound};
}

}  // namespace llmc
