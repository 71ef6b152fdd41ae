// Which parameters may be frozen, in kinds: what the tests of frozen rows go through, and the run of one case.
#pragma once

#include "llmc/model/trainable.h"
#include "tests/run/tiny_trainer.h"

#include <cstring>
#include <string>
#include <vector>

namespace llmc {

/// Of models with five layers. The first layers, the last ones, one operation or one vector alone, whatever has a kind;
/// with the embedding and without.
inline const std::vector<std::string> kFreezePatterns = {
    "wte",
    "wpe",
    "lm_head",
    "wte,lm_head",
    "layers.*",
    "layers.0-2.*",
    "wte,wpe,layers.0-2.*",
    "*,!lm_head",
    "*,!wte",
    "*,!wpe",
    "*,!lnf_*",
    "*,!lnf_weight",
    "*,!lnf_bias",
    "*ln*",
    "*,!*ln*",
    "*,!*_bias",
    "*_bias",
    "*,!layers.2.*",
    "*,!layers.*.qkv_weight",
    "*,!layers.2.qkv_*",
    "*,!layers.3.qkv_bias",
    "*,!layers.2.att_proj_weight",
    "*,!layers.1.fc_*",
    "*,!layers.1.gate_up_weight",
    "*,!layers.4.fc_proj_weight",
    "*,!layers.4.fc_proj_bias",
    "*,!layers.2.ln1_weight",
    "*,!layers.2.ln1_bias",
    "*,!layers.3.ln2_weight",
    "*,!layers.2.q_norm_weight",
    "*,!layers.2.k_norm_weight",
    "*norm_weight",
    "*weight,!lnf_weight",
    "*,!layers.1.qkv_weight,!layers.3.*",
};

/// The model with these frozen; `applies` is false where it has none of some name, or nothing is left to train.
inline Model frozen_model(const ModelConfig& config, const std::string& patterns, bool* applies) {
    Model model = make_model(config);
    try {
        *applies = true;
        return with_trainable(model, parse_patterns("--freeze", patterns, false));
    } catch (const Error&) {
        *applies = false;
        return model;
    }
}

/// Losses of one or two updates of two micro-batches each, the gradients of the first, and the weights in the end.
struct FrozenRun {
    double first_loss = 0, second_loss = 0;
    std::vector<std::vector<float>> gradients;  ///< By parameter; none of frozen ones.
    std::vector<std::vector<float>> weights;
    bool operator==(const FrozenRun&) const = default;
};

inline std::vector<std::vector<float>> weights_of(const State& state) {
    std::vector<std::vector<float>> weights;
    for (int index = 0; index < static_cast<int>(state.model().parameters.size()); ++index) {
        const ElementRange all = state.held(index);
        weights.emplace_back(static_cast<size_t>(all.count()));
        state.read_kept(Kept::Weights, index, all, weights.back().data());
    }
    return weights;
}

inline FrozenRun run_frozen(TinyTrainer& trainer, uint64_t updates = 2) {
    OptimizerSettings settings;
    settings.weight_decay = 0.1f, settings.grad_clip = 1;
    trainer.set_optimizer(settings, 1e-3f);
    trainer.state().initialise(7);
    FrozenRun result;
    const float scale = 1.0f / static_cast<float>(2 * trainer.plan().shape.N());
    for (uint64_t micro = 0; micro < 2 * updates; ++micro) {
        const auto tokens = trainer.random_tokens(2 * micro), targets = trainer.random_tokens(2 * micro + 1);
        const Turn turn = {.first = micro % 2 == 0, .last = micro % 2 == 1};
        (micro < 2 ? result.first_loss : result.second_loss) =
            trainer.micro_batch(tokens.data(), targets.data(), scale, turn);
        if (micro != 1) continue;
        for (int index = 0; index < static_cast<int>(trainer.model().parameters.size()); ++index) {
            const Tensor gradient = trainer.state().gradient(index);
            result.gradients.push_back(gradient ? trainer.values(gradient, index) : std::vector<float>());
        }
    }
    result.weights = weights_of(trainer.state());
    return result;
}

inline bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

}  // namespace llmc
