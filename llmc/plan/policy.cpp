#include "llmc/plan/policy.h"

#include "llmc/base/error.h"
#include "llmc/base/nearest_word.h"
#include "llmc/model/trainable.h"

namespace llmc {
namespace {

/// Every layer keeps the slots whose role `keeps` accepts.
template <typename Keeps>
KeepSet keep_roles(const Model& model, Keeps keeps) {
    std::vector<bool> layer;
    for (const ActivationRow& row : model.activations) layer.push_back(keeps(row.role));
    KeepSet keep;
    keep.slots.assign(static_cast<size_t>(model.config.L), layer);
    keep.walk.resize(static_cast<size_t>(model.config.L));
    return keep;
}

KeepSet keep_everything(const Model& model) {
    return keep_roles(model, [](ActivationRole) { return true; });
}

/// Chen et al. 2016, at every layer: only the block's input survives.
KeepSet keep_boundaries(const Model& model) {
    return keep_roles(model, [](ActivationRole role) { return role == ActivationRole::LayerInput; });
}

/// Nested: every k-th boundary, from the lowest layer with a backward, survives the forward; the boundaries inside a
/// segment come back once, all of them, when the segment's last layer needs its input. Inside the last segment they are
/// still there.
KeepSet keep_sqrt(const Model& model) {
    KeepSet keep = keep_boundaries(model);
    const int L = static_cast<int>(model.config.L), lowest = GradientPath(model).lowest_layer();
    const int k = sqrt_segment(L - lowest);
    const int last_segment = lowest + (L - 1 - lowest) / k * k;
    for (int layer = lowest; layer < last_segment; ++layer) {
        const int segment = lowest + (layer - lowest) / k * k;
        keep.slots[static_cast<size_t>(layer)][kLayerInput] = layer == segment;
        for (int inner = segment + 1; inner < layer; ++inner) keep.walk[static_cast<size_t>(layer)].push_back(inner);
    }
    return keep;
}

/// What is cheap to repeat goes: norms and activation functions. No matrix product ever runs twice.
KeepSet drop_cheap(const Model& model) {
    return keep_roles(model, [](ActivationRole role) {
        return role != ActivationRole::NormOut && role != ActivationRole::Stat && role != ActivationRole::ActivationOut;
    });
}

/// Attention, whose cost grows with the square of the length, never runs twice (cf. Korthikanti et al. 2022, which
/// drops exactly it).
KeepSet keep_attention(const Model& model) {
    return keep_roles(model, [](ActivationRole role) {
        return role == ActivationRole::LayerInput || role == ActivationRole::AttentionOut ||
               role == ActivationRole::AttentionStat || role == ActivationRole::MidResidual;
    });
}

/// Level 1 with the boundaries in host memory, but for the two that the backward reads before one could be fetched
/// (cf. Rhu et al. 2016, "vDNN", which moves every layer's input out and back).
KeepSet keep_boundaries_on_host(const Model& model) {
    constexpr int64_t kOnDevice = 2;
    KeepSet keep = keep_boundaries(model);
    for (int64_t layer = 0; layer < model.config.L; ++layer) keep.host.push_back(layer < model.config.L - kOnDevice);
    return keep;
}

}  // namespace

const std::vector<PolicyRow>& policies() {
    static const std::vector<PolicyRow> table = {
        {"none", "0", "keeps every activation; nothing runs twice", keep_everything},
        {"layer", "1", "keeps every layer's input; each layer runs again, without its last matmul", keep_boundaries},
        {"sqrt", "2", "keeps every k-th layer's input; inner ones come back once a segment, then as level 1",
         keep_sqrt},
        {"act", "", "drops norm and activation-function outputs; no matmul runs twice", drop_cheap},
        {"attn", "", "keeps layer inputs, attention outputs and mid residuals; attention never runs twice",
         keep_attention},
        {"offload", "", "as level 1, with the layers' inputs in host memory, copied there and back beside the work",
         keep_boundaries_on_host, /*host_memory=*/true},
    };
    return table;
}

const PolicyRow& find_policy(const std::string& name) {
    std::string names;
    std::vector<std::string> words = {"auto"};
    for (const PolicyRow& row : policies()) {
        if (name == row.name || (*row.level != '\0' && name == row.level)) return row;
        words.emplace_back(row.name);
        names += fmt::format("{}{}", names.empty() ? "" : ", ", row.name);
        if (*row.level != '\0') names += fmt::format(" ({})", row.level);
    }
    fail_usage("--recompute={}: no such policy{}; choose one of {}, auto", name, likely_as_question(name, words),
               names);
}

std::string policy_words(const PolicyRow& policy, const Model& model) {
    if (policy.function != keep_sqrt) return policy.description;
    const int layers = static_cast<int>(model.config.L) - GradientPath(model).lowest_layer();
    return fmt::format("{} (k = {})", policy.description, sqrt_segment(layers));
}

int sqrt_segment(int L) {
    int best = 1;
    const auto cost = [L](int k) { return (L + k - 1) / k + k - 1; };
    for (int k = 2; k <= L; ++k) {
        if (cost(k) < cost(best)) best = k;
    }
    return best;
}

}  // namespace llmc
