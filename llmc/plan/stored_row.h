// How a row of the parameter table is stored, and what operations read of it. Most rows are read as they are stored.
// Where the formats differ, a step of the plan brings the row into a tensor of its own before the operations that read
// it (unpack.h).
//
//                               stored                                 read
//   frozen matrix of a layer    Places::base(): fp32, bf16, NF4        in the type of activations
//   other frozen rows           as they are read                       in the type of activations
//   rows that train             as Buffer::Parameters                  in the type of activations
//   adapters                    fp32                                   fp32
//
// A row in NF4 is bytes: its parts (ParameterRow::parts) one after the other, each as nf4_layout() has it. The buffer
// of frozen rows is bytes altogether.
#pragma once

#include "llmc/base/nf4.h"
#include "llmc/base/weight_format.h"
#include "llmc/model/model.h"
#include "llmc/plan/places.h"

#include <functional>
#include <optional>
#include <span>
#include <vector>

namespace llmc {

/// Bytes: where rows begin in the buffer of frozen ones.
constexpr int64_t kStoredAlignment = 256;

WeightFormat stored_format(const Model& model, const Places& places, int row);
/// The type in which operations read a row.
DType read_type(const Model& model, const Places& places, int row);
/// Whether it has to be brought into another format to be read.
inline bool is_unpacked(const Model& model, const Places& places, int row) {
    const WeightFormat stored = stored_format(model, places, row);
    return is_nf4(stored) || dtype_of(stored) != read_type(model, places, row);
}

/// Bytes of all rows, those that pad a vocabulary included.
int64_t stored_bytes(const ParameterRow& row, WeightFormat format);

/// A part of a row in NF4: rows [first_row, first_row + rows), in the stored bytes from `offset` on.
struct StoredPart {
    int64_t first_row = 0, rows = 0;
    int64_t offset = 0;
    Nf4Layout layout;
};
std::vector<StoredPart> nf4_parts(const ParameterRow& row, WeightFormat format);

/// A part in NF4 already, by its first row; nothing where it has to be quantised.
using Nf4Source = std::function<std::optional<Nf4Tensor>(int64_t first_row)>;
/// Values read where they are needed.
using ValuesOf = std::function<std::vector<float>()>;
/// A row in NF4: parts of the source as they are, the others quantised, of the row's values.
std::vector<std::byte> pack_row(const ParameterRow& row, WeightFormat format, const ValuesOf& values,
                                const Nf4Source& source = {});
/// Its values.
void unpack_row(const ParameterRow& row, WeightFormat format, std::span<const std::byte> stored, std::span<float> out);

}  // namespace llmc
