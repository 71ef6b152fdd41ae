#include "llmc/io/peft/peft_folder.h"

#include "llmc/base/check.h"
#include "llmc/base/error.h"
#include "llmc/base/file.h"
#include "llmc/io/peft/adapters.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <utility>

namespace llmc {
namespace {

constexpr const char* kConfigFile = "/adapter_config.json";
constexpr const char* kTensorFile = "/adapter_model.safetensors";

/// The name of a tensor within the model: without what PEFT puts around it.
std::string name_in_model(std::string_view name) {
    std::string result = unwrapped_hf_name(name);
    constexpr std::string_view kPrefix = "base_model.model.";
    if (result.starts_with(kPrefix)) result.erase(0, kPrefix.size());
    for (const std::string_view part : {".default", ".base_layer", ".modules_to_save"}) {
        const size_t at = result.find(std::string(part) + ".");
        if (at != std::string::npos) result.erase(at, part.size());
    }
    return result;
}

std::string listed(const std::vector<std::string>& names) {
    constexpr size_t kShown = 6;
    const std::span<const std::string> shown(names.data(), std::min(names.size(), kShown));
    const std::string text = fmt::format("{}", fmt::join(shown, ", "));
    return names.size() > kShown ? fmt::format("{}, and {} more", text, names.size() - kShown) : text;
}

std::vector<float> values_of(const SafetensorsView& view) {
    int64_t count = 1;
    for (const int64_t extent : view.shape) count *= extent;
    std::vector<float> values(static_cast<size_t>(count));
    read_as_fp32(view, values);
    return values;
}

bool is_matrix(const ParameterRow& row) { return row.cols > 1; }

/// Every row of values (rows, in) gets the length that `magnitude` says (Liu et al. 2024, "DoRA").
void set_lengths(std::span<float> values, std::span<const float> magnitude, int64_t in) {
    for (size_t i = 0; i < magnitude.size(); ++i) {
        float* const row = values.data() + static_cast<int64_t>(i) * in;
        double squares = 0;
        for (int64_t k = 0; k < in; ++k) squares += static_cast<double>(row[k]) * row[k];
        const auto factor = static_cast<float>(magnitude[i] / std::sqrt(squares));
        for (int64_t k = 0; k < in; ++k) row[k] *= factor;
    }
}

class MergedWeights final : public WeightSource {
  public:
    MergedWeights(std::unique_ptr<WeightSource> base, const std::string& folder)
        : WeightSource(base->model()), base_(std::move(base)), adapter_(folder, base_->model()) {}

    void read(int parameter, std::span<float> out) const override {
        base_->read(parameter, out);
        adapter_.merge(parameter, out);
    }
    std::string describe() const override {
        return fmt::format("{} with the adapter '{}'", base_->describe(), adapter_.folder());
    }
    std::string tokenizer() const override { return base_->tokenizer(); }
    std::string tokenizer_folder() const override { return base_->tokenizer_folder(); }
    DType dtype() const override { return base_->dtype(); }
    int64_t seq_len() const override { return base_->seq_len(); }
    int64_t padded_vocab_size() const override { return base_->padded_vocab_size(); }

  private:
    std::unique_ptr<WeightSource> base_;
    PeftFolder adapter_;
};

}  // namespace

std::string module_of(const HfPart& part) { return part.name.substr(0, part.name.rfind('.')); }

bool is_peft_folder(const std::string& folder) { return path_exists(folder + kConfigFile); }

PeftFolder::PeftFolder(const std::string& folder, const Model& base)
    : folder_(folder),
      rows_(base.parameters),
      parts_(hf_parts(base)),
      factors_(parts_.size()),
      whole_(parts_.size(), nullptr),
      first_layer_parameter_(base.first_layer_parameter),
      parameters_per_layer_(base.parameters_per_layer),
      layers_(base.config.L) {
    const std::string path = folder + kConfigFile;
    if (!path_exists(path)) {
        fail("'{}' is not there; an adapter's folder has one, beside adapter_model.safetensors", path);
    }
    config_ = peft_config_from_json(read_text(path), path);
    if (!path_exists(folder + kTensorFile)) {
        fail("'{}' is not there{}", folder + kTensorFile,
             path_exists(folder + "/adapter_model.bin") ? "; adapter_model.bin cannot be read, save it as safetensors"
                                                        : "; copy it too");
    }
    file_.emplace(folder + kTensorFile);
    match(base);
}

const SafetensorsView* PeftFolder::take(std::map<std::string, const SafetensorsView*>* tensors, const std::string& name,
                                        const std::vector<int64_t>& shape) const {
    const auto found = tensors->extract(name);
    if (!found) return nullptr;
    const SafetensorsView& view = *found.mapped();
    if (view.dtype != DType::F32 && view.dtype != DType::F16 && view.dtype != DType::BF16) {
        fail("'{}': tensor '{}' is {}; adapters may be F32, F16 or BF16", file_->path(), view.name, view.dtype_name);
    }
    if (view.shape != shape) {
        fail(
            "'{}': tensor '{}' has the shape ({}), the model and the adapter's configuration make it ({}); it is of "
            "another model",
            file_->path(), view.name, fmt::join(view.shape, ", "), fmt::join(shape, ", "));
    }
    return &view;
}

void PeftFolder::match(const Model& base) {
    std::map<std::string, const SafetensorsView*> tensors;
    for (const SafetensorsView& view : file_->tensors()) {
        if (!tensors.emplace(name_in_model(view.name), &view).second) {
            fail("'{}': tensor '{}' is there twice; remove one of them", file_->path(), view.name);
        }
    }
    std::vector<std::string> missing, unused;
    for (size_t i = 0; i < parts_.size(); ++i) {
        const HfPart& part = parts_[i];
        const ParameterRow& row = rows_[static_cast<size_t>(part.parameter)];
        const std::string module = module_of(part);
        whole_[i] = take(&tensors, part.name, part.shape(base));
        if (!is_matrix(row) || part.parameter == base.wte || part.parameter == base.wpe) continue;
        const int64_t rank = config_.rank_of(module);
        Factors& factors = factors_[i];
        factors.a = take(&tensors, module + ".lora_A.weight", {rank, row.cols});
        factors.b = take(&tensors, module + ".lora_B.weight", {part.rows, rank});
        if (config_.dora) factors.magnitude = take(&tensors, module + ".lora_magnitude_vector", {part.rows});
        const bool wanted = !config_.target_modules.empty() && config_.names(module) && whole_[i] == nullptr;
        const bool any = factors.a != nullptr || factors.b != nullptr || factors.magnitude != nullptr;
        if (!wanted && !any) continue;
        if (factors.a == nullptr) missing.push_back(module + ".lora_A.weight");
        if (factors.b == nullptr) missing.push_back(module + ".lora_B.weight");
        if (config_.dora && factors.magnitude == nullptr) missing.push_back(module + ".lora_magnitude_vector");
    }
    if (base.config.tied && tensors.count(std::string(kHfHead)) > 0) {
        fail("'{}': lm_head was trained whole, but the model ties it to the embedding; train one that does not",
             folder_);
    }
    for (size_t i = 0; i < parts_.size(); ++i) {
        if (!base.config.tied || parts_[i].parameter != base.wte || whole_[i] == nullptr) continue;
        fail("'{}': it has the embedding anew but not the head, which the model ties to it; train one that does not",
             folder_);
    }
    for (const auto& [name, view] : tensors) unused.push_back(view->name);
    if (!missing.empty() || !unused.empty()) {
        const std::string lacks = missing.empty() ? "" : fmt::format("; it lacks {}", listed(missing));
        const std::string extra = unused.empty() ? "" : fmt::format("; nothing uses {}", listed(unused));
        fail("'{}': the adapter is not for this model, {} ({}){}{}", folder_, name_of(base.config.family),
             llmc::describe(base.config), lacks, extra);
    }
    const bool has_any =
        std::any_of(factors_.begin(), factors_.end(), [](const Factors& f) { return f.a != nullptr; }) ||
        std::any_of(whole_.begin(), whole_.end(), [](const auto* view) { return view != nullptr; });
    if (!has_any) fail("'{}': the adapter has no tensors", folder_);
}

std::vector<int> PeftFolder::replaced() const {
    std::set<int> rows;
    for (size_t i = 0; i < parts_.size(); ++i) {
        if (whole_[i] != nullptr) rows.insert(parts_[i].parameter);
    }
    return {rows.begin(), rows.end()};
}

void PeftFolder::replace(int parameter, std::span<float> values) const {
    const int64_t cols = rows_[static_cast<size_t>(parameter)].cols;
    for (size_t i = 0; i < parts_.size(); ++i) {
        const HfPart& part = parts_[i];
        if (part.parameter != parameter || whole_[i] == nullptr) continue;
        const std::vector<float> stored = values_of(*whole_[i]);
        for (int64_t row = 0; row < part.rows; ++row) {
            for (int64_t k = 0; k < cols; ++k) {
                const int64_t from = part.transposed ? k * part.rows + row : row * cols + k;
                values[static_cast<size_t>((part.first_row + row) * cols + k)] = stored[static_cast<size_t>(from)];
            }
        }
    }
}

void PeftFolder::merge(int parameter, std::span<float> values) const {
    replace(parameter, values);
    const int64_t cols = rows_[static_cast<size_t>(parameter)].cols;
    for (size_t i = 0; i < parts_.size(); ++i) {
        const HfPart& part = parts_[i];
        const Factors& factors = factors_[i];
        if (part.parameter != parameter || factors.a == nullptr) continue;
        const auto of_part =
            values.subspan(static_cast<size_t>(part.first_row * cols), static_cast<size_t>(part.rows * cols));
        const std::string module = module_of(part);
        add_product(of_part, values_of(*factors.b), values_of(*factors.a), config_.rank_of(module), cols,
                    static_cast<float>(config_.scale_of(module)));
        if (factors.magnitude != nullptr) set_lengths(of_part, values_of(*factors.magnitude), cols);
    }
}

LoraSpec PeftFolder::spec() const {
    if (config_.dora) {
        fail("'{}': the adapter is weight-decomposed (use_dora), which can be used and merged but not trained here",
             folder_);
    }
    LoraSpec spec;
    spec.dropout = static_cast<float>(config_.dropout);
    std::map<std::pair<std::string, int64_t>, std::pair<LoraTarget, int64_t>> targets;  // With the number of layers.
    for (size_t i = 0; i < parts_.size(); ++i) {
        if (factors_[i].a == nullptr) continue;
        const HfPart& part = parts_[i];
        const int within = part.parameter - first_layer_parameter_;
        const bool in_layer = within >= 0 && within < layers_ * parameters_per_layer_;
        const std::string module = module_of(part);
        if (!in_layer)
            fail("'{}': it adapts {}, which is in no layer; that can be merged but not trained here", folder_, module);
        const std::string& name = rows_[static_cast<size_t>(part.parameter)].name;
        const std::string number = std::to_string(within / parameters_per_layer_) + ".";
        const std::string weight = name.substr(name.find(number) + number.size());
        const LoraTarget target = {weight, module.substr(module.find("." + number) + 1 + number.size()), part.first_row,
                                   part.rows, config_.scale_of(module)};
        auto& [known, layers] = targets.try_emplace({weight, part.first_row}, target, 0).first->second;
        const int64_t rank = config_.rank_of(module);
        if (spec.rank == 0) spec.rank = rank;
        if (known != target || rank != spec.rank) {
            fail(
                "'{}': ranks or alphas differ between layers or modules (rank_pattern, alpha_pattern); that can be "
                "merged "
                "but not trained here",
                folder_);
        }
        ++layers;
    }
    for (const auto& [key, entry] : targets) {
        if (entry.second != layers_) {
            fail("'{}': it adapts {} in {} of {} layers; that can be merged but not trained here", folder_,
                 entry.first.module, entry.second, layers_);
        }
        spec.targets.push_back(entry.first);
    }
    return spec;
}

void PeftFolder::read_adapter(const std::string& name, std::span<float> out) const {
    const bool is_a = name.ends_with("_lora_a");
    const std::string weight = name.substr(0, name.size() - std::string("_lora_a").size()) + "_weight";
    size_t at = 0;
    for (size_t i = 0; i < parts_.size(); ++i) {
        if (factors_[i].a == nullptr || rows_[static_cast<size_t>(parts_[i].parameter)].name != weight) continue;
        const std::vector<float> values = values_of(is_a ? *factors_[i].a : *factors_[i].b);
        CHECK(at + values.size() <= out.size(), name, out.size());
        std::copy(values.begin(), values.end(), out.begin() + static_cast<int64_t>(at));
        at += values.size();
    }
    CHECK(at == out.size(), name, at, out.size());
}

std::unique_ptr<WeightSource> merged(std::unique_ptr<WeightSource> base, const std::string& folder) {
    return std::make_unique<MergedWeights>(std::move(base), folder);
}

}  // namespace llmc
