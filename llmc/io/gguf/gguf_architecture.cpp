#include "llmc/io/gguf/gguf_architecture.h"

#include "llmc/base/check.h"
#include "llmc/base/error.h"
#include "llmc/io/gguf/gguf_rope.h"

#include <nlohmann/json.hpp>

#include <algorithm>

namespace llmc {
namespace {

bool has_operation(const Model& model, OpKind kind) {
    return std::any_of(model.block.begin(), model.block.end(), [&](const OpRow& row) { return row.kind == kind; });
}

bool rotates(const Model& model) {
    return std::any_of(model.block.begin(), model.block.end(), [](const OpRow& row) { return row.rope; });
}

bool heads_share_channels(const ModelConfig& config) { return config.NH * config.HD == config.C; }

bool is_gpt2(const Model& model) {
    return model.norm == OpKind::LayerNorm && model.wpe != kNone && !rotates(model) &&
           has_operation(model, OpKind::Gelu) && heads_share_channels(model.config);
}

/// LLaMA and all that differ from it in what parameters they have, and in which layers are rotated.
bool is_like_llama(const Model& model) {
    return model.norm == OpKind::RmsNorm && model.wpe == kNone && rotates(model) &&
           has_operation(model, OpKind::Swiglu) && model.config.rotary_columns() == model.config.HD;
}

bool is_llama(const Model& model) { return is_like_llama(model) && model.config.rope_layers.empty(); }

/// llama.cpp knows one order.
bool every_fourth_layer_has_no_positions(const ModelConfig& config) {
    for (int64_t layer = 0; layer < config.L; ++layer) {
        if (config.rotates(layer) != (layer % 4 != 3)) return false;
    }
    return true;
}

bool is_smollm3(const Model& model) {
    return is_like_llama(model) && !model.config.rope_layers.empty() &&
           every_fourth_layer_has_no_positions(model.config);
}

bool is_qwen2(const Model& model) { return is_llama(model) && heads_share_channels(model.config); }

constexpr const char* kHead = "output.weight";

// clang-format off
const std::vector<GgufNameRow> kLlamaModel = {{"wte", {"token_embd.weight"}}, {"lnf_weight", {"output_norm.weight"}}};

/// Those of a llama block, and more.
std::vector<GgufNameRow> llama_block(std::vector<GgufNameRow> more) {
    std::vector<GgufNameRow> rows = {
        {"ln1_weight", {"attn_norm.weight"}},
        {"qkv_weight", {"attn_q.weight", "attn_k.weight", "attn_v.weight"}, GgufSplit::QueryKeyValue},
        {"att_proj_weight", {"attn_output.weight"}},
        {"ln2_weight", {"ffn_norm.weight"}},
        {"gate_up_weight", {"ffn_gate.weight", "ffn_up.weight"}, GgufSplit::Halves},
        {"fc_proj_weight", {"ffn_down.weight"}}};
    rows.insert(rows.end(), more.begin(), more.end());
    return rows;
}

const GgufNameRow kQkvBias = {
    "qkv_bias", {"attn_q.bias", "attn_k.bias", "attn_v.bias"}, GgufSplit::QueryKeyValue};

const std::vector<GgufArchitecture>& architectures() {
    static const std::vector<GgufArchitecture> table = {
        {"gpt2", is_gpt2, {}, false, false,
         {{"wte", {"token_embd.weight"}},
          {"wpe", {"position_embd.weight"}, GgufSplit::Whole, /*always_f32=*/true},
          {"lnf_weight", {"output_norm.weight"}},
          {"lnf_bias", {"output_norm.bias"}}},
         {{"ln1_weight", {"attn_norm.weight"}},
          {"ln1_bias", {"attn_norm.bias"}},
          {"qkv_weight", {"attn_qkv.weight"}},
          {"qkv_bias", {"attn_qkv.bias"}},
          {"att_proj_weight", {"attn_output.weight"}},
          {"att_proj_bias", {"attn_output.bias"}},
          {"ln2_weight", {"ffn_norm.weight"}},
          {"ln2_bias", {"ffn_norm.bias"}},
          {"fc_weight", {"ffn_up.weight"}},
          {"fc_bias", {"ffn_up.bias"}},
          {"fc_proj_weight", {"ffn_down.weight"}},
          {"fc_proj_bias", {"ffn_down.bias"}}}},
        {"qwen2", is_qwen2, {"qkv_bias"}, false, false, kLlamaModel, llama_block({kQkvBias})},
        {"qwen3", is_llama, {"q_norm_weight", "k_norm_weight"}, false, false, kLlamaModel,
         llama_block({kQkvBias, {"q_norm_weight", {"attn_q_norm.weight"}}, {"k_norm_weight", {"attn_k_norm.weight"}}})},
        {"smollm3", is_smollm3, {}, true, false, kLlamaModel, llama_block({})},
        {"llama", is_llama, {}, true, true, kLlamaModel,
         llama_block({kQkvBias,
                      {"att_proj_bias", {"attn_output.bias"}},
                      {"gate_up_bias", {"ffn_gate.bias", "ffn_up.bias"}, GgufSplit::Halves},
                      {"fc_proj_bias", {"ffn_down.bias"}}})},
    };
    return table;
}
// clang-format on

/// Where a parameter is: its name inside its layer, or the model, and the layer, or kNone.
struct Place {
    std::string leaf;
    int layer = kNone;
};

Place place_of(const Model& model, int index) {
    const std::string& name = model.parameters[static_cast<size_t>(index)].name;
    const int in_layers = index - model.first_layer_parameter;
    const int layer = in_layers < 0 ? kNone : in_layers / model.parameters_per_layer;
    return {name.substr(name.rfind('.') + 1), layer < model.config.L ? layer : kNone};
}

const GgufNameRow* find_row(const GgufArchitecture& architecture, const Place& place) {
    const std::vector<GgufNameRow>& rows = place.layer == kNone ? architecture.model : architecture.block;
    const auto found = std::find_if(rows.begin(), rows.end(), [&](const auto& row) { return row.ours == place.leaf; });
    return found == rows.end() ? nullptr : &*found;
}

bool is_own_head(const Model& model, int index) { return index == model.head && !model.config.tied; }

/// The first parameter that the architecture has no place for; kNone if it has one for each.
int first_without_place(const GgufArchitecture& architecture, const Model& model) {
    for (size_t i = 0; i < model.parameters.size(); ++i) {
        const int index = static_cast<int>(i);
        if (is_own_head(model, index) || find_row(architecture, place_of(model, index)) != nullptr) continue;
        return index;
    }
    return kNone;
}

bool has_required(const GgufArchitecture& architecture, const Model& model) {
    return std::all_of(architecture.must_have.begin(), architecture.must_have.end(), [&](const char* name) {
        return model.find_parameter(std::string("layers.0.") + name) != kNone;
    });
}

/// A window as wide as the context hides nothing.
bool has_no_window(const ModelConfig& config) { return config.window == 0 || config.window >= config.maxT; }

/// What llama.cpp computes in none of the architectures above, with the key of config.json; empty if nothing.
std::string what_llama_cpp_lacks(const ModelConfig& config) {
    using Kind = RopeScaling::Kind;
    const Features& features = config.features;
    const Kind rope = config.rope_scaling.kind;
    if (!has_no_window(config)) return fmt::format("it has windows of {} tokens (sliding_window)", config.window);
    if (features.activation == Activation::GeluExact) return "its GELU is the exact one (activation_function)";
    if (!features.scale_scores) return "it does not scale attention's scores (scale_attn_weights)";
    if (features.scale_scores_by_layer) {
        return "it scales attention's scores by the layer (scale_attn_by_inverse_layer_idx)";
    }
    if (!config.is_rotary()) return "";
    if (config.rotary_columns() != config.HD) {
        return fmt::format("it rotates {} of {} columns of a head (partial_rotary_factor)", config.rotary_columns(),
                           config.HD);
    }
    if (!config.rope_layers.empty() && !every_fourth_layer_has_no_positions(config)) {
        return "its layers without rotary positions are not every fourth (no_rope_layers)";
    }
    if (rope == Kind::Dynamic || rope == Kind::LongRope) {
        return fmt::format("its rotary positions turn by other angles in longer texts (rope_type {})", name_of(rope));
    }
    return "";
}

/// What the metadata below say of a configuration. A field that is not among them would be lost.
void require_known_fields(const ModelConfig& config) {
    const std::string lacks = what_llama_cpp_lacks(config);
    if (!lacks.empty()) fail_usage("--format=gguf: llama.cpp has no such model: {}; use --format=hf", lacks);
    ModelConfig said;
    said.name = config.name, said.family = config.family, said.features = config.features;
    said.L = config.L, said.C = config.C, said.NH = config.NH, said.NKV = config.NKV, said.HD = config.HD;
    said.F = config.F, said.V = config.V, said.maxT = config.maxT, said.tied = config.tied;
    said.norm_epsilon = config.norm_epsilon;
    said.rope_theta = config.rope_theta, said.rope_scaling = config.rope_scaling;
    said.rotary_size = config.rotary_size, said.rope_layers = config.rope_layers;  // By the architectures.
    if (has_no_window(config)) said.window = config.window, said.window_layers = config.window_layers;
    if (said == config) return;
    const auto all = nlohmann::json::parse(to_json(config)), known = nlohmann::json::parse(to_json(said));
    std::string names;
    for (const auto& [name, value] : all.items()) {
        if (!known.contains(name) || known[name] != value) names += (names.empty() ? "" : ", ") + name;
    }
    fail_usage("--format=gguf: the model has a {} that this program cannot say in a GGUF file; use --format=hf", names);
}

/// Why the architecture is not the model's; empty if it is.
std::string what_it_lacks(const GgufArchitecture& architecture, const Model& model) {
    const int parameter = first_without_place(architecture, model);
    if (parameter != kNone) {
        return fmt::format("{} has no place for the parameter {}", architecture.name,
                           model.parameters[static_cast<size_t>(parameter)].name);
    }
    const RopeScaling& scaling = model.config.rope_scaling;
    if (gguf_can_say_rope(model.config, architecture.takes_rope_divisors)) return "";
    return fmt::format("{} has no rotary positions like these (rope_type {}{})", architecture.name,
                       name_of(scaling.kind), scaling.truncate ? "" : " without truncate");
}

std::vector<int64_t> rows_of_parts(const ModelConfig& config, GgufSplit split, int64_t rows) {
    switch (split) {
        case GgufSplit::Whole: return {rows};
        case GgufSplit::QueryKeyValue: return {config.NH * config.HD, config.NKV * config.HD, config.NKV * config.HD};
        case GgufSplit::Halves: return {rows / 2, rows / 2};
    }
    return {};
}

}  // namespace

const GgufArchitecture& gguf_architecture_of(const Model& model) {
    require_known_fields(model.config);
    std::string lacks;
    for (const GgufArchitecture& architecture : architectures()) {
        if (!architecture.computes(model) || !has_required(architecture, model)) continue;
        const std::string why = what_it_lacks(architecture, model);
        if (why.empty()) return architecture;
        lacks += "; " + why;
    }
    fail_usage("--format=gguf: llama.cpp has no architecture for this model, {}{}; use --format=hf",
               describe(model.config), lacks);
}

int64_t GgufPart::source_row(int64_t row) const {
    if (interleaved_head == 0) return first_row + row;
    const int64_t channel = row % interleaved_head, half = interleaved_head / 2;
    return first_row + row - channel + channel / 2 + (channel % 2) * half;
}

std::vector<GgufPart> gguf_parts(const GgufArchitecture& architecture, const Model& model) {
    std::vector<GgufPart> parts;
    for (size_t i = 0; i < model.parameters.size(); ++i) {
        const ParameterRow& parameter = model.parameters[i];
        const int index = static_cast<int>(i);
        if (is_own_head(model, index)) {
            parts.push_back({kHead, index, 0, parameter.used_rows});
            continue;
        }
        const Place place = place_of(model, index);
        const GgufNameRow* row = find_row(architecture, place);
        CHECK(row != nullptr, parameter.name);
        const std::string prefix = place.layer == kNone ? "" : fmt::format("blk.{}.", place.layer);
        const std::vector<int64_t> rows = rows_of_parts(model.config, row->split, parameter.used_rows);
        int64_t first = 0;
        for (size_t k = 0; k < row->theirs.size(); ++k) {
            const bool is_rotated = row->split == GgufSplit::QueryKeyValue && k < 2;
            const int64_t head = is_rotated && architecture.interleaves_rotary ? model.config.HD : 0;
            parts.push_back({prefix + row->theirs[k], index, first, rows[k], head, row->always_f32});
            first += rows[k];
        }
        CHECK(first == parameter.used_rows, parameter.name);
    }
    return parts;
}

void add_model_metadata(const GgufArchitecture& architecture, const Model& model, GgufMetadata* metadata) {
    const ModelConfig& config = model.config;
    const auto key = [&](const char* name) { return fmt::format("{}.{}", architecture.name, name); };
    metadata->add_count(key("vocab_size"), config.V);
    metadata->add_count(key("context_length"), config.maxT);
    metadata->add_count(key("embedding_length"), config.C);
    metadata->add_count(key("block_count"), config.L);
    metadata->add_count(key("feed_forward_length"), config.F);
    metadata->add_count(key("attention.head_count"), config.NH);
    metadata->add_count(key("attention.head_count_kv"), config.NKV);
    metadata->add_number(
        key(model.norm == OpKind::RmsNorm ? "attention.layer_norm_rms_epsilon" : "attention.layer_norm_epsilon"),
        config.norm_epsilon);
    if (!rotates(model)) return;
    metadata->add_count(key("attention.key_length"), config.HD);
    metadata->add_count(key("attention.value_length"), config.HD);
    add_rope_metadata(architecture.name, config, architecture.takes_rope_divisors, metadata);
}

}  // namespace llmc
