#include "llmc/plan/stored_row.h"

#include "llmc/base/check.h"
#include "llmc/base/units.h"
#include "llmc/model/lora.h"

#include <algorithm>

namespace llmc {

WeightFormat stored_format(const Model& model, const Places& places, int row) {
    if (model.trains(row)) return plain_format(places.format(Buffer::Parameters));
    if (is_adapter(model, row)) return WeightFormat::F32;
    return model.is_layer_matrix(row) ? places.base() : plain_format(places.activations());
}

DType read_type(const Model& model, const Places& places, int row) {
    return is_adapter(model, row) ? DType::F32 : places.activations();
}

int64_t stored_bytes(const ParameterRow& row, WeightFormat format) {
    if (!is_nf4(format)) return row.count() * size_of(dtype_of(format));
    const StoredPart last = nf4_parts(row, format).back();
    return last.offset + last.layout.bytes;
}

std::vector<StoredPart> nf4_parts(const ParameterRow& row, WeightFormat format) {
    std::vector<StoredPart> parts;
    int64_t first = 0, offset = 0;
    const auto add = [&](int64_t rows) {
        parts.push_back({first, rows, offset, nf4_layout(rows * row.cols, format == WeightFormat::Nf4Double)});
        first += rows, offset += parts.back().layout.bytes;
    };
    for (const int64_t rows : row.parts) add(rows);
    if (row.parts.empty()) add(row.rows);
    CHECK(first == row.rows, row.name, first, row.rows);
    return parts;
}

std::vector<std::byte> pack_row(const ParameterRow& row, WeightFormat format, const ValuesOf& values,
                                const Nf4Source& source) {
    std::vector<std::byte> stored(static_cast<size_t>(stored_bytes(row, format)));
    std::vector<float> all;
    for (const StoredPart& part : nf4_parts(row, format)) {
        std::optional<Nf4Tensor> tensor = source ? source(part.first_row) : std::nullopt;
        const bool is_double = format == WeightFormat::Nf4Double;
        if (tensor && tensor->absmax.empty() != is_double) tensor.reset();  // The other of the two.
        if (!tensor) {
            if (all.empty()) all = values();
            const auto part_of = std::span<const float>(all).subspan(static_cast<size_t>(part.first_row * row.cols),
                                                                     static_cast<size_t>(part.rows * row.cols));
            tensor = quantise_nf4(part_of, is_double);
        }
        pack_nf4(*tensor,
                 std::span(stored).subspan(static_cast<size_t>(part.offset), static_cast<size_t>(part.layout.bytes)));
    }
    return stored;
}

void unpack_row(const ParameterRow& row, WeightFormat format, std::span<const std::byte> stored, std::span<float> out) {
    for (const StoredPart& part : nf4_parts(row, format)) {
        const int64_t count = part.rows * row.cols;
        const std::vector<float> values = dequantise_nf4(
            unpack_nf4(stored.subspan(static_cast<size_t>(part.offset), static_cast<size_t>(part.layout.bytes)), count,
                       format == WeightFormat::Nf4Double));
        std::copy(values.begin(), values.end(), out.begin() + part.first_row * row.cols);
    }
}

}  // namespace llmc
