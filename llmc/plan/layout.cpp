#include "llmc/plan/layout.h"

#include "llmc/base/units.h"
#include "llmc/plan/generate.h"

#include <algorithm>
#include <numeric>

namespace llmc {
namespace {

constexpr int64_t kMinLogitsChunk = 256;  ///< Fewer rows make the head's GEMMs slow.
constexpr int64_t kLogitsChunkMultiple = 64;

struct Placed {
    Lifetime life;
    int64_t begin, end;
};

/// Places storages in the given order, each at the lowest offset where it fits. `placed` stays sorted by offset.
Layout place(const Plan& plan, const std::vector<Lifetime>& lives, const std::vector<int32_t>& order) {
    Layout layout;
    layout.offsets.assign(plan.tensors.size(), 0);
    std::vector<Placed> placed;
    placed.reserve(order.size());
    for (const int32_t tensor : order) {
        const Lifetime& life = lives[static_cast<size_t>(tensor)];
        const int64_t bytes = plan.tensors[static_cast<size_t>(tensor)].bytes;
        int64_t offset = 0;
        for (const Placed& other : placed) {
            if (!other.life.overlaps(life)) continue;
            if (other.begin >= offset + bytes) break;  // The gap before this one is large enough.
            offset = std::max(offset, other.end);
        }
        const Placed mine = {life, offset, offset + bytes};
        const auto position = std::upper_bound(placed.begin(), placed.end(), mine,
                                               [](const Placed& a, const Placed& b) { return a.begin < b.begin; });
        placed.insert(position, mine);
        layout.offsets[static_cast<size_t>(tensor)] = offset;
        layout.arena_bytes = std::max(layout.arena_bytes, mine.end);
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

/// Narrows the gap to the bound: what ends at the top of the arena is placed first next time, over and over; the best
/// arena met on the way counts. Bounded work, so that plans of a hundred layers stay fast.
void repair(const Plan& plan, const std::vector<Lifetime>& lives, int64_t bound, std::vector<int32_t> order,
            Layout* best) {
    const auto count = static_cast<int64_t>(order.size());
    const int64_t turns = std::clamp<int64_t>(40'000'000 / (count * count), 4, 200);
    Layout layout = *best;
    for (int64_t turn = 0; turn < turns && best->arena_bytes > bound; ++turn) {
        std::stable_partition(order.begin(), order.end(), [&](int32_t i) {
            const auto tensor = static_cast<size_t>(i);
            return layout.offsets[tensor] + plan.tensors[tensor].bytes == layout.arena_bytes;
        });
        layout = place(plan, lives, order);
        if (layout.arena_bytes < best->arena_bytes) *best = layout;
    }
}

}  // namespace

Layout make_layout(const Plan& plan) {
    const std::vector<Lifetime> lives = lifetimes(plan);
    const int64_t bound = lower_bound_bytes(plan, lives);
    std::vector<int32_t> storages;
    for (size_t i = 0; i < plan.tensors.size(); ++i) {
        if (lives[i].last >= lives[i].first) storages.push_back(static_cast<int32_t>(i));
    }
    const auto bytes = [&](int32_t i) { return plan.tensors[static_cast<size_t>(i)].bytes; };
    const auto first = [&](int32_t i) { return lives[static_cast<size_t>(i)].first; };
    const auto length = [&](int32_t i) {
        return lives[static_cast<size_t>(i)].last - lives[static_cast<size_t>(i)].first;
    };

    Layout best;
    std::vector<int32_t> best_order;
    const auto attempt = [&](auto before) {
        if (!best.offsets.empty() && best.arena_bytes == bound) return;
        std::vector<int32_t> order = storages;
        std::stable_sort(order.begin(), order.end(), before);
        Layout layout = place(plan, lives, order);
        if (!best.offsets.empty() && layout.arena_bytes >= best.arena_bytes) return;
        best = std::move(layout);
        best_order = std::move(order);
    };
    // A stack: at the bottom what lives long, in the order it appears; on it the head's brief tensors, the logits
    // lowest; gradients last, so that they reuse the room of the logits and not of what is still read beside them.
    // Workspaces are brief tensors like others, or the last, or the first; what lives from the last layer's end into
    // its backward is brief or not. One of these nearly always meets the bound.
    constexpr int kLong = 0, kBriefClass = 1, kGradientClass = 2;
    for (const int brief : {5, 4}) {
        for (const int workspace_class : {kBriefClass, kGradientClass + 1, kLong - 1}) {
            const auto place_in_stack = [&](int32_t i) {
                const Consumer consumer = plan.tensors[static_cast<size_t>(i)].consumer;
                if (consumer == Consumer::Workspace) return workspace_class;
                if (consumer == Consumer::Gradients) return kGradientClass;
                return length(i) <= brief ? kBriefClass : kLong;
            };
            attempt([&](int32_t a, int32_t b) {
                const int class_a = place_in_stack(a), class_b = place_in_stack(b);
                if (class_a != class_b) return class_a < class_b;
                return class_a == kBriefClass ? bytes(a) > bytes(b) : first(a) < first(b);
            });
        }
    }
    // Plainer orders: length, size, appearance, bytes times steps.
    attempt([&](int32_t a, int32_t b) { return length(a) != length(b) ? length(a) > length(b) : bytes(a) > bytes(b); });
    attempt([&](int32_t a, int32_t b) { return bytes(a) != bytes(b) ? bytes(a) > bytes(b) : length(a) > length(b); });
    attempt([&](int32_t a, int32_t b) { return first(a) != first(b) ? first(a) < first(b) : length(a) > length(b); });
    attempt([&](int32_t a, int32_t b) {
        return static_cast<double>(bytes(a)) * length(a) > static_cast<double>(bytes(b)) * length(b);
    });

    if (best.arena_bytes > bound) repair(plan, lives, bound, std::move(best_order), &best);

    for (size_t i = 0; i < plan.tensors.size(); ++i) {
        const int32_t storage = storage_of(plan, static_cast<int32_t>(i));
        best.offsets[i] = best.offsets[static_cast<size_t>(storage)];
    }
    return best;
}

int64_t default_logits_chunk(const Model& model, const BatchShape& shape, DType dtype) {
    PlanRequest request;
    request.shape = shape;
    request.dtype = dtype;
    request.logits_chunk_tokens = 1;
    const Plan plan = make_training_plan(model, request, find_policy("layer"));
    const Simulation simulation = simulate(model, plan);
    int64_t at_head = 0;
    for (size_t i = 0; i < plan.steps.size(); ++i) {
        if (plan.steps[i].op == OpKind::Classifier) at_head = simulation.live_bytes[i];
    }
    const int64_t row_bytes = model.config.Vp() * size_of(dtype);
    const int64_t fits = (simulation.peak_bytes - at_head) / row_bytes / kLogitsChunkMultiple * kLogitsChunkMultiple;
    return std::min(shape.N(), std::max(kMinLogitsChunk, fits));
}

}  // namespace llmc
