// A model with its parameters, and what PyTorch made of it: the files of dev/oracle/make_golden.py.
#pragma once

#include "llmc/io/safetensors.h"
#include "tests/run/tiny_trainer.h"

#include <gtest/gtest.h>

#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

namespace llmc {

class Golden {
  public:
    explicit Golden(const std::string& name) : file_("tests/golden/" + name + ".safetensors") {}

    std::string text(const std::string& key) const { return file_.metadata().at(key); }
    int64_t integer(const std::string& key) const { return std::stoll(text(key)); }
    double number(const std::string& key) const { return std::stod(text(key)); }

    template <typename T>
    std::vector<T> values(const std::string& name) const {
        const SafetensorsView* view = file_.find(name);
        if (view == nullptr) throw std::runtime_error("no tensor " + name);
        std::vector<T> result(view->bytes.size() / sizeof(T));
        std::memcpy(result.data(), view->bytes.data(), view->bytes.size());
        return result;
    }

    ModelConfig config() const {
        ModelConfig config = config_of(text("family") == "gpt2" ? Family::Gpt2 : Family::Llama);
        config.name = "golden";
        config.L = integer("L"), config.C = integer("C"), config.NH = integer("NH"), config.NKV = integer("NKV");
        config.HD = integer("HD"), config.F = integer("F"), config.V = integer("V"), config.maxT = integer("max_T");
        config.tied = text("tied") == "true";
        config.norm_epsilon = number("norm_eps");
        config.rope_theta = number("rope_theta");
        if (text("rope_scaling") == "llama3") {
            config.rope_scaling = {RopeScaling::Kind::Llama3, number("rope_factor"), number("rope_low_freq_factor"),
                                   number("rope_high_freq_factor"), number("rope_original_max_T")};
        }
        return config;
    }
    BatchShape shape() const { return {integer("B"), integer("T")}; }

    float learning_rate() const { return static_cast<float>(number("learning_rate")); }
    OptimizerSettings adamw() const {
        OptimizerSettings settings;
        settings.beta1 = static_cast<float>(number("beta1"));
        settings.beta2 = static_cast<float>(number("beta2"));
        settings.epsilon = static_cast<float>(number("eps"));
        settings.weight_decay = static_cast<float>(number("weight_decay"));
        settings.grad_clip = static_cast<float>(number("grad_clip"));
        return settings;
    }

  private:
    SafetensorsFile file_;
};

inline void load_parameters(const Golden& golden, TinyTrainer& trainer) {
    for (size_t i = 0; i < trainer.model().parameters.size(); ++i) {
        const ParameterRow& row = trainer.model().parameters[i];
        const std::vector<float> values = golden.values<float>("param." + row.name);
        const auto index = static_cast<int>(i);
        const Tensor tensor = trainer.state().kept(Kept::Weights, index, trainer.state().held(index));
        ASSERT_EQ(static_cast<int64_t>(values.size()), tensor.count()) << row.name;
        trainer.backend().copy_to_device(tensor, values.data());
    }
    trainer.state().round_masters();
}

}  // namespace llmc
