// Matrices as the bitsandbytes library stores them in Hugging Face folders, quantised: NF4 in blocks of 64
// (base/nf4.h), or LLM.int8 (Dettmers et al. 2022), rows of int8 times their largest magnitude / 127. Beside P.weight
// stand tensors with what else it takes:
//   NF4   .absmax, .quant_map and .quant_state.bitsandbytes__nf4 (JSON); "double" also .nested_absmax,
//   .nested_quant_map int8  P.SCB, and P.weight_format, which is 0 for rows
// config.json says with quantization_config which of them it is. GPT-2's matrices lie (out, in), unlike plain ones.
// Format: https://huggingface.co/docs/transformers/quantization/bitsandbytes
#pragma once

#include "llmc/base/dtype.h"
#include "llmc/base/nf4.h"
#include "llmc/io/hf_fields.h"
#include "llmc/io/safetensors.h"

#include <nlohmann/json_fwd.hpp>

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace llmc {

/// How the matrices of a folder are stored.
enum class MatrixFormat : uint8_t { Plain, Nf4, Nf4Double, Int8 };

/// What a config.json's quantization_config says; a tensor in NF4 may still be double or not. What cannot be read is an
/// Error that names the field and the method.
MatrixFormat matrix_format_of(const HfFields& config);
/// quantization_config of a folder whose matrices are in NF4 and whose other tensors are of the type.
nlohmann::json quantization_config(MatrixFormat format, DType dtype);

/// A tensor of a folder, and the file it is in.
struct FoundTensor {
    const SafetensorsFile* file = nullptr;
    const SafetensorsView* view = nullptr;
    explicit operator bool() const { return view != nullptr; }
};
/// Takes the tensor of a name out of those of the folder; empty if there is none.
using TakeTensor = std::function<FoundTensor(const std::string& name)>;

/// A quantised matrix, checked. Its files must stay open.
class QuantisedTensor {
  public:
    /// `weight` is the tensor `name`; what stands beside it is taken. It must have one of the shapes, and its parts
    /// their types and sizes: anything else is an Error that names file and tensor.
    QuantisedTensor(const std::string& name, FoundTensor weight, MatrixFormat format,
                    std::span<const std::vector<int64_t>> shapes, const TakeTensor& take);

    const std::vector<int64_t>& shape() const { return shape_; }
    /// Nf4, Nf4Double or Int8.
    MatrixFormat format() const { return format_; }
    /// Of one in NF4, as it is stored.
    Nf4Tensor nf4() const;
    /// The elements, row-major, as the library dequantises them: rounded to the type they had.
    void read(std::span<float> out) const;

  private:
    void open_nf4(const std::string& name, std::span<const std::vector<int64_t>> shapes, const TakeTensor& take);
    void open_state(const std::string& name, std::span<const std::vector<int64_t>> shapes, FoundTensor state);
    void open_int8(const std::string& name, std::span<const std::vector<int64_t>> shapes, const TakeTensor& take);
    int64_t count() const { return shape_[0] * shape_[1]; }
    void read_nf4(std::span<float> out) const;
    void read_int8(std::span<float> out) const;

    FoundTensor weight_;
    MatrixFormat format_;
    std::vector<int64_t> shape_;
    DType dtype_ = DType::F32;
    FoundTensor absmax_, nested_absmax_, row_absmax_;
    float offset_ = 0;
};

/// The JSON of .quant_state.bitsandbytes__nf4, byte for byte as the library writes it.
std::string nf4_state(const Nf4Tensor& tensor, std::span<const int64_t> shape, DType dtype);

}  // namespace llmc
