#include "llmc/io/peft/adapters.h"

#include "llmc/base/check.h"
#include "llmc/base/error.h"
#include "llmc/base/file.h"
#include "llmc/io/hf_names.h"
#include "llmc/io/safetensors.h"

#include <algorithm>
#include <map>
#include <omp.h>
#include <utility>

namespace llmc {
namespace {

/// A part of a weight of a layer that a product of the block multiplies with.
struct Adaptable {
    int layer = 0;
    std::string weight;  ///< "qkv_weight".
    std::string module;  ///< "self_attn.q_proj", of layer 0 "model.layers.0.self_attn.q_proj".
    HfPart part;
    std::string leaf() const { return module.substr(module.rfind('.') + 1); }
};

std::vector<Adaptable> adaptable(const Model& base) {
    std::vector<bool> in_product(static_cast<size_t>(base.parameters_per_layer), false);
    for (const OpRow& row : base.block) {
        if (row.kind == OpKind::Matmul) in_product[static_cast<size_t>(row.weight)] = true;
    }
    std::vector<Adaptable> all;
    for (const HfPart& part : hf_parts(base)) {
        const int within = part.parameter - base.first_layer_parameter;
        if (within < 0 || within >= static_cast<int>(base.config.L) * base.parameters_per_layer) continue;
        if (!in_product[static_cast<size_t>(within % base.parameters_per_layer)]) continue;
        const int layer = within / base.parameters_per_layer;
        const std::string number = "." + std::to_string(layer) + ".";
        const std::string& name = base.parameters[static_cast<size_t>(part.parameter)].name;
        const std::string module = part.name.substr(0, part.name.rfind('.'));
        all.push_back({layer, name.substr(name.find(number) + number.size()),
                       module.substr(module.find(number) + number.size()), part});
    }
    return all;
}

/// Adapters of a model that has some, weight by weight: rows of its table, and the parts of the base's.
const ParameterRow& row_named(const Model& model, const std::string& name) {
    const int index = model.find_parameter(name);
    CHECK(index != kNone, name);
    return model.parameters[static_cast<size_t>(index)];
}

struct NamedTensor {
    SafetensorsEntry entry;
    std::vector<float> values;
};

/// All tensors of an adapter's folder.
class Tensors {
  public:
    Tensors(const Model& model, const std::function<std::vector<float>(int)>& values)
        : model_(model), base_(make_model(model.config)), values_(values) {}

    std::vector<NamedTensor> all(PeftConfig* config) {
        for (const Adaptable& target : adaptable(base_)) add_factors(target, *config);
        for (const HfPart& part : hf_parts(base_)) add_whole(part, config);
        return std::move(tensors_);
    }

  private:
    std::vector<float> values_of(const std::string& name) const { return values_(model_.find_parameter(name)); }

    void add(const std::string& name, std::vector<int64_t> shape, std::vector<float> values) {
        tensors_.push_back({{"base_model.model." + name, DType::F32, std::move(shape)}, std::move(values)});
    }

    void add_factors(const Adaptable& target, const PeftConfig& config) {
        const std::string layer = "layers." + std::to_string(target.layer) + ".";
        const std::string stem = layer + target.weight.substr(0, target.weight.rfind("_weight"));
        int64_t first_a = 0, first_b = 0;
        for (const LoraTarget& other : model_.lora.targets) {
            if (other.weight != target.weight) continue;
            if (other.first_row == target.part.first_row) {
                const int64_t rank = config.rank, in = row_named(model_, stem + "_lora_a").cols;
                const std::vector<float> a = values_of(stem + "_lora_a"), b = values_of(stem + "_lora_b");
                const std::string module = target.part.name.substr(0, target.part.name.rfind('.'));
                add(module + ".lora_A.weight", {rank, in},
                    {a.begin() + first_a * in, a.begin() + (first_a + rank) * in});
                add(module + ".lora_B.weight", {other.rows, rank},
                    {b.begin() + first_b * rank, b.begin() + (first_b + other.rows) * rank});
                return;
            }
            first_a += config.rank, first_b += other.rows;
        }
    }

    /// What trains beside the adapters: biases, and matrices that PEFT calls modules to save.
    void add_whole(const HfPart& part, PeftConfig* config) {
        const std::string& name = base_.parameters[static_cast<size_t>(part.parameter)].name;
        if (!row_named(model_, name).trainable) return;
        const int64_t cols = row_named(model_, name).cols;
        const std::vector<float> values = values_of(name);
        std::vector<float> stored;
        for (int64_t outer = 0; outer < (part.transposed ? cols : part.rows); ++outer) {
            for (int64_t inner = 0; inner < (part.transposed ? part.rows : cols); ++inner) {
                const int64_t row = part.transposed ? inner : outer, col = part.transposed ? outer : inner;
                stored.push_back(values[static_cast<size_t>((part.first_row + row) * cols + col)]);
            }
        }
        const std::string module = part.name.substr(0, part.name.rfind('.'));
        const bool is_bias = part.name.ends_with(".bias");
        const bool adapted = config->names(module);
        add(is_bias && adapted ? module + ".base_layer.bias" : part.name, part.shape(base_), std::move(stored));
        if (is_bias) return;
        const std::string leaf = module.substr(module.rfind('.') + 1);
        auto& saved = config->modules_to_save;
        if (std::find(saved.begin(), saved.end(), leaf) == saved.end()) saved.push_back(leaf);
    }

    const Model& model_;
    const Model base_;
    const std::function<std::vector<float>(int)>& values_;
    std::vector<NamedTensor> tensors_;
};

}  // namespace

std::vector<std::string> adaptable_modules(const Model& base) {
    std::vector<std::string> names;
    for (const Adaptable& target : adaptable(base)) {
        if (std::find(names.begin(), names.end(), target.leaf()) == names.end()) names.push_back(target.leaf());
    }
    return names;
}

std::vector<std::string> named_modules(const Model& base, const std::string& option, std::string_view list) {
    const std::vector<std::string> there = adaptable_modules(base);
    if (list == "all" || list == "all-linear") return there;
    std::vector<std::string> names;
    for (size_t first = 0; first <= list.size();) {
        const size_t end = std::min(list.find(',', first), list.size());
        const std::string name(list.substr(first, end - first));
        const auto found = std::find_if(there.begin(), there.end(), [&](const std::string& module) {
            return !name.empty() && (module == name || module == name + "_proj" || module == "c_" + name);
        });
        if (found == there.end()) {
            fail_usage("{}={}: '{}' is none of the model's matrices; they are {}, or all", option, list, name,
                       fmt::join(there, ", "));
        }
        if (std::find(names.begin(), names.end(), *found) == names.end()) names.push_back(*found);
        first = end + 1;
    }
    return names;
}

LoraSpec lora_spec(const Model& base, const PeftConfig& config) {
    LoraSpec spec = {config.rank, {}, static_cast<float>(config.dropout)};
    for (const Adaptable& target : adaptable(base)) {
        if (target.layer > 0 || !config.names(target.part.name.substr(0, target.part.name.rfind('.')))) continue;
        spec.targets.push_back(
            {target.weight, target.module, target.part.first_row, target.part.rows, config.scale_of(target.module)});
    }
    return spec;
}

Model with_adapters(Model base, const PeftConfig& config) {
    const LoraSpec spec = lora_spec(base, config);
    Model model = with_lora(std::move(base), spec);
    if (config.bias == "none") return model;
    for (ParameterRow& row : model.parameters) {
        if (!row.name.ends_with("_bias")) continue;
        const std::string leaf = row.name.substr(row.name.rfind('.') + 1);
        const std::string weight = leaf.substr(0, leaf.rfind("_bias")) + "_weight";
        const auto adapted = [&](const LoraTarget& target) { return target.weight == weight; };
        row.trainable =
            row.trainable || config.bias == "all" || std::any_of(spec.targets.begin(), spec.targets.end(), adapted);
    }
    lay_out_parameters(&model);
    return model;
}

void add_product(std::span<float> weight, std::span<const float> b, std::span<const float> a, int64_t rank, int64_t in,
                 float scale) {
    const auto rows = static_cast<int64_t>(weight.size()) / in;
    // Nothing may throw inside: room for all threads comes before.
    std::vector<float> sums_of_threads(static_cast<size_t>(in) * static_cast<size_t>(omp_get_max_threads()));
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < rows; ++i) {
        float* const sums = sums_of_threads.data() + in * omp_get_thread_num();
        std::fill(sums, sums + in, 0.0f);
        for (int64_t r = 0; r < rank; ++r) {
            const float factor = b[static_cast<size_t>(i * rank + r)];
            const float* const of_a = a.data() + r * in;
#pragma omp simd
            for (int64_t k = 0; k < in; ++k) sums[k] += factor * of_a[k];
        }
        float* const to = weight.data() + i * in;
#pragma omp simd
        for (int64_t k = 0; k < in; ++k) to[k] += scale * sums[k];
    }
}

void add_adapters(const AdapterShape& shape, std::span<const float> a, std::span<const float> b, int64_t in,
                  std::span<float> weight) {
    const auto part = [](auto all, int64_t first, int64_t rows, int64_t columns) {
        return all.subspan(static_cast<size_t>(first * columns), static_cast<size_t>(rows * columns));
    };
    int64_t first_a = 0, first_b = 0;
    for (const AdapterGroup& group : shape.groups) {
        add_product(part(weight, group.first_column, group.columns, in), part(b, first_b, group.columns, shape.rank),
                    part(a, first_a, shape.rank, in), shape.rank, in, group.scale);
        first_a += shape.rank, first_b += group.columns;
    }
}

void write_peft_folder(const std::string& folder, const Model& model, PeftConfig config,
                       const std::function<std::vector<float>(int parameter)>& values) {
    const std::vector<NamedTensor> tensors = Tensors(model, values).all(&config);
    std::vector<SafetensorsEntry> entries;
    for (const NamedTensor& tensor : tensors) entries.push_back(tensor.entry);
    SafetensorsWriter writer(folder + "/adapter_model.safetensors", std::move(entries), {{"format", "pt"}});
    for (const NamedTensor& tensor : tensors) writer.write(tensor.entry.name, tensor.values.data());
    writer.close();
    FileWriter file(folder + "/adapter_config.json");
    file.write(to_json(config));
    file.close();
}

}  // namespace llmc
