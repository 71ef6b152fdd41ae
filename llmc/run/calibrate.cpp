#include "llmc/run/calibrate.h"

#include "llmc/base/error.h"
#include "llmc/base/file.h"
#include "llmc/base/log.h"
#include "llmc/base/version.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <vector>

namespace llmc {
namespace {

constexpr int kFileVersion = 2;

/// Where a step's time belongs.
double& slot_of(OpTimes& times, const Step& step) {
    if (step.op == OpKind::Classifier) return times.classifier;
    const bool outside = step.row < 0;
    OpTimes::Row& row = !outside                       ? times.block[static_cast<size_t>(step.row)]
                        : step.op == OpKind::Embedding ? times.embedding
                                                       : times.final_norm;
    if (step.pass == Pass::Forward) return row.forward;
    return step.pass == Pass::BackwardWeight ? row.backward_weight : row.backward;
}

/// Fastest of `repeats` calls.
template <typename Run>
double fastest(int repeats, Run run) {
    double best = 1e300;
    for (int i = 0; i < repeats; ++i) {
        const double start = now_seconds();
        run();
        best = std::min(best, now_seconds() - start);
    }
    return best;
}

}  // namespace

OpTimes measure_times(const Model& model, const BatchShape& shape, DType dtype, int64_t logits_chunk_tokens,
                      Backend& backend, int repeats) {
    ModelConfig config = model.config;
    config.L = 1;
    const Model one_layer = make_model(config);
    const PlannedMemory memory =
        plan_memory(one_layer, shape, dtype, find_policy("none"), logits_chunk_tokens, backend);
    State state(backend, one_layer, dtype, shape.T, memory.layout.arena_bytes, /*training=*/true);
    state.initialise(1);
    Executor executor(state, memory.plan, memory.layout);
    std::vector<int32_t> tokens(static_cast<size_t>(shape.N()));
    for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<int32_t>(i) % static_cast<int32_t>(config.V);

    std::vector<double> best(memory.plan.steps.size(), 1e300), seconds;
    for (int turn = 0; turn <= repeats; ++turn) {  // The first turn warms caches and kernels up.
        backend.copy_to_device(executor.tokens(), tokens.data());
        backend.copy_to_device(executor.targets(), tokens.data());
        executor.run({.loss_scale = 1.0f / static_cast<float>(shape.N()), .loss_sum = state.loss_sum()}, &seconds);
        for (size_t i = 0; turn > 0 && i < best.size(); ++i) best[i] = std::min(best[i], seconds[i]);
    }
    OpTimes times;
    times.source = "measured on " + backend.info().name;
    times.measured = true;
    times.block.resize(model.block.size());
    for (size_t i = 0; i < best.size(); ++i) slot_of(times, memory.plan.steps[i]) = best[i];

    const auto ranges = parameter_ranges(one_layer);
    const double small = fastest(repeats, [&] {
        backend.zero(state.all_gradients());
        backend.global_norm(state.grad_norm(), state.all_gradients(), state.norm_workspace());
        backend.adamw(state.all_parameters(), state.all_masters(), state.all_m(), state.all_v(), state.all_gradients(),
                      ranges, {}, state.grad_norm());
        backend.synchronize();
    });
    times.optimizer =
        small * static_cast<double>(model.parameter_elements) / static_cast<double>(one_layer.parameter_elements);
    return times;
}

std::string calibration_path(const Model& model, const BatchShape& shape, DType dtype, int64_t logits_chunk_tokens,
                             const Backend& backend) {
    const char* cache = std::getenv("XDG_CACHE_HOME");
    const char* home = std::getenv("HOME");
    const std::string base = cache != nullptr && *cache != '\0' ? cache : std::string(home ? home : ".") + "/.cache";
    ModelConfig config = model.config;
    config.L = 1;
    config.name.clear();
    const std::string key = fmt::format("{}|{}|{}x{}|{}|{}", backend.info().name, to_json(config), shape.B, shape.T,
                                        name_of(dtype), logits_chunk_tokens);
    return fmt::format("{}/train_gpt/times-{}.json", base, checksum_of(std::as_bytes(std::span(key))));
}

bool load_times(const std::string& path, const Model& model, OpTimes* times) {
    if (!path_exists(path)) return false;
    try {
        const auto json = nlohmann::json::parse(read_text(path));
        if (json.at("format_version") != kFileVersion) throw std::runtime_error("another format");
        if (const auto made_by = json.at("made_by").get<std::string>(); made_by != version()) {
            spdlog::warn(
                "the calibration '{}' is of train_gpt {}, this is {}: it is ignored; --calibrate measures again", path,
                made_by, version());
            return false;
        }
        OpTimes loaded;
        loaded.source = json.at("source").get<std::string>();
        loaded.measured = true;
        const auto row = [](const nlohmann::json& entry) {
            OpTimes::Row result = {entry.at(0).get<double>(), entry.at(1).get<double>(), entry.at(2).get<double>()};
            if (!(result.forward >= 0 && result.backward >= 0 && result.backward_weight >= 0)) {
                throw std::runtime_error("a negative time");
            }
            return result;
        };
        for (const auto& entry : json.at("block")) loaded.block.push_back(row(entry));
        if (loaded.block.size() != model.block.size()) throw std::runtime_error("another model");
        loaded.embedding = row(json.at("embedding"));
        loaded.final_norm = row(json.at("final_norm"));
        loaded.classifier = json.at("classifier").get<double>();
        loaded.optimizer = json.at("optimizer").get<double>();
        *times = loaded;
        return true;
    } catch (const std::exception& error) {
        spdlog::warn("the calibration '{}' is damaged ({}) and is ignored; --calibrate measures again", path,
                     error.what());
        return false;
    }
}

void save_times(const std::string& path, const OpTimes& times) {
    const auto row = [](const OpTimes::Row& entry) {
        return nlohmann::json{entry.forward, entry.backward, entry.backward_weight};
    };
    nlohmann::json json = {{"format_version", kFileVersion},
                           {"made_by", version()},
                           {"source", times.source},
                           {"embedding", row(times.embedding)},
                           {"final_norm", row(times.final_norm)},
                           {"classifier", times.classifier},
                           {"optimizer", times.optimizer},
                           {"block", nlohmann::json::array()}};
    for (const OpTimes::Row& entry : times.block) json["block"].push_back(row(entry));
    make_directories(std::filesystem::path(path).parent_path().string(), "--calibrate");
    write_text_atomically(path, json.dump(2) + "\n");
}

}  // namespace llmc
