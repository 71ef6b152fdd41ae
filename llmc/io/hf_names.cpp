#include "llmc/io/hf_names.h"

#include "llmc/base/check.h"

#include <algorithm>

namespace llmc {
namespace {

/// One of our parameter names, and what it is called there; several names share its rows in equal parts, or as given
/// by `Split`.
enum class Split : uint8_t { Whole, QueryKeyValue, Halves };
struct NameRow {
    const char* ours;
    std::vector<const char*> theirs;
    bool transposed = false;
    Split split = Split::Whole;
};

struct NameTable {
    const char* prefix;
    const char* layer;           ///< Before the layer's number.
    std::vector<NameRow> model;  ///< Parameters outside the layers.
    std::vector<NameRow> block;  ///< Of one layer.
};

const NameTable& gpt2_names() {
    static const NameTable table = {
        "transformer.",
        "h.",
        {{"wte", {"wte.weight"}},
         {"wpe", {"wpe.weight"}},
         {"lnf_weight", {"ln_f.weight"}},
         {"lnf_bias", {"ln_f.bias"}}},
        {{"ln1_weight", {"ln_1.weight"}},
         {"ln1_bias", {"ln_1.bias"}},
         {"qkv_weight", {"attn.c_attn.weight"}, true},
         {"qkv_bias", {"attn.c_attn.bias"}},
         {"att_proj_weight", {"attn.c_proj.weight"}, true},
         {"att_proj_bias", {"attn.c_proj.bias"}},
         {"ln2_weight", {"ln_2.weight"}},
         {"ln2_bias", {"ln_2.bias"}},
         {"fc_weight", {"mlp.c_fc.weight"}, true},
         {"fc_bias", {"mlp.c_fc.bias"}},
         {"fc_proj_weight", {"mlp.c_proj.weight"}, true},
         {"fc_proj_bias", {"mlp.c_proj.bias"}}},
    };
    return table;
}

const NameTable& llama_names() {
    static const NameTable table = {
        "model.",
        "layers.",
        {{"wte", {"embed_tokens.weight"}}, {"lnf_weight", {"norm.weight"}}},
        {{"ln1_weight", {"input_layernorm.weight"}},
         {"qkv_weight",
          {"self_attn.q_proj.weight", "self_attn.k_proj.weight", "self_attn.v_proj.weight"},
          false,
          Split::QueryKeyValue},
         {"att_proj_weight", {"self_attn.o_proj.weight"}},
         {"ln2_weight", {"post_attention_layernorm.weight"}},
         {"gate_up_weight", {"mlp.gate_proj.weight", "mlp.up_proj.weight"}, false, Split::Halves},
         {"fc_proj_weight", {"mlp.down_proj.weight"}}},
    };
    return table;
}

const NameTable& names_of(Family family) { return family == Family::Gpt2 ? gpt2_names() : llama_names(); }

std::vector<int64_t> rows_of_parts(const ModelConfig& config, const NameRow& row, const ParameterRow& parameter) {
    switch (row.split) {
        case Split::Whole: return {parameter.used_rows};
        case Split::QueryKeyValue: return {config.NH * config.HD, config.NKV * config.HD, config.NKV * config.HD};
        case Split::Halves: return {parameter.used_rows / 2, parameter.used_rows / 2};
    }
    return {};
}

const NameRow& find_row(const std::vector<NameRow>& rows, std::string_view ours) {
    const auto found = std::find_if(rows.begin(), rows.end(), [&](const NameRow& row) { return row.ours == ours; });
    CHECK(found != rows.end(), ours);
    return *found;
}

}  // namespace

std::vector<int64_t> HfPart::shape(const Model& model) const {
    const ParameterRow& row = model.parameters[static_cast<size_t>(parameter)];
    if (row.cols == 1) return {rows};
    return transposed ? std::vector<int64_t>{row.cols, rows} : std::vector<int64_t>{rows, row.cols};
}

std::vector<HfPart> hf_parts(const Model& model) {
    const NameTable& names = names_of(model.config.family);
    std::vector<HfPart> parts;
    for (size_t i = 0; i < model.parameters.size(); ++i) {
        const ParameterRow& parameter = model.parameters[i];
        const int index = static_cast<int>(i);
        if (index == model.head && !model.config.tied) {
            parts.push_back({std::string(kHfHead), index, 0, parameter.used_rows, false});
            continue;
        }
        const int in_layers = index - model.first_layer_parameter;
        const auto layer = in_layers < 0 ? kNone : in_layers / model.parameters_per_layer;
        const bool in_block = layer != kNone && layer < model.config.L;
        const std::string prefix =
            in_block ? names.prefix + (names.layer + std::to_string(layer)) + "." : std::string(names.prefix);
        const std::string leaf = parameter.name.substr(parameter.name.rfind('.') + 1);
        const NameRow& row = find_row(in_block ? names.block : names.model, leaf);
        const std::vector<int64_t> rows = rows_of_parts(model.config, row, parameter);
        int64_t first = 0;
        for (size_t k = 0; k < row.theirs.size(); ++k) {
            parts.push_back({prefix + row.theirs[k], index, first, rows[k], row.transposed});
            first += rows[k];
        }
        CHECK(first == parameter.used_rows, parameter.name);
    }
    return parts;
}

std::string_view hf_prefix(Family family) { return names_of(family).prefix; }

bool is_hf_buffer(std::string_view name) {
    return name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias") || name.ends_with("rotary_emb.inv_freq");
}

}  // namespace llmc
