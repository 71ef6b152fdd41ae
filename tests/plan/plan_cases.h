// Small models and shapes that the tests of plans go through, and the sizes of section "levels" of the design, computed
// from a hand-written list of what a block keeps, not from the model's tables.
#pragma once

#include "llmc/base/rng.h"
#include "llmc/base/units.h"
#include "llmc/model/model.h"
#include "llmc/plan/generate.h"
#include "llmc/plan/layout.h"
#include "llmc/plan/logits_chunk.h"

#include <algorithm>
#include <string>
#include <vector>

namespace llmc::plan_cases {

inline const std::vector<int> kDepths = {1, 2, 3, 4, 5, 7, 12, 13, 24, 48};
inline const std::vector<BatchShape> kShapes = {{1, 1}, {3, 7}, {2, 64}, {4, 257}};
inline const std::vector<Family> kFamilies = {Family::Gpt2, Family::Llama, Family::Qwen3};
inline const std::vector<DType> kTypes = {DType::F32, DType::BF16};

/// Sizes that no two dimensions share and that are no multiples of anything useful.
inline ModelConfig small_config(Family family, int L) {
    ModelConfig config = config_of(family);
    config.name = "small " + std::string(row_of(family).key);
    config.L = L, config.C = 48, config.NH = 6, config.NKV = family == Family::Gpt2 ? 6 : 2, config.HD = 8;
    config.F = family == Family::Gpt2 ? 192 : 136, config.V = 97, config.maxT = 512;
    config.tied = family == Family::Gpt2;
    return config;
}
inline Model small_model(Family family, int L) { return make_model(small_config(family, L)); }

/// Blocks of every kind with their heads as they may be.
inline std::vector<Model> small_models(int L) {
    ModelConfig tied_llama = small_config(Family::Llama, L);
    tied_llama.tied = true;
    return {small_model(Family::Gpt2, L), make_model(tied_llama), small_model(Family::Llama, L),
            small_model(Family::Qwen3, L)};
}

inline PlanRequest request_of(const Model& model, const BatchShape& shape, DType dtype, int64_t workspace = 0) {
    PlanRequest request;
    request.shape = shape;
    request.places = Places(dtype);
    request.logits_chunk_tokens = default_logits_chunk(model, shape, "cpu");
    if (workspace > 0) {
        // Another size for every operation, so that they cannot be mixed up.
        for (size_t row = 0; row < model.block.size(); ++row) {
            const auto i = static_cast<int64_t>(row);
            request.workspace.block.push_back({workspace + 3 * i, 2 * workspace + 5 * i, 3 * workspace + 7 * i});
        }
        request.workspace.embedding.backward = workspace + 1;
        request.workspace.final_norm.backward = workspace + 2;
        request.workspace.classifier = {workspace + 7, workspace + 11};
    }
    return request;
}

/// The same for several ranks, each with that batch.
inline PlanRequest request_of_ranks(const Model& model, const BatchShape& shape, DType dtype, int ranks, int zero,
                                    bool exchanges = true) {
    PlanRequest request = request_of(model, shape, dtype);
    request.parallel.ranks = ranks;
    request.places = places_of_zero(zero, ranks, dtype);
    request.parallel.exchanges = exchanges;
    return request;
}

/// The ZeRO stage whose name a filling of the table has.
inline int zero_of(const Places& places) {
    return places.in_pieces(Buffer::Parameters)  ? 3
           : places.in_pieces(Buffer::Gradients) ? 2
           : places.updates_pieces()             ? 1
                                                 : 0;
}

/// How many steps of a kind a plan has.
inline int count(const Plan& plan, StepKind kind) {
    return static_cast<int>(
        std::count_if(plan.steps.begin(), plan.steps.end(), [&](const Step& step) { return step.kind == kind; }));
}

/// The plan as far as it is walked in every micro-batch: without what follows the last one.
inline Plan without_update(Plan plan) {
    std::erase_if(plan.steps, [](const Step& step) { return step.phase == Phase::Update; });
    return plan;
}

/// Numbers 0 .. limit - 1, one after the other.
class Dice {
  public:
    explicit Dice(uint32_t item) : item_(item) {}
    uint32_t below(uint32_t limit) { return philox(77, RngStream::Test, item_, index_++)[0] % limit; }

  private:
    uint32_t item_;
    uint64_t index_ = 0;
};

inline KeepSet random_keep_set(const Model& model, Dice& dice) {
    const auto layers = static_cast<size_t>(model.config.L);
    KeepSet keep;
    keep.keep_last_layer = dice.below(2) == 0;
    keep.walk.resize(layers);
    const uint32_t density = 1 + dice.below(9);  // Of ten, so that nearly empty and nearly full sets both occur.
    for (size_t layer = 0; layer < layers; ++layer) {
        keep.slots.emplace_back();
        for (size_t slot = 0; slot < model.activations.size(); ++slot)
            keep.slots[layer].push_back(dice.below(10) < density);
        for (size_t below = 0; below < layer; ++below) {
            if (dice.below(2) == 0) keep.walk[layer].push_back(static_cast<int>(below));
        }
    }
    keep.slots[0][kLayerInput] = true;
    return keep;
}

inline std::string label(const Model& model, const BatchShape& shape, DType dtype, const std::string& policy) {
    return model.config.name + ", L = " + std::to_string(model.config.L) + ", B = " + std::to_string(shape.B) +
           ", T = " + std::to_string(shape.T) + ", " + std::string(name_of(dtype)) + ", " + policy;
}

/// Bytes of a tensor with one row per token.
inline int64_t tensor_bytes(const BatchShape& shape, int64_t columns, int64_t item) {
    return round_up(shape.N() * columns * item, 256);
}

/// X: one residual-stream tensor.
inline int64_t boundary_bytes(const ModelConfig& config, const BatchShape& shape, DType dtype) {
    return tensor_bytes(shape, config.C, size_of(dtype));
}

/// I: everything else that one layer keeps for its backward.
inline int64_t internal_bytes(const ModelConfig& config, const BatchShape& shape, DType dtype) {
    const bool gpt2 = config.features.norm == NormKind::LayerNorm;
    const int64_t item = size_of(dtype), heads = config.NH * config.HD;
    int64_t bytes = 0;
    bytes += 2 * tensor_bytes(shape, config.C, item);                               // both norms' outputs
    bytes += (gpt2 ? 4 : 2) * tensor_bytes(shape, 1, 4);                            // their means and deviations
    bytes += tensor_bytes(shape, heads + 2 * config.NKV * config.HD, item);         // queries, keys, values
    bytes += tensor_bytes(shape, heads, item) + tensor_bytes(shape, config.NH, 4);  // attention and its log-sum-exp
    bytes += tensor_bytes(shape, config.C, item);                                   // the residual in the middle
    bytes += tensor_bytes(shape, gpt2 ? config.F : 2 * config.F, item);             // before the activation function
    bytes += tensor_bytes(shape, config.F, item);                                   // after it
    if (config.features.qk_norm) {
        bytes += tensor_bytes(shape, heads + 2 * config.NKV * config.HD, item);  // with normalised heads
        bytes += tensor_bytes(shape, config.NH + config.NKV, 4);                 // and their deviations
    }
    return bytes;
}

/// A storage and the steps between its first and last use, by looking at every operand of every step.
struct Storage {
    int32_t tensor;
    int first, last;
    int64_t begin, end;
    bool together_with(const Storage& other) const { return first <= other.last && other.first <= last; }
    bool touches(const Storage& other) const { return begin < other.end && other.begin < end; }
};

inline std::vector<Storage> storages(const Plan& plan, const Layout& layout) {
    std::vector<Storage> found;
    for (int32_t t = 0; t < static_cast<int32_t>(plan.tensors.size()); ++t) {
        const PlanTensor& tensor = plan.tensors[static_cast<size_t>(t)];
        if (tensor.alias >= 0) continue;
        const int64_t begin = layout.offsets[static_cast<size_t>(t)];
        Storage storage = {t, static_cast<int>(plan.steps.size()), -1, begin, begin + tensor.bytes};
        for (int i = 0; i < static_cast<int>(plan.steps.size()); ++i) {
            for (const int32_t operand : plan.steps[static_cast<size_t>(i)].operands) {
                if (operand < 0) continue;
                int32_t root = operand;
                while (plan.tensors[static_cast<size_t>(root)].alias >= 0)
                    root = plan.tensors[static_cast<size_t>(root)].alias;
                if (root != t) continue;
                storage.first = std::min(storage.first, i);
                storage.last = std::max(storage.last, i);
            }
        }
        if (tensor.external) storage.first = 0;
        if (tensor.output) storage.last = static_cast<int>(plan.steps.size()) - 1;
        found.push_back(storage);
    }
    return found;
}

}  // namespace llmc::plan_cases
