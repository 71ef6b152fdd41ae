#include "llmc/io/hf_names.h"

#include "llmc/base/check.h"
#include "llmc/io/hf_families.h"

#include <algorithm>
#include <iterator>
#include <utility>

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

NameTable llama_like(std::vector<NameRow> block) {
    const std::vector<NameRow> of_all = {
        {"ln1_weight", {"input_layernorm.weight"}},     {"q_norm_weight", {"self_attn.q_norm.weight"}},
        {"k_norm_weight", {"self_attn.k_norm.weight"}}, {"att_proj_weight", {"self_attn.o_proj.weight"}},
        {"att_proj_bias", {"self_attn.o_proj.bias"}},   {"ln2_weight", {"post_attention_layernorm.weight"}},
        {"fc_proj_weight", {"mlp.down_proj.weight"}},   {"fc_proj_bias", {"mlp.down_proj.bias"}},
    };
    block.insert(block.end(), of_all.begin(), of_all.end());
    return {"model.", "layers.", {{"wte", {"embed_tokens.weight"}}, {"lnf_weight", {"norm.weight"}}}, std::move(block)};
}

const NameTable& llama_names() {
    static const NameTable table = llama_like({
        {"qkv_weight",
         {"self_attn.q_proj.weight", "self_attn.k_proj.weight", "self_attn.v_proj.weight"},
         false,
         Split::QueryKeyValue},
        {"qkv_bias",
         {"self_attn.q_proj.bias", "self_attn.k_proj.bias", "self_attn.v_proj.bias"},
         false,
         Split::QueryKeyValue},
        {"gate_up_weight", {"mlp.gate_proj.weight", "mlp.up_proj.weight"}, false, Split::Halves},
        {"gate_up_bias", {"mlp.gate_proj.bias", "mlp.up_proj.bias"}, false, Split::Halves},
    });
    return table;
}

const NameTable& phi3_names() {
    static const NameTable table =
        llama_like({{"qkv_weight", {"self_attn.qkv_proj.weight"}}, {"gate_up_weight", {"mlp.gate_up_proj.weight"}}});
    return table;
}

const NameTable& names_of(Family family) {
    switch (hf_family(family).tensors) {
        case HfTensors::Gpt2: return gpt2_names();
        case HfTensors::Llama: return llama_names();
        case HfTensors::Phi3: return phi3_names();
    }
    return gpt2_names();
}

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

std::string unwrapped_hf_name(std::string_view name) {
    constexpr std::string_view kWrappers[] = {"_orig_mod", "module", "_fsdp_wrapped_module",
                                              "_checkpoint_wrapped_module"};
    std::string result;
    while (!name.empty()) {
        const size_t end = std::min(name.find('.'), name.size() - 1) + 1;
        const std::string_view part = name.substr(0, end);
        const auto is_part = [&](std::string_view wrapper) {
            return part.size() == wrapper.size() + 1 && part.starts_with(wrapper) && part.back() == '.';
        };
        if (std::none_of(std::begin(kWrappers), std::end(kWrappers), is_part)) result += part;
        name.remove_prefix(end);
    }
    return result;
}

bool is_hf_buffer(std::string_view name) {
    return name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias") ||
           name.find("rotary_emb.") != std::string_view::npos;
}

}  // namespace llmc
