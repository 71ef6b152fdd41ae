// Training in blocks and tiles, on any device: one update of two micro-batches, and what comes of it.
#pragma once

#include "llmc/model/dropout.h"
#include "llmc/model/lora.h"
#include "llmc/plan/token_blocks.h"
#include "tests/run/tiny_trainer.h"

#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace llmc::tiles_cases {

/// Sizes that divide nothing evenly.
inline ModelConfig config_of_family(Family family, int64_t L, int64_t T) {
    ModelConfig config = llmc::config_of(family);
    const bool gpt2 = family == Family::Gpt2;
    config.L = L, config.C = 64, config.NH = 2, config.HD = 32, config.V = 97, config.maxT = T;
    config.NKV = gpt2 ? 2 : 1, config.F = gpt2 ? 256 : 88, config.tied = gpt2;
    return config;
}

struct Result {
    double loss = 0;
    std::vector<float> gradients;
    bool operator==(const Result& other) const {
        return std::memcmp(&loss, &other.loss, sizeof loss) == 0 && gradients.size() == other.gradients.size() &&
               std::memcmp(gradients.data(), other.gradients.data(), gradients.size() * sizeof(float)) == 0;
    }
};

/// How a model is trained.
struct Way {
    std::string policy = "none";
    int64_t block_tokens = kBlockMultiple, tile_tokens = 0;
    int threads = 1;
    std::string device = "cpu";
    bool fuses = true;
    std::optional<WeightFormat> base = std::nullopt;
    bool hopper = false;     ///< Attention on the kernels for compute capability 9.0, where the device is that.
    bool own_gemms = false;  ///< Our own kernel may form products, where the device is that.
};

using MakePlan = std::function<Plan(const Model& model, const PlanRequest& request)>;

inline TinyTrainer trainer_of(const Model& model, const BatchShape& shape, DType dtype, const Way& way,
                              const MakePlan& make_plan = {}) {
    auto backend = make_backend(way.device, way.threads);
    if (way.hopper && backend->why_no_hopper().empty()) backend->set_arithmetic({"", kHopperKernels, false});
    backend->offer_own_gemms(way.own_gemms && backend->why_no_hopper().empty());
    Places places = model.lora ? for_adapters(dtype) : Places(dtype);
    if (way.base) places.set_base(*way.base);
    PlanRequest request = plan_request(model, shape, places, {0, way.block_tokens}, *backend, {}, way.fuses);
    request.tile_tokens = way.tile_tokens;
    Plan plan = make_plan ? make_plan(model, request) : make_training_plan(model, request, find_policy(way.policy));
    return {model, std::move(backend), std::move(plan)};
}

/// Of packed sequences: documents that begin in the middle of blocks.
inline void put_documents(TinyTrainer& trainer) {
    const BatchShape& shape = trainer.plan().shape;
    std::vector<int32_t> begins;
    for (int64_t n = 0; n < shape.N(); ++n) {
        const int64_t slot = n % shape.T;
        begins.push_back(slot < 37 ? 0 : slot < 64 ? 37 : 64);
    }
    trainer.backend().copy_to_device(trainer.executor().documents(), begins.data());
}

/// The update itself leaves the gradients as they are.
inline Result run(TinyTrainer& trainer, int micro_batches = 2) {
    trainer.state().initialise(7);
    Result result;
    const float scale = 1.0f / static_cast<float>(micro_batches * trainer.plan().shape.N());
    for (int micro = 0; micro < micro_batches; ++micro) {
        const auto seed = static_cast<uint64_t>(2 * micro);
        const auto tokens = trainer.random_tokens(seed), targets = trainer.random_tokens(seed + 1);
        if (trainer.executor().documents()) put_documents(trainer);
        const Turn turn = {.first = micro == 0, .last = micro + 1 == micro_batches};
        result.loss = trainer.micro_batch(tokens.data(), targets.data(), scale, turn);
    }
    result.gradients = trainer.gradients();
    EXPECT_EQ(trainer.executor().high_water_bytes(), trainer.memory().layout.arena_bytes);
    EXPECT_EQ(trainer.state().allocated_bytes(), trainer.memory().total_bytes());
    return result;
}

/// Whether the gradient of attention's input is in the place of it, in every layer that has one.
inline bool is_in_place(const Plan& plan) {
    int in_place = 0, apart = 0;
    for (const Step& step : plan.steps) {
        if (step.op != OpKind::Attention || step.pass != Pass::Backward) continue;
        const int32_t in = step.operand(Slot::In), d_in = step.operand(Slot::DIn);
        ++(storage_of(plan, in) == storage_of(plan, d_in) ? in_place : apart);
    }
    EXPECT_TRUE(in_place == 0 || apart == 0);
    return in_place > 0;
}

/// Twice as long a sequence has at most twice as large workspaces.
inline void expect_linear_workspaces(const std::string& device) {
    const auto backend = make_backend(device, 2);
    const Model model = make_model(config_of_family(Family::Llama, 1, 1 << 18));
    for (const DType dtype : {DType::F32, DType::BF16}) {
        const auto bytes_of = [&](int64_t T) {
            const WorkspaceBytes bytes = workspace_bytes(model, {1, T}, dtype, {}, *backend);
            std::vector<int64_t> all = {bytes.embedding.backward, bytes.final_norm.backward, bytes.classifier.backward};
            for (const WorkspaceBytes::Row& row : bytes.block) {
                all.push_back(row.forward);
                all.push_back(row.backward);
                all.push_back(row.backward_in_place);
            }
            return all;
        };
        const std::vector<int64_t> once = bytes_of(1 << 17), twice = bytes_of(1 << 18);
        constexpr int64_t kRounding = 1 << 16;
        for (size_t i = 0; i < once.size(); ++i) EXPECT_LE(twice[i], 2 * once[i] + kRounding) << i;
    }
}

}  // namespace llmc::tiles_cases
