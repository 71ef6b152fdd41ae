#include "llmc/io/gguf/gguf_model.h"

#include "llmc/base/error.h"
#include "llmc/base/file.h"
#include "llmc/base/log.h"
#include "llmc/base/units.h"
#include "llmc/io/gguf/gguf_architecture.h"
#include "llmc/io/gguf/gguf_file.h"
#include "llmc/io/gguf/gguf_rope.h"

#include <algorithm>
#include <cmath>
#include <filesystem>

namespace llmc {
namespace {

constexpr uint32_t kQuantizationVersion = 2;
constexpr const char* kRopeDivisors = "rope_freqs.weight";

GgufMetadata metadata_of(const GgufArchitecture& architecture, const Model& model, GgufType type,
                         const GgufVocabulary& vocabulary) {
    GgufMetadata metadata;
    metadata.add_text("general.architecture", architecture.name);
    metadata.add_text("general.type", "model");
    metadata.add_text("general.name", model.config.name);
    metadata.add_count("general.alignment", kGgufAlignment);
    metadata.add_count("general.file_type", facts_of(type).file_type);
    if (facts_of(type).block_elements > 1) metadata.add_count("general.quantization_version", kQuantizationVersion);
    add_model_metadata(architecture, model, &metadata);
    vocabulary.add_to(&metadata);
    return metadata;
}

GgufTensor tensor_of(const GgufPart& part, const Model& model, GgufType type) {
    const ParameterRow& row = model.parameters[static_cast<size_t>(part.parameter)];
    if (row.cols == 1) return {part.name, GgufType::F32, 1, part.rows, /*is_vector=*/true};
    if (part.always_f32) type = GgufType::F32;
    if (row.cols % facts_of(type).block_elements != 0) type = GgufType::F16;
    return {part.name, type, part.rows, row.cols};
}

void say_what_falls_back(const std::vector<GgufPart>& parts, const std::vector<GgufTensor>& tensors, GgufType type) {
    int64_t count = 0;
    const GgufTensor* first = nullptr;
    for (size_t i = 0; i < parts.size(); ++i) {
        if (tensors[i].is_vector || parts[i].always_f32 || tensors[i].type == type) continue;
        if (first == nullptr) first = &tensors[i];
        ++count;
    }
    if (first == nullptr) return;
    spdlog::warn("--gguf-type={}: {} matrices, such as {}, have columns that are no multiple of {} ({}); they are f16",
                 facts_of(type).name, count, first->name, facts_of(type).block_elements, first->cols);
}

void require_room(const std::string& path, int64_t bytes) {
    const std::filesystem::path folder = std::filesystem::path(path).parent_path();
    const std::optional<int64_t> available = free_bytes(folder.empty() ? "." : folder.string());
    if (!available || *available >= bytes) return;
    fail(
        "--out: the file has {}, but there is room for {} in '{}'; make room, or choose another place or a smaller "
        "--gguf-type",
        format_bytes(bytes), format_bytes(*available), folder.empty() ? "." : folder.string());
}

void require_storable(std::span<const float> values, GgufType type, const std::string& name) {
    const float limit = facts_of(type).limit;
    const auto large = std::find_if(values.begin(), values.end(), [&](float x) { return !(std::fabs(x) < limit); });
    if (large == values.end()) return;
    fail("--gguf-type: the tensor {} has the value {}, which {} cannot hold; use --gguf-type=f32", name, *large,
         facts_of(type).name);
}

/// Rows of one parameter, in pieces that are small beside it.
void write_part(const GgufPart& part, const GgufTensor& tensor, std::span<const float> values, GgufWriter* writer) {
    constexpr int64_t kPieceElements = int64_t{1} << 20;
    if (tensor.is_vector) {
        std::vector<float> ordered;
        for (int64_t row = 0; row < part.rows; ++row) {
            ordered.push_back(values[static_cast<size_t>(part.source_row(row))]);
        }
        writer->append(std::as_bytes(std::span(ordered)));
        return;
    }
    const auto cols = static_cast<size_t>(tensor.cols);
    const auto row_bytes = static_cast<size_t>(bytes_of(tensor.type, tensor.cols));
    const int64_t rows_at_once = std::max<int64_t>(1, kPieceElements / tensor.cols);
    std::vector<std::byte> encoded;
    for (int64_t begin = 0; begin < tensor.rows; begin += rows_at_once) {
        const int64_t end = std::min(tensor.rows, begin + rows_at_once);
        encoded.resize(static_cast<size_t>(end - begin) * row_bytes);
        for (int64_t row = begin; row < end; ++row) {
            const std::span<const float> source =
                values.subspan(static_cast<size_t>(part.source_row(row)) * cols, cols);
            require_storable(source, tensor.type, tensor.name);
            encode(tensor.type, source, encoded.data() + static_cast<size_t>(row - begin) * row_bytes);
        }
        writer->append(encoded);
    }
}

}  // namespace

void write_gguf_model(const std::string& path, const WeightSource& weights, GgufType type,
                      const GgufVocabulary& vocabulary) {
    const Model& model = weights.model();
    const GgufArchitecture& architecture = gguf_architecture_of(model);
    const std::vector<GgufPart> parts = gguf_parts(architecture, model);
    std::vector<GgufTensor> tensors;
    for (const GgufPart& part : parts) tensors.push_back(tensor_of(part, model, type));
    say_what_falls_back(parts, tensors, type);
    const std::vector<float> rope_divisors = gguf_rope_divisors(model.config, architecture.takes_rope_divisors);
    if (!rope_divisors.empty()) {
        tensors.push_back({kRopeDivisors, GgufType::F32, 1, static_cast<int64_t>(rope_divisors.size()), true});
    }
    const GgufMetadata metadata = metadata_of(architecture, model, type, vocabulary);
    require_room(path, GgufWriter::bytes_needed(metadata, tensors));
    GgufWriter writer(path, metadata, tensors);
    int parameter = kNone;
    std::vector<float> values;
    for (size_t i = 0; i < parts.size(); ++i) {
        if (parts[i].parameter != parameter) values = weights.values(parameter = parts[i].parameter);
        write_part(parts[i], tensors[i], values, &writer);
    }
    if (!rope_divisors.empty()) writer.append(std::as_bytes(std::span(rope_divisors)));
    writer.close();
}

}  // namespace llmc
