#include "llmc/io/hf_model.h"

#include "llmc/base/error.h"
#include "llmc/base/file.h"
#include "llmc/io/carried_files.h"
#include "llmc/io/hf_config.h"
#include "llmc/io/pipeline/json_fields.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <map>
#include <set>

namespace llmc {
namespace {

constexpr const char* kConfigFile = "/config.json";
constexpr const char* kSingleFile = "/model.safetensors";
constexpr const char* kIndexFile = "/model.safetensors.index.json";

/// Tensor name -> shard, from the index file. A shard is a plain file name: what would leave the folder is refused.
std::map<std::string, std::string> read_index(const std::string& path) {
    const nlohmann::json root = parse_json(MappedFile(path).text(), path);
    if (!root.is_object() || !root.contains("weight_map") || !root["weight_map"].is_object()) {
        fail("'{}' has no weight_map; it is damaged", path);
    }
    std::map<std::string, std::string> shards;
    for (const auto& [tensor, shard] : root["weight_map"].items()) {
        const std::string name = shard.is_string() ? shard.get<std::string>() : "";
        if (name.empty() || name == ".." || name.find_first_of("/\\") != std::string::npos) {
            fail("'{}': the shard {} of tensor '{}' is not a file of this folder; refused", path, shard.dump(), tensor);
        }
        shards[tensor] = name;
    }
    return shards;
}

std::vector<SafetensorsFile> open_shards(const std::string& folder) {
    const std::string index = folder + kIndexFile;
    const std::map<std::string, std::string> shard_of = read_index(index);
    std::set<std::string> names;
    for (const auto& [tensor, shard] : shard_of) names.insert(shard);
    std::vector<SafetensorsFile> files;
    for (const std::string& name : names) {
        const std::string path = folder + "/" + name;
        if (!path_exists(path)) fail("'{}' names the shard '{}', which is not there; copy it too", index, name);
        files.emplace_back(path);
        for (const auto& [tensor, shard] : shard_of) {
            if (shard != name || files.back().find(tensor) != nullptr) continue;
            fail("'{}' has no tensor '{}', which the index places there; it is from another model", path, tensor);
        }
    }
    return files;
}

std::vector<SafetensorsFile> open_files(const std::string& folder) {
    std::vector<SafetensorsFile> files;
    if (path_exists(folder + kSingleFile)) {
        files.emplace_back(folder + kSingleFile);
        return files;
    }
    if (path_exists(folder + kIndexFile)) return open_shards(folder);
    fail("'{}' has neither model.safetensors nor model.safetensors.index.json{}", folder,
         path_exists(folder + "/pytorch_model.bin")
             ? "; its pytorch_model.bin cannot be read, save the model as safetensors"
             : "; only its configuration is there, copy the weights too");
}

/// "a, b, c, and 12 more".
std::string listed(const std::vector<std::string>& names) {
    constexpr size_t kShown = 8;
    const std::span<const std::string> shown(names.data(), std::min(names.size(), kShown));
    const std::string text = fmt::format("{}", fmt::join(shown, ", "));
    return names.size() > kShown ? fmt::format("{}, and {} more", text, names.size() - kShown) : text;
}

/// out (cols, rows) = x (rows, cols) transposed, in tiles that stay in the cache.
void transpose(const float* x, int64_t rows, int64_t cols, float* out) {
    constexpr int64_t kTile = 32;
    for (int64_t r0 = 0; r0 < rows; r0 += kTile) {
        for (int64_t c0 = 0; c0 < cols; c0 += kTile) {
            for (int64_t c = c0; c < std::min(cols, c0 + kTile); ++c) {
                for (int64_t r = r0; r < std::min(rows, r0 + kTile); ++r) out[c * rows + r] = x[r * cols + c];
            }
        }
    }
}

void require_elements(const SafetensorsFile& file, const SafetensorsView& view, const std::vector<int64_t>& shape) {
    if (view.dtype != DType::F32 && view.dtype != DType::F16 && view.dtype != DType::BF16) {
        fail("'{}': tensor '{}' is {}; weights may be F32, F16 or BF16, so convert the model first", file.path(),
             view.name, view.dtype_name);
    }
    if (view.shape != shape) {
        fail("'{}': tensor '{}' has the shape ({}), config.json makes it ({}); one of the two is of another model",
             file.path(), view.name, fmt::join(view.shape, ", "), fmt::join(shape, ", "));
    }
}

}  // namespace

bool is_hf_folder(const std::string& folder) { return path_exists(folder + kConfigFile); }

ModelConfig read_hf_config(const std::string& folder) {
    const std::string path = folder + kConfigFile;
    if (!path_exists(path)) fail("'{}' is not there; a Hugging Face folder has one", path);
    ModelConfig config = model_config_from_hf(read_text(path), path);
    std::filesystem::path name = std::filesystem::path(folder).lexically_normal();
    if (!name.has_filename()) name = name.parent_path();  // "gpt2/" is gpt2.
    config.name = name.filename().string();
    return config;
}

HfModel::HfModel(const std::string& folder)
    : WeightSource(make_model(read_hf_config(folder))),
      folder_(folder),
      files_(open_files(folder)),
      parts_(hf_parts(model())) {
    match();
}

void HfModel::match() {
    const std::string prefix(hf_prefix(model().config.family));
    struct Found {
        const SafetensorsFile* file;
        const SafetensorsView* view;
    };
    std::map<std::string, Found> tensors;
    for (const SafetensorsFile& file : files_) {
        for (const SafetensorsView& view : file.tensors()) {
            const std::string name = unwrapped_hf_name(view.name);
            const bool whole = name == kHfHead || name.starts_with(prefix);
            if (is_hf_buffer(name)) continue;
            if (!tensors.emplace(whole ? name : prefix + name, Found{&file, &view}).second) {
                fail("'{}': tensor '{}' is there twice; remove one of them", folder_, view.name);
            }
        }
    }
    std::vector<std::string> missing, unused;
    for (const HfPart& part : parts_) {
        auto found = tensors.extract(part.name);
        // The matrix that a tied model shares may have been saved under its other name only.
        if (!found && part.parameter == model().wte && model().config.tied) {
            found = tensors.extract(std::string(kHfHead));
        }
        views_.push_back(found ? found.mapped().view : nullptr);
        if (!found) missing.push_back(part.name);
        if (found) require_elements(*found.mapped().file, *found.mapped().view, part.shape(model()));
    }
    for (const auto& [name, found] : tensors) {
        if (name != kHfHead) unused.push_back(found.view->name);
    }
    if (!missing.empty() || !unused.empty()) {
        const std::string lacks = missing.empty() ? "" : fmt::format("; it lacks {}", listed(missing));
        const std::string extra = unused.empty() ? "" : fmt::format("; nothing uses {}", listed(unused));
        fail("'{}': the tensors are not those of config.json, {} ({}){}{}", folder_, name_of(model().config.family),
             llmc::describe(model().config), lacks, extra);
    }
    const auto head = tensors.find(std::string(kHfHead));
    if (head != tensors.end() && !is_copy_of_embedding(*head->second.view)) {
        fail(
            "'{}': lm_head.weight differs from the embedding, but the model ties them; set tie_word_embeddings in "
            "config.json to false if its head is its own",
            folder_);
    }
}

bool HfModel::is_copy_of_embedding(const SafetensorsView& head) const {
    for (size_t i = 0; i < parts_.size(); ++i) {
        if (parts_[i].parameter != model().wte) continue;
        const SafetensorsView& embedding = *views_[i];
        return head.dtype == embedding.dtype && head.shape == embedding.shape &&
               std::equal(head.bytes.begin(), head.bytes.end(), embedding.bytes.begin());
    }
    return false;
}

void HfModel::read(int parameter, std::span<float> out) const {
    const ParameterRow& row = model().parameters[static_cast<size_t>(parameter)];
    for (size_t i = 0; i < parts_.size(); ++i) {
        const HfPart& part = parts_[i];
        if (part.parameter != parameter) continue;
        const auto count = static_cast<size_t>(part.rows * row.cols);
        const std::span<float> target = out.subspan(static_cast<size_t>(part.first_row * row.cols), count);
        if (!part.transposed) {
            read_as_fp32(*views_[i], target);
            continue;
        }
        std::vector<float> stored(count);
        read_as_fp32(*views_[i], stored);
        transpose(stored.data(), row.cols, part.rows, target.data());
    }
}

std::string HfModel::describe() const { return fmt::format("the Hugging Face folder '{}'", folder_); }

std::string HfModel::tokenizer() const { return tokenizer_in(folder_); }

void write_hf_model(const std::string& folder, const WeightSource& weights, DType dtype, const std::string& token_ids) {
    const Model& model = weights.model();
    FileWriter config(folder + kConfigFile);
    config.write(to_hf_config(model.config, dtype, token_ids));
    config.close();

    const std::vector<HfPart> parts = hf_parts(model);
    std::vector<SafetensorsEntry> entries;
    for (const HfPart& part : parts) entries.push_back({part.name, dtype, part.shape(model)});
    SafetensorsWriter writer(folder + kSingleFile, std::move(entries), {{"format", "pt"}});
    int parameter = kNone;
    std::vector<float> values, transposed;
    std::vector<bf16> rounded;
    for (const HfPart& part : parts) {
        if (part.parameter != parameter) values = weights.values(parameter = part.parameter);
        const int64_t cols = model.parameters[static_cast<size_t>(parameter)].cols;
        std::span<const float> elements(values.data() + part.first_row * cols, static_cast<size_t>(part.rows * cols));
        if (part.transposed) {
            transposed.resize(elements.size());
            transpose(elements.data(), part.rows, cols, transposed.data());
            elements = transposed;
        }
        if (dtype == DType::BF16) {
            rounded.resize(elements.size());
            std::transform(elements.begin(), elements.end(), rounded.begin(), to_bf16);
            writer.append(rounded.data(), static_cast<int64_t>(rounded.size() * sizeof(bf16)));
        } else {
            writer.append(elements.data(), static_cast<int64_t>(elements.size_bytes()));
        }
    }
    writer.close();
}

}  // namespace llmc
