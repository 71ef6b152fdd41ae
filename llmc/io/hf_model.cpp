#include "llmc/io/hf_model.h"

#include "llmc/base/drop_pages.h"
#include "llmc/base/error.h"
#include "llmc/base/file.h"
#include "llmc/io/carried_files.h"
#include "llmc/io/hf_config.h"
#include "llmc/io/hf_nf4_writer.h"
#include "llmc/io/hf_values.h"
#include "llmc/io/pipeline/json_fields.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstring>
#include <filesystem>
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

void require_plain(const FoundTensor& found, const std::vector<int64_t>& shape) {
    const SafetensorsView& view = *found.view;
    if (view.dtype != DType::F32 && view.dtype != DType::F16 && view.dtype != DType::BF16) {
        const bool may_be_quantised = view.dtype_name == "U8" || view.dtype_name == "I8";
        fail("'{}': tensor '{}' is {}; weights may be F32, F16 or BF16, so convert the model first{}",
             found.file->path(), view.name, view.dtype_name,
             may_be_quantised ? ", or, if it is quantized, copy the config.json that says how (quantization_config)"
                              : "");
    }
    if (view.shape != shape) {
        fail("'{}': tensor '{}' has the shape ({}), config.json makes it ({}); one of the two is of another model",
             found.file->path(), view.name, fmt::join(view.shape, ", "), fmt::join(shape, ", "));
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

MatrixFormat read_matrix_format(const std::string& folder) {
    const std::string path = folder + kConfigFile;
    const nlohmann::json root = parse_json(read_text(path), path);
    return matrix_format_of(HfFields(root, path));
}

HfModel::HfModel(const std::string& folder)
    : WeightSource(make_model(read_hf_config(folder))),
      folder_(folder),
      format_(read_matrix_format(folder)),
      files_(open_files(folder)),
      parts_(hf_parts(model())) {
    match();
}

HfModel::Tensors HfModel::all_tensors() const {
    const std::string prefix(hf_prefix(model().config.family));
    Tensors tensors;
    for (const SafetensorsFile& file : files_) {
        for (const SafetensorsView& view : file.tensors()) {
            const std::string name = unwrapped_hf_name(view.name);
            const bool whole = name.starts_with("lm_head.") || name.starts_with(prefix);
            if (is_hf_buffer(name)) continue;
            if (!tensors.emplace(whole ? name : prefix + name, FoundTensor{&file, &view}).second) {
                fail("'{}': tensor '{}' is there twice; remove one of them", folder_, view.name);
            }
        }
    }
    return tensors;
}

HfModel::Source HfModel::source_of(const HfPart& part, const FoundTensor& found, Tensors* tensors) const {
    const std::string& type = found.view->dtype_name;
    Source source;
    if (format_ == MatrixFormat::Plain || (type != "U8" && type != "I8")) {
        require_plain(found, part.shape(model()));
        source.plain = found.view;
        source.transposed = part.transposed;
        return source;
    }
    const std::vector<int64_t> ours = {part.rows, model().parameters[static_cast<size_t>(part.parameter)].cols};
    const std::vector<std::vector<int64_t>> shapes = {ours, part.shape(model())};
    const bool other_way = part.transposed && shapes[1] != ours;
    source.quantised.emplace(part.name, found, format_, std::span(shapes).first(other_way ? 2 : 1),
                             [tensors](const std::string& name) {
                                 const auto taken = tensors->extract(name);
                                 return taken ? taken.mapped() : FoundTensor();
                             });
    source.transposed = source.quantised->shape() != ours;
    return source;
}

void HfModel::match() {
    Tensors tensors = all_tensors();
    std::vector<std::string> missing, unused;
    for (const HfPart& part : parts_) {
        auto found = tensors.extract(part.name);
        // The matrix that a tied model shares may have been saved under its other name only.
        if (!found && part.parameter == model().wte && model().config.tied) {
            found = tensors.extract(std::string(kHfHead));
        }
        if (!found) missing.push_back(part.name);
        sources_.push_back(found ? source_of(part, found.mapped(), &tensors) : Source());
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
        if (sources_[i].plain == nullptr) return false;
        const SafetensorsView& embedding = *sources_[i].plain;
        return head.dtype == embedding.dtype && head.shape == embedding.shape &&
               std::equal(head.bytes.begin(), head.bytes.end(), embedding.bytes.begin());
    }
    return false;
}

namespace {

/// As read_as_fp32(), without holding what has been read in memory.
void read_once(const SafetensorsView& view, std::span<float> out) {
    constexpr size_t kPiece = 1 << 22;
    const auto item = static_cast<size_t>(size_of(view.dtype.value()));
    SafetensorsView piece = view;
    for (size_t first = 0; first < out.size(); first += kPiece) {
        const size_t count = std::min(kPiece, out.size() - first);
        piece.bytes = view.bytes.subspan(first * item, count * item);
        read_as_fp32(piece, out.subspan(first, count));
        drop_pages(piece.bytes);
    }
}

}  // namespace

void HfModel::read(int parameter, std::span<float> out) const {
    const ParameterRow& row = model().parameters[static_cast<size_t>(parameter)];
    for (size_t i = 0; i < parts_.size(); ++i) {
        const HfPart& part = parts_[i];
        if (part.parameter != parameter) continue;
        const auto count = static_cast<size_t>(part.rows * row.cols);
        const std::span<float> target = out.subspan(static_cast<size_t>(part.first_row * row.cols), count);
        const Source& source = sources_[i];
        const auto read_into = [&](std::span<float> place) {
            if (source.quantised)
                source.quantised->read(place);
            else
                read_once(*source.plain, place);
        };
        if (!source.transposed) {
            read_into(target);
            continue;
        }
        std::vector<float> stored(count);
        read_into(stored);
        transpose(stored.data(), row.cols, part.rows, target.data());
    }
}

std::optional<WeightFormat> HfModel::nf4_format() const {
    std::optional<WeightFormat> format;
    for (const Source& source : sources_) {
        if (!source.quantised || source.quantised->format() == MatrixFormat::Int8) continue;
        if (source.quantised->format() == MatrixFormat::Nf4) return WeightFormat::Nf4;  // Which loses nothing.
        format = WeightFormat::Nf4Double;
    }
    return format;
}

std::optional<Nf4Tensor> HfModel::nf4_part(int parameter, int64_t first_row) const {
    for (size_t i = 0; i < parts_.size(); ++i) {
        if (parts_[i].parameter != parameter || parts_[i].first_row != first_row) continue;
        const Source& source = sources_[i];
        const bool has = source.quantised && !source.transposed && source.quantised->format() != MatrixFormat::Int8;
        return has ? std::optional(source.quantised->nf4()) : std::nullopt;
    }
    return std::nullopt;
}

std::string HfModel::describe() const { return fmt::format("the Hugging Face folder '{}'", folder_); }

std::string HfModel::tokenizer() const { return tokenizer_in(folder_); }

void write_hf_model(const std::string& folder, const WeightSource& weights, DType dtype, const std::string& token_ids,
                    MatrixFormat format) {
    const Model& model = weights.model();
    FileWriter config(folder + kConfigFile);
    config.write(to_hf_config(model.config, dtype, token_ids, format));
    config.close();
    if (format != MatrixFormat::Plain) return write_nf4_tensors(folder + kSingleFile, weights, format, dtype);

    const std::vector<HfPart> parts = hf_parts(model);
    std::vector<SafetensorsEntry> entries;
    for (const HfPart& part : parts) entries.push_back({part.name, dtype, part.shape(model)});
    SafetensorsWriter writer(folder + kSingleFile, std::move(entries), {{"format", "pt"}});
    HfValues values(weights);
    std::vector<bf16> rounded;
    for (const HfPart& part : parts) {
        const std::span<const float> elements = values.as_stored(part);
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
