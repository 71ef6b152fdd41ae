#include "llmc/train/checkpointing.h"

#include "llmc/base/error.h"

#include <cstring>
#include <list>

namespace llmc {
namespace {

constexpr const char* kModelFile = "model.safetensors";
constexpr const char* kOptimizerFile = "optimizer.safetensors";

/// The tensor's shape in files: without the padding rows of the vocabulary.
std::vector<int64_t> stored_shape(const ParameterRow& row) {
    if (row.cols == 1) return {row.used_rows};
    return {row.used_rows, row.cols};
}

/// The stored part of a parameter-shaped fp32 tensor.
Tensor stored_part(Tensor tensor, const ParameterRow& row) {
    tensor.shape[0] = row.used_rows;
    return tensor;
}

/// Copies of device tensors, alive until the checkpoint is written.
class Staging {
  public:
    explicit Staging(Backend& backend) : backend_(backend) {}
    CheckpointTensor add(const std::string& name, const ParameterRow& row, const Tensor& tensor) {
        const Tensor part = stored_part(tensor, row);
        copies_.emplace_back(static_cast<size_t>(part.bytes()));
        backend_.copy_to_host(copies_.back().data(), part);
        return {{name, DType::F32, stored_shape(row)}, copies_.back().data()};
    }

  private:
    Backend& backend_;
    std::list<std::vector<char>> copies_;
};

void load_tensor(const SafetensorsFile& file, const std::string& name, const ParameterRow& row, const Tensor& tensor,
                 Backend& backend) {
    const SafetensorsView& view = file.expect(name, DType::F32, stored_shape(row));
    backend.copy_to_device(stored_part(tensor, row), view.bytes.data());
}

}  // namespace

void save_checkpoint(const std::string& root, const State& state, const Progress& progress) {
    const Model& model = state.model();
    Staging staging(state.backend());
    CheckpointFile weights = {kModelFile, {}};
    CheckpointFile moments = {kOptimizerFile, {}};
    for (size_t i = 0; i < model.parameters.size(); ++i) {
        const ParameterRow& row = model.parameters[i];
        const int index = static_cast<int>(i);
        weights.tensors.push_back(staging.add(row.name, row, state.master_or_parameter(index)));
        moments.tensors.push_back(staging.add("m." + row.name, row, state.moment_m(index)));
        moments.tensors.push_back(staging.add("v." + row.name, row, state.moment_v(index)));
    }
    const nlohmann::json json = {
        {"model", nlohmann::json::parse(to_json(model.config))},
        {"step", progress.step},
        {"updates", progress.updates},
        {"next_sequence", progress.next_sequence},
        {"tokenizer", progress.tokenizer},
        {"dtype", progress.dtype},
        {"seq_len", progress.seq_len},
        {"total_batch_size", progress.total_batch_size},
        {"seed", progress.seed},
        {"train_tokens", progress.train_tokens},
    };
    const CheckpointFile files[] = {std::move(weights), std::move(moments)};
    write_checkpoint(root, progress.step, json, files);
}

Progress progress_of(const Checkpoint& checkpoint) {
    try {
        Progress progress;
        const nlohmann::json& json = checkpoint.state;
        json.at("step").get_to(progress.step);
        json.at("updates").get_to(progress.updates);
        json.at("next_sequence").get_to(progress.next_sequence);
        json.at("tokenizer").get_to(progress.tokenizer);
        json.at("dtype").get_to(progress.dtype);
        json.at("seq_len").get_to(progress.seq_len);
        json.at("total_batch_size").get_to(progress.total_batch_size);
        json.at("seed").get_to(progress.seed);
        json.at("train_tokens").get_to(progress.train_tokens);
        return progress;
    } catch (const nlohmann::json::exception& error) {
        fail("'{}': the checkpoint lacks what a training run needs ({})", checkpoint.path, error.what());
    }
}

ModelConfig model_of(const Checkpoint& checkpoint) {
    if (!checkpoint.state.contains("model")) fail("'{}': the checkpoint does not describe its model", checkpoint.path);
    return model_config_from_json(checkpoint.state["model"].dump(), checkpoint.path);
}

void load_checkpoint(const Checkpoint& checkpoint, State& state, bool training) {
    const Model& model = state.model();
    Backend& backend = state.backend();
    for (size_t i = 0; i < model.parameters.size(); ++i) {
        const ParameterRow& row = model.parameters[i];
        const int index = static_cast<int>(i);
        const SafetensorsFile& weights = checkpoint.file(kModelFile);
        if (training || state.dtype() == DType::F32) {
            load_tensor(weights, row.name, row, state.master_or_parameter(index), backend);
        } else {  // Inference in bf16 has no master weights: round while loading.
            const SafetensorsView& view = weights.expect(row.name, DType::F32, stored_shape(row));
            std::vector<float> values(view.bytes.size() / sizeof(float));
            std::memcpy(values.data(), view.bytes.data(), view.bytes.size());
            std::vector<bf16> rounded(values.size());
            for (size_t k = 0; k < values.size(); ++k) rounded[k] = to_bf16(values[k]);
            backend.copy_to_device(stored_part(state.parameter(index), row), rounded.data());
        }
        if (!training) continue;
        const SafetensorsFile& moments = checkpoint.file(kOptimizerFile);
        load_tensor(moments, "m." + row.name, row, state.moment_m(index), backend);
        load_tensor(moments, "v." + row.name, row, state.moment_v(index), backend);
    }
    if (training) state.round_masters();
}

}  // namespace llmc
