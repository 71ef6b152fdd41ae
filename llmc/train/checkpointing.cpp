#include "llmc/train/checkpointing.h"

#include "llmc/base/error.h"
#include "llmc/base/file.h"
#include "llmc/io/carried_files.h"

#include <algorithm>
#include <cstring>
#include <filesystem>

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

/// A tensor of the state to be written when its turn comes, through `staging` where the host cannot read it in place.
CheckpointTensor stored_tensor(const std::string& name, const ParameterRow& row, const Tensor& tensor, Backend& backend,
                               std::vector<char>& staging) {
    const Tensor part = stored_part(tensor, row);
    return {{name, DType::F32, stored_shape(row)}, backend.host_view(part), [part, &backend, &staging] {
                staging.resize(static_cast<size_t>(part.bytes()));
                backend.copy_to_host(staging.data(), part);
                return static_cast<const void*>(staging.data());
            }};
}

void load_tensor(const SafetensorsFile& file, const std::string& name, const ParameterRow& row, const Tensor& tensor,
                 Backend& backend) {
    const SafetensorsView& view = file.expect(name, DType::F32, stored_shape(row));
    backend.copy_to_device(stored_part(tensor, row), view.bytes.data());
}

nlohmann::json state_json(const ModelConfig& config, const Progress& progress) {
    return {
        {"model", nlohmann::json::parse(to_json(config))},
        {"step", progress.step},
        {"updates", progress.updates},
        {"next_sequence", progress.next_sequence},
        {"tokenizer", progress.tokenizer},
        {"dtype", progress.dtype},
        {"seq_len", progress.seq_len},
        {"total_batch_size", progress.total_batch_size},
        {"seed", progress.seed},
        {"train_tokens", progress.train_tokens},
        {"padded_vocab_size", progress.padded_vocab_size},
    };
}

}  // namespace

void save_checkpoint(const std::string& root, const State& state, const Progress& progress) {
    const Model& model = state.model();
    Backend& backend = state.backend();
    backend.synchronize();
    std::vector<char> staging;
    CheckpointFile weights = {kModelFile, {}};
    CheckpointFile moments = {kOptimizerFile, {}};
    for (size_t i = 0; i < model.parameters.size(); ++i) {
        const ParameterRow& row = model.parameters[i];
        const int index = static_cast<int>(i);
        weights.tensors.push_back(stored_tensor(row.name, row, state.master_or_parameter(index), backend, staging));
        moments.tensors.push_back(stored_tensor("m." + row.name, row, state.moment_m(index), backend, staging));
        moments.tensors.push_back(stored_tensor("v." + row.name, row, state.moment_v(index), backend, staging));
    }
    const CheckpointFile files[] = {std::move(weights), std::move(moments)};
    write_checkpoint(root, progress.step, state_json(model.config, progress), files);
}

void save_imported(const std::string& root, const WeightSource& weights, const std::string& tokenizer) {
    const Model& model = weights.model();
    Progress progress;
    progress.tokenizer = tokenizer;
    progress.dtype = name_of(DType::F32);
    progress.padded_vocab_size = weights.padded_vocab_size();
    std::vector<float> values;
    CheckpointFile file = {kModelFile, {}};
    for (size_t i = 0; i < model.parameters.size(); ++i) {
        const ParameterRow& row = model.parameters[i];
        file.tensors.push_back({{row.name, DType::F32, stored_shape(row)}, nullptr, [&values, &weights, i] {
                                    values = weights.values(static_cast<int>(i));
                                    return static_cast<const void*>(values.data());
                                }});
    }
    write_checkpoint(root, progress.step, state_json(model.config, progress), {&file, 1});
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
        progress.padded_vocab_size = json.value("padded_vocab_size", int64_t{0});
        return progress;
    } catch (const nlohmann::json::exception& error) {
        fail("'{}': the checkpoint lacks what a training run needs ({})", checkpoint.path, error.what());
    }
}

ModelConfig model_of(const Checkpoint& checkpoint) {
    if (!checkpoint.state.contains("model")) fail("'{}': the checkpoint does not describe its model", checkpoint.path);
    return model_config_from_json(checkpoint.state["model"].dump(), checkpoint.path);
}

std::string tokenizer_folder_of(const Checkpoint& checkpoint) {
    const std::filesystem::path step = std::filesystem::absolute(checkpoint.path).lexically_normal();
    const std::string folder = tokenizer_folder_of_run(step.parent_path().parent_path().string());
    return is_directory(folder) ? folder : "";
}

std::string tokenizer_of(const Checkpoint& checkpoint) {
    const std::string folder = tokenizer_folder_of(checkpoint);
    const std::string own = folder.empty() ? "none" : tokenizer_in(folder);
    return own == "none" ? progress_of(checkpoint).tokenizer : own;
}

CheckpointWeights::CheckpointWeights(Checkpoint checkpoint)
    : WeightSource(make_model(model_of(checkpoint))),
      checkpoint_(std::move(checkpoint)),
      progress_(progress_of(checkpoint_)) {}

void CheckpointWeights::read(int parameter, std::span<float> out) const {
    const ParameterRow& row = model().parameters[static_cast<size_t>(parameter)];
    const SafetensorsView& view = checkpoint_.file(kModelFile).expect(row.name, DType::F32, stored_shape(row));
    std::memcpy(out.data(), view.bytes.data(), view.bytes.size());
}

std::string CheckpointWeights::describe() const {
    return fmt::format("the checkpoint '{}', {} steps", checkpoint_.path, progress_.step);
}

std::string CheckpointWeights::tokenizer_folder() const { return tokenizer_folder_of(checkpoint_); }

DType CheckpointWeights::dtype() const { return progress_.dtype == name_of(DType::BF16) ? DType::BF16 : DType::F32; }

void load_checkpoint(const Checkpoint& checkpoint, State& state) {
    const Model& model = state.model();
    const SafetensorsFile& weights = checkpoint.file(kModelFile);
    const bool imported = checkpoint.step == 0 && checkpoint.files.count(kOptimizerFile) == 0;
    for (size_t i = 0; i < model.parameters.size(); ++i) {
        const ParameterRow& row = model.parameters[i];
        const int index = static_cast<int>(i);
        load_tensor(weights, row.name, row, state.master_or_parameter(index), state.backend());
        if (imported) continue;  // The moments stay zero.
        const SafetensorsFile& moments = checkpoint.file(kOptimizerFile);
        load_tensor(moments, "m." + row.name, row, state.moment_m(index), state.backend());
        load_tensor(moments, "v." + row.name, row, state.moment_v(index), state.backend());
    }
    state.round_masters();
}

void load_weights(const WeightSource& weights, State& state) {
    const Model& model = state.model();
    CHECK(model.config == weights.model().config, describe(model.config), describe(weights.model().config));
    for (size_t i = 0; i < model.parameters.size(); ++i) {
        const ParameterRow& row = model.parameters[i];
        const int index = static_cast<int>(i);
        const std::vector<float> values = weights.values(index);
        const Tensor tensor = stored_part(state.master_or_parameter(index), row);
        if (tensor.dtype == DType::F32) {
            state.backend().copy_to_device(tensor, values.data());
            continue;
        }
        // Inference in bf16 has no master weights: round while loading.
        std::vector<bf16> rounded(values.size());
        std::transform(values.begin(), values.end(), rounded.begin(), [](float value) { return to_bf16(value); });
        state.backend().copy_to_device(tensor, rounded.data());
    }
    state.round_masters();
}

}  // namespace llmc
