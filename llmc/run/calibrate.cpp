#include "llmc/run/calibrate.h"

#include "llmc/base/error.h"
#include "llmc/base/file.h"
#include "llmc/base/log.h"
#include "llmc/base/median.h"
#include "llmc/base/shallow_json.h"
#include "llmc/base/version.h"
#include "llmc/model/dropout.h"
#include "llmc/plan/formats.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <filesystem>
#include <iterator>
#include <map>
#include <tuple>
#include <utility>
#include <vector>

namespace llmc {
namespace {

constexpr int kFileVersion = 8;

/// Everything trains in what is measured: an operation takes as long whatever is frozen. The middle one of three layers
/// is timed: as in a deep model, what its backward reads has left the caches since its forward.
constexpr int64_t kMeasuredLayers = 3;

/// Of a matmul's bias alone, which no step of the measured plan sums: the output's gradient is read once, as gradients
/// are for their squares.
double bias_seconds(const Model& model, const BatchShape& shape, const OpRow& row, const OpTimes& times) {
    const ParameterRow& weight = model.parameters[static_cast<size_t>(model.parameter_index(0, row.weight))];
    return static_cast<double>(shape.N() * weight.rows) * times.square_sums;
}

/// Of a forward that the measured plan runs as one, its operations alone, which a repeat may need: an activation takes
/// as long as gradients of so many bytes to be read, and the matmul what is left.
void divide_fused_forward(const Model& model, const BatchShape& shape, const Places& places, const FusedRun& run,
                          double fused_seconds, OpTimes* times) {
    const FusedPart &matmul = run.parts[0], &activation = run.parts[1];
    const OpCall alone = {
        .kind = activation.op, .row = &model.block[static_cast<size_t>(activation.row)], .tokens = shape.N()};
    const double bytes = op_cost(model, alone, shape.T, size_of(places.activations())).bytes;
    const double seconds = bytes / static_cast<double>(sizeof(float)) * times->square_sums;
    times->block[static_cast<size_t>(activation.row)].forward = seconds;
    times->block[static_cast<size_t>(matmul.row)].forward = std::max(0.0, fused_seconds - activation.share * seconds);
}

}  // namespace

OpTimes measure_times(const Model& model, const BatchShape& whole_shape, const Places& places,
                      int64_t logits_chunk_tokens, Backend& backend, bool fuses, int repeats) {
    const BatchShape shape = {whole_shape.B, whole_shape.T};  // One document each, and every target counts.
    const int64_t fits = backend.info().available();
    StateFormats formats = formats_of(places);
    formats.gradients = DType::F32;  // Where they are kept: a step that adds others to them is priced by its bytes.
    Places alone = with_formats(Places(places.activations(), places.optimizer()), formats);
    if (model.lora) alone = for_adapters(alone);
    alone.set_base(places.base());
    const auto planned = [&](int64_t layers) {
        Model few = with_config(model, with_layers(model.config, layers));
        PlannedMemory memory =
            plan_memory(few, shape, alone, find_policy("none"), logits_chunk_tokens, backend, {}, fuses);
        return std::pair(std::move(few), std::move(memory));
    };
    auto [few_layers, memory] = planned(std::min<int64_t>(model.config.L, kMeasuredLayers));
    if (memory.total_bytes() > fits) std::tie(few_layers, memory) = planned(1);
    const int64_t measured_layer = few_layers.config.L / 2;
    const Plan& plan = memory.plan;

    State state(backend, few_layers, alone, shape.T, memory.layout.arena_bytes, /*training=*/true);
    state.initialise(1);
    state.set_loss_scale(1.0f / static_cast<float>(shape.N()));
    OptimizerSettings optimizer;
    optimizer.kind = places.optimizer();
    Executor executor(state, plan, memory.layout, nullptr, optimizer);
    std::vector<int32_t> tokens(static_cast<size_t>(shape.N()));
    for (size_t i = 0; i < tokens.size(); ++i)
        tokens[i] = static_cast<int32_t>(i % static_cast<size_t>(model.config.V));

    std::vector<std::vector<double>> of_step(plan.steps.size());
    std::vector<double> seconds;
    for (int turn = 0; turn <= repeats; ++turn) {  // The first turn warms caches and kernels up.
        backend.copy_to_device(executor.tokens(), tokens.data());
        backend.copy_to_device(executor.targets(), tokens.data());
        executor.run({}, &seconds);
        for (size_t i = 0; turn > 0 && i < of_step.size(); ++i) of_step[i].push_back(seconds[i]);
    }
    OpTimes times;
    times.source = "measured on " + backend.info().name;
    times.measured = true;
    times.block.resize(model.block.size());
    times.fused.resize(plan.fusions.size());
    times.tokens = shape.N();
    times.chunk_tokens = plan.logits_chunk_tokens;
    // Where several steps share a number: seconds over units.
    std::map<const double*, std::pair<double, double>> sums;
    for (size_t i = 0; i < of_step.size(); ++i) {
        const Step& step = plan.steps[i];
        const double units = units_of(times, step);
        if ((step.row >= 0 && step.layer != measured_layer) || units == 0) continue;
        double& time = time_of(times, step);
        auto& [all_seconds, all_units] = sums[&time];
        all_seconds += median(of_step[i]), all_units += units;
        time = all_seconds / all_units;
    }
    for (size_t row = 0; row < model.block.size(); ++row) {
        if (!facts_of(model.block[row].kind).splits_backward) continue;
        times.block[row].backward_bias = bias_seconds(model, shape, model.block[row], times);
    }
    for (size_t fusion = 0; fusion < plan.fusions.size(); ++fusion) {
        const FusedRun& run = plan.fusions[fusion];
        if (run.fusion == Fusion::MatmulAndActivation && times.fused[fusion] > 0)
            divide_fused_forward(model, shape, places, run, times.fused[fusion], &times);
    }
    // Which no step of the plan is about: a row is read and written, as gradients are read for their squares.
    times.scored_rows.forward = times.scored_rows.backward =
        2 * static_cast<double>(shape.N() * model.config.C) * times.square_sums;
    if (times.unpacking == 0) times.unpacking = times.square_sums / static_cast<double>(sizeof(float));
    // Where layers differ in their windows, of a layer as they are on average.
    const double of_measured = attention_span(few_layers.config, shape.T, measured_layer);
    for (size_t row = 0; row < model.block.size(); ++row) {
        if (model.block[row].kind != OpKind::Attention || model.config.window_layers.empty()) continue;
        const double share = attention_span(model.config, shape.T) / of_measured;
        times.block[row].forward *= share, times.block[row].backward *= share;
    }
    return times;
}

std::string calibration_path(const Model& model, const BatchShape& shape, const Places& places,
                             int64_t logits_chunk_tokens, const Backend& backend, bool fuses) {
    const std::string folder = cache_folder();
    if (folder.empty()) return "";
    ModelConfig config = with_layers(model.config, 1);
    config.name.clear();
    std::string parts;
    for (const LoraTarget& target : model.lora.targets) parts += fmt::format("|{} {}", target.module, model.lora.rank);
    if (model.dropout > 0) parts += "|dropout";
    if (model.lora.dropout > 0) parts += "|dropout of adapters";
    if (places.base() != plain_format(places.activations())) parts += fmt::format("|base {}", name_of(places.base()));
    const std::string key = fmt::format(
        "{}|{}|{}x{}|{}|{}|{}|{}|{}{}{}", backend.info().name, to_json(config), shape.B, shape.T,
        name_of(places.activations()), logits_chunk_tokens, optimizer_row(places.optimizer()).name,
        format_name(places.format(Buffer::MomentM)), places[Buffer::Masters].exists, fuses ? "" : "|no fusion", parts);
    return fmt::format("{}/times-{}.json", folder, checksum_of(std::as_bytes(std::span(key))));
}

std::string to_json(const OpTimes& times) {
    const auto row = [](const OpTimes::Row& entry) {
        return nlohmann::json{entry.forward, entry.backward, entry.backward_weight, entry.backward_bias};
    };
    nlohmann::json json = {
        {"format_version", kFileVersion},
        {"made_by", version()},
        {"source", times.source},
        {"measured", times.measured},
        {"embedding", row(times.embedding)},
        {"final_norm", row(times.final_norm)},
        {"scored_rows", row(times.scored_rows)},
        {"dropout", row(times.dropout)},
        {"classifier", row(times.classifier)},
        {"cross_entropy", row(times.cross_entropy)},
        {"tokens", times.tokens},
        {"chunk_tokens", times.chunk_tokens},
        {"unpacking", times.unpacking},
        {"update", {times.loss_sum, times.zeroing, times.square_sums, times.begin_update, times.update}},
        {"fused", times.fused},
        {"block", nlohmann::json::array()}};
    for (const OpTimes::Row& entry : times.block) json["block"].push_back(row(entry));
    return json.dump(2) + "\n";
}

OpTimes times_of_json(const std::string& text, const Model& model) {
    const auto json = nlohmann::json::parse(shallow_json(text));
    if (json.at("format_version") != kFileVersion) throw std::runtime_error("another format");
    OpTimes times;
    times.source = json.at("source").get<std::string>();
    times.measured = json.at("measured").get<bool>();
    const auto row = [](const nlohmann::json& entry) {
        OpTimes::Row result = {entry.at(0).get<double>(), entry.at(1).get<double>(), entry.at(2).get<double>(),
                               entry.at(3).get<double>()};
        if (!(result.forward >= 0 && result.backward >= 0 && result.backward_weight >= 0 &&
              result.backward_bias >= 0)) {
            throw std::runtime_error("a negative time");
        }
        return result;
    };
    for (const auto& entry : json.at("block")) times.block.push_back(row(entry));
    if (times.block.size() != model.block.size()) throw std::runtime_error("another model");
    times.embedding = row(json.at("embedding"));
    times.final_norm = row(json.at("final_norm"));
    times.scored_rows = row(json.at("scored_rows"));
    times.dropout = row(json.at("dropout"));
    times.classifier = row(json.at("classifier"));
    times.cross_entropy = row(json.at("cross_entropy"));
    times.chunk_tokens = json.at("chunk_tokens").get<int64_t>();
    times.tokens = json.at("tokens").get<int64_t>();
    if (times.chunk_tokens < 1 || times.tokens < 1) throw std::runtime_error("a chunk without tokens");
    times.unpacking = json.value("unpacking", 0.0);
    if (!(times.unpacking >= 0)) throw std::runtime_error("a negative time");
    json.at("fused").get_to(times.fused);
    for (const double seconds : times.fused) {
        if (!(seconds >= 0)) throw std::runtime_error("a negative time");
    }
    double* const of_update[] = {&times.loss_sum, &times.zeroing, &times.square_sums, &times.begin_update,
                                 &times.update};
    for (size_t i = 0; i < std::size(of_update); ++i) {
        json.at("update").at(i).get_to(*of_update[i]);
        if (!(*of_update[i] >= 0)) throw std::runtime_error("a negative time");
    }
    return times;
}

bool load_times(const std::string& path, const Model& model, OpTimes* times) {
    if (path.empty() || !path_exists(path)) return false;
    try {
        const std::string text = read_text(path);
        if (const auto made_by = nlohmann::json::parse(shallow_json(text)).at("made_by").get<std::string>();
            made_by != version()) {
            spdlog::warn(
                "the calibration '{}' is of train_gpt {}, this is {}: it is ignored; --calibrate measures again", path,
                made_by, version());
            return false;
        }
        *times = times_of_json(text, model);
        return true;
    } catch (const std::exception& error) {
        spdlog::warn("the calibration '{}' is damaged ({}) and is ignored; --calibrate measures again", path,
                     error.what());
        return false;
    }
}

bool save_times(const std::string& path, const OpTimes& times) {
    try {
        if (path.empty()) fail("neither XDG_CACHE_HOME nor HOME is set");
        make_directories(std::filesystem::path(path).parent_path().string(), "the cache");
        write_shared_text(path, to_json(times));
        return true;
    } catch (const Error& error) {
        spdlog::warn("--calibrate: the times that were measured are used, but not kept for later runs: {}",
                     error.what());
        return false;
    }
}

}  // namespace llmc
