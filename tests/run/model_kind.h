// The small models of tests/golden/kinds: one for each feature that a config.json can say, with the loss and gradients
// of transformers in fp64 (dev/oracle/model_kinds.py).
#pragma once

#include "llmc/base/error.h"
#include "llmc/io/hf_model.h"
#include "llmc/train/checkpointing.h"
#include "llmc/train/load_weights.h"
#include "tests/run/tiny_trainer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <sstream>
#include <string>
#include <vector>

namespace llmc {

inline const std::vector<std::string> kModelKinds = {
    "gpt2_exact_gelu", "gpt2_score_scale", "llama_biases",    "llama_dynamic", "llama_yarn", "mistral_window",
    "qwen2_windows",   "qwen3_norms",      "smollm3_no_rope", "phi3_long",     "phi3_short"};

class ModelKind {
  public:
    explicit ModelKind(const std::string& name)
        : folder_("tests/golden/kinds/" + name), source_(folder_), expected_(folder_ + "/expected.safetensors") {}

    const std::string& folder() const { return folder_; }
    const HfModel& source() const { return source_; }
    const Model& model() const { return source_.model(); }
    BatchShape shape() const { return {view("tokens").shape[0], view("tokens").shape[1]}; }
    std::vector<int32_t> tokens() const { return values<int32_t>("tokens"); }
    std::vector<int32_t> targets() const { return values<int32_t>("targets"); }
    double loss() const { return values<double>("loss")[0]; }

    template <typename T>
    std::vector<T> values(const std::string& name) const {
        const SafetensorsView& tensor = view(name);
        std::vector<T> result(tensor.bytes.size() / sizeof(T));
        std::memcpy(result.data(), tensor.bytes.data(), tensor.bytes.size());
        return result;
    }

    /// The gradient is within twice the error that transformers itself makes in fp32, and each tensor of it within
    /// `each` times.
    void expect_gradients(TinyTrainer& trainer, double each = 2) const {
        std::istringstream names(expected_.metadata().at("names"));
        const std::vector<double> errors = values<double>("error");
        std::string name;
        double square = 0, honest_square = 0;
        for (size_t i = 0; names >> name; ++i) {
            const std::vector<float> truth = values<float>("grad." + name), ours = gradient(name, trainer);
            ASSERT_EQ(ours.size(), truth.size()) << name;
            double distance = 0, norm = 0;
            for (size_t k = 0; k < truth.size(); ++k) {
                const double difference = static_cast<double>(ours[k]) - static_cast<double>(truth[k]);
                distance += difference * difference, norm += static_cast<double>(truth[k]) * truth[k];
            }
            const double honest = errors[i] + 0.5e-7 * std::sqrt(norm);  // What is stored was rounded to fp32.
            EXPECT_LE(std::sqrt(distance), each * honest) << name;
            square += distance, honest_square += honest * honest;
        }
        EXPECT_LE(std::sqrt(square), 2 * std::sqrt(honest_square));
    }

  private:
    const SafetensorsView& view(const std::string& name) const {
        const SafetensorsView* found = expected_.find(name);
        if (found == nullptr) throw std::runtime_error("no tensor " + name);
        return *found;
    }

    /// In the layout of the file.
    static std::vector<float> gradient(const std::string& name, TinyTrainer& trainer) {
        for (const HfPart& part : hf_parts(trainer.model())) {
            if (part.name != name) continue;
            const std::vector<float> all = trainer.values(trainer.state().gradient(part.parameter), part.parameter);
            const int64_t cols = trainer.model().parameters[static_cast<size_t>(part.parameter)].cols;
            std::vector<float> result;
            const int64_t outer = part.transposed ? cols : part.rows, inner = part.transposed ? part.rows : cols;
            for (int64_t a = 0; a < outer; ++a)
                for (int64_t b = 0; b < inner; ++b) {
                    const int64_t row = part.transposed ? b : a, col = part.transposed ? a : b;
                    result.push_back(all[static_cast<size_t>((part.first_row + row) * cols + col)]);
                }
            return result;
        }
        throw std::runtime_error("no part " + name);
    }

    std::string folder_;
    HfModel source_;
    SafetensorsFile expected_;
};

/// The kind's model with its weights, under a policy.
class KindTrainer : public TinyTrainer {
  public:
    KindTrainer(const ModelKind& kind, DType dtype, const std::string& policy, int threads = 2,
                const std::string& device = "cpu")
        : TinyTrainer(kind.model().config, kind.shape(), dtype, policy, threads, 0, device), kind_(kind) {
        load_weights(kind.source(), state());
    }
    /// The loss, and in gradients() its gradient.
    double run() {
        const std::vector<int32_t> tokens = kind_.tokens(), targets = kind_.targets();
        return micro_batch(tokens.data(), targets.data(), 1.0f / static_cast<float>(kind_.shape().N()));
    }

  private:
    const ModelKind& kind_;
};

}  // namespace llmc
