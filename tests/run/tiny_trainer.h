// A model on a backend with one plan, ready to run micro-batches: what the whole-model tests share.
#pragma once

#include "llmc/backend/make_backend.h"
#include "llmc/base/rng.h"
#include "llmc/run/executor.h"
#include "llmc/run/update.h"

#include <memory>
#include <string>
#include <vector>

namespace llmc {

class TinyTrainer {
  public:
    TinyTrainer(const ModelConfig& config, BatchShape shape, DType dtype, const KeepSet* keep,
                const std::string& policy, int threads = 2, int64_t logits_chunk = 0, const std::string& device = "cpu")
        : model_(make_model(config)), backend_(make_backend(device, threads)) {
        memory_ = plan_memory(model_, shape, dtype, find_policy(policy), logits_chunk, *backend_);
        if (keep != nullptr) {
            PlanRequest request = {shape, dtype, memory_.plan.logits_chunk_tokens, {}, {}};
            request.workspace = workspace_bytes(model_, shape, dtype, request.logits_chunk_tokens, *backend_);
            memory_.plan = make_training_plan(model_, request, *keep, "given");
            memory_.layout = make_layout(memory_.plan);
        }
        state_ = std::make_unique<State>(*backend_, model_, dtype, shape.T, memory_.layout.arena_bytes, true);
        executor_ = std::make_unique<Executor>(*state_, memory_.plan, memory_.layout);
    }
    TinyTrainer(const ModelConfig& config, BatchShape shape, DType dtype, const std::string& policy, int threads = 2,
                int64_t logits_chunk = 0, const std::string& device = "cpu")
        : TinyTrainer(config, shape, dtype, nullptr, policy, threads, logits_chunk, device) {}

    const Model& model() const { return model_; }
    State& state() { return *state_; }
    Backend& backend() { return *backend_; }
    const Plan& plan() const { return memory_.plan; }
    const PlannedMemory& memory() const { return memory_; }
    const Executor& executor() const { return *executor_; }

    /// Forward and backward of one micro-batch; gradients accumulate. Returns the mean loss.
    double micro_batch(const int32_t* tokens, const int32_t* targets, float loss_scale) {
        backend_->copy_to_device(executor_->tokens(), tokens);
        backend_->copy_to_device(executor_->targets(), targets);
        backend_->zero(state_->loss_sum());
        executor_->run({.loss_scale = loss_scale, .loss_sum = state_->loss_sum()});
        double sum = 0;
        backend_->copy_to_host(&sum, state_->loss_sum());
        return sum / static_cast<double>(memory_.plan.shape.N());
    }

    /// One micro-batch of whatever tokens are there, each step timed.
    void run_timed(float loss_scale, std::vector<double>* seconds) {
        executor_->run({.loss_scale = loss_scale, .loss_sum = state_->loss_sum()}, seconds);
    }

    void zero_gradients() { backend_->zero(state_->all_gradients()); }

    /// Global norm, then AdamW. Returns the norm.
    double update(const AdamWSettings& settings) {
        compute_grad_norm(*state_, alone_);
        update_parameters(*state_, alone_, settings);
        double norm = 0;
        backend_->copy_to_host(&norm, state_->grad_norm());
        return norm;
    }

    std::vector<float> gradients() const {
        std::vector<float> values(static_cast<size_t>(state_->all_gradients().count()));
        backend_->copy_to_host(values.data(), state_->all_gradients());
        return values;
    }

    /// The used rows of a fp32 parameter-shaped tensor.
    std::vector<float> values(Tensor tensor, int index) const {
        tensor.shape[0] = model_.parameters[static_cast<size_t>(index)].used_rows;
        std::vector<float> host(static_cast<size_t>(tensor.count()));
        backend_->copy_to_host(host.data(), tensor);
        return host;
    }

    /// Reproducible token ids below V.
    std::vector<int32_t> random_tokens(uint64_t seed) const {
        std::vector<int32_t> tokens(static_cast<size_t>(memory_.plan.shape.N()));
        for (size_t i = 0; i < tokens.size(); ++i) {
            tokens[i] =
                static_cast<int32_t>(philox(seed, RngStream::Test, 0, i)[0] % static_cast<uint64_t>(model_.config.V));
        }
        return tokens;
    }

  private:
    Model model_;
    std::unique_ptr<Backend> backend_;
    PlannedMemory memory_;
    std::unique_ptr<State> state_;
    std::unique_ptr<Executor> executor_;
    Comm alone_;
};

}  // namespace llmc
