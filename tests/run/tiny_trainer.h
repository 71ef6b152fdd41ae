// A model on a backend with one plan, ready to run micro-batches and updates: what the whole-model tests share. Memory
// of gradients begins as NaN, so that whatever is read before it is written shows.
#pragma once

#include "llmc/backend/make_backend.h"
#include "llmc/base/rng.h"
#include "llmc/run/executor.h"

#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace llmc {

inline void fill_with_nan(Backend& backend, const Tensor& tensor) {
    const std::vector<float> values(static_cast<size_t>(tensor.count()), std::numeric_limits<float>::quiet_NaN());
    backend.copy_to_device(tensor, values.data());
}

/// Where masks are drawn: those of whole sequences, counted from `first_sequence`.
inline void put_mask_rows(const Executor& executor, Backend& backend, int64_t first_sequence = 0) {
    if (!executor.mask_rows()) return;
    std::vector<int32_t> rows;
    for (int64_t n = 0; n < executor.shape().N(); ++n) {
        rows.push_back(static_cast<int32_t>(first_sequence + n / executor.shape().T));
        rows.push_back(static_cast<int32_t>(n % executor.shape().T));
    }
    backend.copy_to_device(executor.mask_rows(), rows.data());
}

class TinyTrainer {
  public:
    TinyTrainer(Model model, BatchShape shape, DType dtype, const KeepSet* keep, const std::string& policy,
                int threads = 2, int64_t logits_chunk = 0, const std::string& device = "cpu", bool fuses = true,
                std::optional<WeightFormat> base = std::nullopt)
        : model_(std::move(model)), backend_(make_backend(device, threads)) {
        Places places = model_.lora ? for_adapters(dtype) : Places(dtype);
        if (base) places.set_base(*base);
        memory_ = plan_memory(model_, shape, places, find_policy(policy), logits_chunk, *backend_, {}, fuses);
        if (keep != nullptr) {
            const PlanRequest request =
                plan_request(model_, shape, places, memory_.plan.logits_chunk_tokens, *backend_, {}, fuses);
            memory_.plan = make_training_plan(model_, request, *keep, "given");
            memory_.layout = make_layout(memory_.plan);
        }
        make_state();
    }
    /// Of a plan for this backend.
    TinyTrainer(Model model, std::unique_ptr<Backend> backend, Plan plan)
        : model_(std::move(model)), backend_(std::move(backend)), memory_(with_memory(model_, std::move(plan))) {
        make_state();
    }
    TinyTrainer(const ModelConfig& config, BatchShape shape, DType dtype, const KeepSet* keep,
                const std::string& policy, int threads = 2, int64_t logits_chunk = 0, const std::string& device = "cpu",
                bool fuses = true)
        : TinyTrainer(make_model(config), shape, dtype, keep, policy, threads, logits_chunk, device, fuses) {}
    TinyTrainer(const ModelConfig& config, BatchShape shape, DType dtype, const std::string& policy, int threads = 2,
                int64_t logits_chunk = 0, const std::string& device = "cpu", bool fuses = true)
        : TinyTrainer(config, shape, dtype, nullptr, policy, threads, logits_chunk, device, fuses) {}

    const Model& model() const { return model_; }
    State& state() { return *state_; }
    Backend& backend() { return *backend_; }
    const Plan& plan() const { return memory_.plan; }
    const PlannedMemory& memory() const { return memory_; }
    const Executor& executor() const { return *executor_; }

    /// The next updates are by these settings, at this learning rate.
    void set_optimizer(const OptimizerSettings& settings, float learning_rate = 0) {
        executor_ = std::make_unique<Executor>(*state_, memory_.plan, memory_.layout, nullptr, settings);
        state_->set_control(UpdateControl::LearningRate, learning_rate);
    }

    static constexpr Turn kOnly = {.first = true, .last = true};       ///< With its update.
    static constexpr Turn kNoUpdate = {.first = true, .last = false};  ///< The first of several.

    /// One micro-batch of an update. Returns the losses of the update so far, as a multiple of a micro-batch's tokens.
    double micro_batch(const int32_t* tokens, const int32_t* targets, float loss_scale, Turn turn = kNoUpdate) {
        backend_->copy_to_device(executor_->tokens(), tokens);
        backend_->copy_to_device(executor_->targets(), targets);
        put_mask_rows(*executor_, *backend_);
        state_->set_loss_scale(loss_scale);
        executor_->run({.turn = turn});
        double sum = 0;
        backend_->copy_to_host(&sum, state_->loss_sum());
        return sum / static_cast<double>(memory_.plan.shape.N());
    }

    /// A micro-batch of what is there.
    void run(const RunArguments& arguments) { executor_->run(arguments); }

    /// One micro-batch of whatever tokens are there, and its update, each step timed.
    void run_timed(float loss_scale, std::vector<double>* seconds) {
        state_->set_loss_scale(loss_scale);
        executor_->run({}, seconds);
    }

    /// Of the last update's gradients.
    double norm() const {
        double value = 0;
        backend_->copy_to_host(&value, state_->grad_norm());
        return value;
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
    void make_state() {
        const Plan& plan = memory_.plan;
        state_ =
            std::make_unique<State>(*backend_, model_, plan.places, plan.shape.T, memory_.layout.arena_bytes, true);
        fill_with_nan(*backend_, state_->all_gradients());
        set_optimizer({});
    }

    Model model_;
    std::unique_ptr<Backend> backend_;
    PlannedMemory memory_;
    std::unique_ptr<State> state_;
    std::unique_ptr<Executor> executor_;
};

}  // namespace llmc
