#include "llmc/io/hf_names.h"

#include "llmc/base/check.h"
#include "llmc/io/hf_families.h"

#include <algorithm>
#include <iterator>

namespace llmc {
namespace {

const HfNames& names_of(Family family) { return hf_family(family).names(); }

std::vector<int64_t> rows_of_parts(const ParameterRow& parameter) {
    return parameter.parts.empty() ? std::vector<int64_t>{parameter.used_rows} : parameter.parts;
}

const HfNameRow& find_row(const std::vector<HfNameRow>& rows, std::string_view ours) {
    const auto found = std::find_if(rows.begin(), rows.end(), [&](const HfNameRow& row) { return row.ours == ours; });
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
    const HfNames& names = names_of(model.config.family);
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
        const HfNameRow& row = find_row(in_block ? names.block : names.model, leaf);
        const std::vector<int64_t> rows = rows_of_parts(parameter);
        CHECK(rows.size() == row.theirs.size(), parameter.name, rows.size(), row.theirs.size());
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
