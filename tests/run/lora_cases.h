// Trainings of low-rank adapters with PEFT, as files: a base model, the adapter before and after some updates, losses,
// the first gradients and logits (dev/oracle/make_lora.py).
#pragma once

#include "llmc/base/file.h"
#include "llmc/io/hf_model.h"
#include "llmc/io/peft/peft_folder.h"
#include "llmc/model/lora.h"
#include "llmc/train/checkpointing.h"
#include "tests/run/tiny_trainer.h"

#include <nlohmann/json.hpp>

#include <cstring>
#include <string>
#include <vector>

namespace llmc {

class LoraCase {
  public:
    /// `root` has expected_lora.json and the folders it names.
    LoraCase(const std::string& root, const std::string& name)
        : root_(root),
          name_(name),
          base_(root + "/base_" + (name.starts_with("gpt2") ? "gpt2" : "llama")),
          before_(root + "/" + name + "/before", base_.model()),
          after_(root + "/" + name + "/after", base_.model()),
          expected_(root + "/" + name + "/expected.safetensors"),
          json_(nlohmann::json::parse(read_text(root + "/expected_lora.json"))) {}

    const HfModel& base() const { return base_; }
    const PeftFolder& before() const { return before_; }
    const PeftFolder& after() const { return after_; }
    std::string base_folder() const { return root_ + "/base_" + (name_.starts_with("gpt2") ? "gpt2" : "llama"); }
    std::vector<std::string> tensors() const {
        std::vector<std::string> names;
        for (const SafetensorsView& tensor : expected_.tensors()) names.push_back(tensor.name);
        return names;
    }
    std::string folder_before() const { return root_ + "/" + name_ + "/before"; }
    std::string folder_after() const { return root_ + "/" + name_ + "/after"; }
    const nlohmann::json& steps() const { return json_["steps"]; }
    BatchShape shape() const {
        const nlohmann::json& ids = steps()[0][0]["ids"];
        return {static_cast<int64_t>(ids.size()), static_cast<int64_t>(ids[0].size())};
    }
    std::vector<double> losses() const { return json_["cases"][name_]["losses"]; }
    double decay() const { return json_["optimizer"]["weight_decay"]; }
    double learning_rate() const { return json_["optimizer"]["lr"]; }

    /// With the adapters, and what else the folder trains; all of it decays, as PyTorch has it by default.
    Model model() const {
        Model model = with_lora(base_.model(), before_.spec());
        for (const int row : before_.replaced()) {
            const std::string& name = base_.model().parameters[static_cast<size_t>(row)].name;
            model.parameters[static_cast<size_t>(model.find_parameter(name))].trainable = true;
        }
        for (ParameterRow& row : model.parameters) row.decay = true;
        lay_out_parameters(&model);
        return model;
    }

    OptimizerSettings adamw() const {
        OptimizerSettings settings;
        settings.beta2 = 0.999f, settings.weight_decay = static_cast<float>(decay());
        return settings;
    }

    std::vector<float> values(const std::string& tensor) const {
        const SafetensorsView* view = expected_.find(tensor);
        if (view == nullptr) return {};
        std::vector<float> result(view->bytes.size() / sizeof(float));
        std::memcpy(result.data(), view->bytes.data(), view->bytes.size());
        return result;
    }
    std::vector<int32_t> probe() const {
        const SafetensorsView* view = expected_.find("probe_ids");
        std::vector<int64_t> ids(view->bytes.size() / sizeof(int64_t));
        std::memcpy(ids.data(), view->bytes.data(), view->bytes.size());
        return {ids.begin(), ids.end()};
    }

  private:
    std::string root_, name_;
    HfModel base_;
    PeftFolder before_, after_;
    SafetensorsFile expected_;
    nlohmann::json json_;
};

/// A micro-batch of rows of ids and labels: every id is to predict the label behind it.
struct LabelledBatch {
    std::vector<int32_t> tokens, targets;
    int64_t scored = 0;

    explicit LabelledBatch(const nlohmann::json& micro) {
        for (size_t row = 0; row < micro["ids"].size(); ++row) {
            const std::vector<int32_t> ids = micro["ids"][row], labels = micro["labels"][row];
            tokens.insert(tokens.end(), ids.begin(), ids.end());
            for (size_t i = 1; i <= labels.size(); ++i) {
                targets.push_back(i < labels.size() && labels[i] >= 0 ? labels[i] : -1);
                scored += targets.back() >= 0 ? 1 : 0;
            }
        }
    }
};

/// One update of these micro-batches; its loss, the mean over what is scored in all of them.
inline double train_update(TinyTrainer& trainer, const std::vector<LabelledBatch>& batches) {
    int64_t scored = 0;
    for (const LabelledBatch& batch : batches) scored += batch.scored;
    double sum = 0;
    for (size_t i = 0; i < batches.size(); ++i) {
        const Turn turn = {.first = i == 0, .last = i + 1 == batches.size()};
        sum = trainer.micro_batch(batches[i].tokens.data(), batches[i].targets.data(),
                                  1.0f / static_cast<float>(scored), turn);
    }
    return sum * static_cast<double>(trainer.plan().shape.N()) / static_cast<double>(scored);
}

}  // namespace llmc
