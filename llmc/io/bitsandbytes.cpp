#include "llmc/io/bitsandbytes.h"

#include "llmc/base/check.h"
#include "llmc/base/dynamic_map.h"
#include "llmc/base/error.h"
#include "llmc/base/fp16.h"
#include "llmc/io/pipeline/json_fields.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <cstring>

namespace llmc {
namespace {

using nlohmann::json;

constexpr const char* kStateSuffix = ".quant_state.bitsandbytes__nf4";
constexpr const char* kOtherStateSuffix = ".quant_state.bitsandbytes__fp4";
constexpr float kInt8Step = 7.874015718698502e-3f;  ///< 1 / 127.

const char* torch_name(DType dtype) { return dtype == DType::BF16 ? "bfloat16" : "float32"; }

[[noreturn]] void refuse_quantisation(const HfFields& config, const std::string& what) {
    fail(
        "'{}': quantization_config has {}; of quantized models this program reads those of bitsandbytes in nf4 or "
        "LLM.int8, so use the model that was quantized, in F32, F16 or BF16",
        config.path(), what);
}

/// Elements of a type that may be unaligned in the file.
template <typename T>
std::vector<T> elements(const SafetensorsView& view) {
    std::vector<T> values(view.bytes.size() / sizeof(T));
    std::memcpy(values.data(), view.bytes.data(), view.bytes.size());
    return values;
}

FoundTensor take_part(const std::string& part, const std::string& name, const FoundTensor& weight,
                      const TakeTensor& take) {
    const FoundTensor found = take(part);
    if (!found) {
        fail(
            "'{}': tensor '{}' is quantized ({}), but '{}', which belongs to it, is not there; copy all files of the "
            "model, or quantize it again",
            weight.file->path(), name, weight.view->dtype_name, part);
    }
    return found;
}

void require_part(const FoundTensor& part, const std::string& type, const std::vector<int64_t>& shape) {
    if (part.view->dtype_name == type && part.view->shape == shape) return;
    fail(
        "'{}': tensor '{}' is {} ({}), where its matrix needs {} ({}); the file is damaged, or not from bitsandbytes "
        "in "
        "blocks of 64",
        part.file->path(), part.view->name, part.view->dtype_name, fmt::join(part.view->shape, ", "), type,
        fmt::join(shape, ", "));
}

/// Versions of the library compute the 8-bit map to the last bit or so.
void require_map(const FoundTensor& part, std::span<const float> map) {
    require_part(part, "F32", {static_cast<int64_t>(map.size())});
    const std::vector<float> values = elements<float>(*part.view);
    for (size_t i = 0; i < map.size(); ++i) {
        if (std::fabs(values[i] - map[i]) <= 1e-6f * std::fabs(map[i])) continue;
        fail("'{}': tensor '{}' has {} at {}, where {} has {}; quantize the model again, with bnb_4bit_quant_type=nf4",
             part.file->path(), part.view->name, values[i], i, map.size() == 16 ? "nf4" : "its 8-bit map", map[i]);
    }
}

/// The library's name of an element type of weights.
std::optional<DType> dtype_from(const json& name) {
    if (name == "float32") return DType::F32;
    if (name == "bfloat16") return DType::BF16;
    if (name == "float16") return DType::F16;
    return std::nullopt;
}

std::string shapes_in_words(std::span<const std::vector<int64_t>> shapes) {
    std::string words;
    for (const auto& shape : shapes)
        words += fmt::format("{}({})", words.empty() ? "" : " or ", fmt::join(shape, ", "));
    return words;
}

void require_shape(const FoundTensor& found, const std::vector<int64_t>& shape,
                   std::span<const std::vector<int64_t>> shapes) {
    if (std::find(shapes.begin(), shapes.end(), shape) != shapes.end()) return;
    fail("'{}': tensor '{}' is of a matrix of shape ({}), config.json makes it {}; one of the two is of another model",
         found.file->path(), found.view->name, fmt::join(shape, ", "), shapes_in_words(shapes));
}

/// As Python prints a float.
std::string python_float(float value) {
    std::string text = fmt::format("{}", double{value});
    if (text.find_first_of(".en") == std::string::npos) text += ".0";
    return text;
}

void round_to(DType dtype, std::span<float> values) {
    if (dtype == DType::BF16) {
        for (float& value : values) value = to_float(to_bf16(value));
    } else if (dtype == DType::F16) {
        for (float& value : values) value = fp16_to_float(float_to_fp16(value));
    }
}

}  // namespace

MatrixFormat matrix_format_of(const HfFields& config) {
    if (!config.has("quantization_config")) return MatrixFormat::Plain;
    const HfFields fields = config.object("quantization_config");
    const std::string method = fields.text("quant_method", "");
    const bool four = fields.flag("load_in_4bit", fields.flag("_load_in_4bit", false));
    const bool eight = fields.flag("load_in_8bit", fields.flag("_load_in_8bit", false));
    // The first versions wrote no method.
    if (method != "bitsandbytes" && !(method.empty() && (four || eight))) {
        refuse_quantisation(config, method.empty() ? "no quant_method" : fmt::format("quant_method \"{}\"", method));
    }
    if (four == eight) {
        refuse_quantisation(config,
                            four ? "both load_in_4bit and load_in_8bit" : "neither load_in_4bit nor load_in_8bit");
    }
    if (eight) return MatrixFormat::Int8;
    const std::string type = fields.text("bnb_4bit_quant_type", "fp4");
    if (type != "nf4") refuse_quantisation(config, fmt::format("bnb_4bit_quant_type \"{}\"", type));
    const std::string storage = fields.text("bnb_4bit_quant_storage", "uint8");
    if (storage != "uint8") {
        fail("'{}': bnb_4bit_quant_storage is {}; save the model again with uint8, the library's default",
             config.path(), storage);
    }
    return fields.flag("bnb_4bit_use_double_quant", false) ? MatrixFormat::Nf4Double : MatrixFormat::Nf4;
}

json quantization_config(MatrixFormat format, DType dtype) {
    CHECK(format == MatrixFormat::Nf4 || format == MatrixFormat::Nf4Double, static_cast<int>(format));
    return {{"quant_method", "bitsandbytes"},
            {"_load_in_4bit", true},
            {"_load_in_8bit", false},
            {"load_in_4bit", true},
            {"load_in_8bit", false},
            {"bnb_4bit_quant_type", "nf4"},
            {"bnb_4bit_use_double_quant", format == MatrixFormat::Nf4Double},
            {"bnb_4bit_compute_dtype", torch_name(dtype)},
            {"bnb_4bit_quant_storage", "uint8"},
            {"llm_int8_enable_fp32_cpu_offload", false},
            {"llm_int8_has_fp16_weight", false},
            {"llm_int8_skip_modules", nullptr},
            {"llm_int8_threshold", 6.0}};
}

QuantisedTensor::QuantisedTensor(const std::string& name, FoundTensor weight, MatrixFormat format,
                                 std::span<const std::vector<int64_t>> shapes, const TakeTensor& take)
    : weight_(weight), format_(format) {
    const char* const type = format == MatrixFormat::Int8 ? "I8" : "U8";
    if (weight.view->dtype_name != type) {
        fail("'{}': tensor '{}' is {}; by quantization_config in config.json it may be {}, or F32, F16 or BF16",
             weight.file->path(), weight.view->name, weight.view->dtype_name, type);
    }
    if (format == MatrixFormat::Int8)
        open_int8(name, shapes, take);
    else
        open_nf4(name, shapes, take);
}

void QuantisedTensor::open_nf4(const std::string& name, std::span<const std::vector<int64_t>> shapes,
                               const TakeTensor& take) {
    if (const FoundTensor other = take(name + kOtherStateSuffix)) {
        fail(
            "'{}': tensor '{}' is fp4; of 4-bit formats this program reads nf4, so quantize the model again, with "
            "bnb_4bit_quant_type=nf4",
            weight_.file->path(), weight_.view->name);
    }
    const auto part = [&](const char* suffix) { return take_part(name + suffix, name, weight_, take); };
    open_state(name, shapes, part(kStateSuffix));
    require_part(weight_, "U8", {nf4_bytes(count()), 1});
    require_map(part(".quant_map"), kNf4Values);
    absmax_ = part(".absmax");
    const bool is_double = format_ == MatrixFormat::Nf4Double;
    require_part(absmax_, is_double ? "U8" : "F32", {nf4_blocks(count())});
    if (!is_double) return;
    nested_absmax_ = part(".nested_absmax");
    require_part(nested_absmax_, "F32", {nf4_nested_blocks(count())});
    require_map(part(".nested_quant_map"), signed_map().values());
}

void QuantisedTensor::open_state(const std::string& name, std::span<const std::vector<int64_t>> shapes,
                                 FoundTensor state) {
    const std::string source = fmt::format("{}: {}", state.file->path(), name + kStateSuffix);
    const std::vector<char> text = elements<char>(*state.view);
    const json fields = parse_json({text.data(), text.size()}, source);
    const auto require = [&](const char* key, const json& wanted) {
        const json value = fields.is_object() && fields.contains(key) ? fields[key] : json();
        if (value == wanted) return;
        fail(
            "'{}' has the {} {}, this program reads {}; quantize the model again, with the library's defaults and "
            "bnb_4bit_quant_type=nf4",
            source, key, value.dump(), wanted.dump());
    };
    require("quant_type", "nf4");
    require("blocksize", kNf4Block);
    const std::optional<DType> dtype = dtype_from(fields.value("dtype", json()));
    if (!dtype) require("dtype", "bfloat16");
    dtype_ = *dtype;
    const json shape = fields.value("shape", json());
    const auto is_size = [](const json& size) { return size.is_number_unsigned() && size <= uint64_t{1} << 31; };
    if (!shape.is_array() || shape.size() != 2 || !std::all_of(shape.begin(), shape.end(), is_size)) {
        fail("'{}' has the shape {}, not that of a matrix; the file is damaged", source, shape.dump());
    }
    shape_ = shape.get<std::vector<int64_t>>();
    require_shape(weight_, shape_, shapes);
    const bool is_double = fields.contains("nested_offset") || fields.contains("nested_blocksize");
    format_ = is_double ? MatrixFormat::Nf4Double : MatrixFormat::Nf4;
    if (!is_double) return;
    require("nested_blocksize", kNf4NestedBlock);
    require("nested_dtype", "float32");
    const json offset = fields.value("nested_offset", json());
    if (!offset.is_number())
        fail("'{}' has the nested_offset {}, not a number; the file is damaged", source, offset.dump());
    offset_ = offset.get<float>();
}

void QuantisedTensor::open_int8(const std::string& name, std::span<const std::vector<int64_t>> shapes,
                                const TakeTensor& take) {
    shape_ = weight_.view->shape;
    require_shape(weight_, shape_, shapes);
    const std::string module = name.substr(0, name.rfind('.'));
    row_absmax_ = take_part(module + ".SCB", name, weight_, take);
    require_part(row_absmax_, "F32", {shape_[0]});
    const FoundTensor layout = take(module + ".weight_format");  // The first versions wrote none.
    if (!layout) return;
    require_part(layout, "U8", {});
    if (layout.view->bytes[0] == std::byte{0}) return;
    fail("'{}': tensor '{}' is {}, a layout for one kind of card; save the model again with bitsandbytes 0.45 or later",
         layout.file->path(), layout.view->name, static_cast<int>(layout.view->bytes[0]));
}

void QuantisedTensor::read(std::span<float> out) const {
    CHECK(static_cast<int64_t>(out.size()) == count(), out.size());
    if (format_ == MatrixFormat::Int8) return read_int8(out);
    read_nf4(out);
    round_to(dtype_, out);
}

Nf4Tensor QuantisedTensor::nf4() const {
    CHECK(format_ == MatrixFormat::Nf4 || format_ == MatrixFormat::Nf4Double, static_cast<int>(format_));
    Nf4Tensor tensor;
    tensor.count = count();
    tensor.codes = elements<uint8_t>(*weight_.view);
    if (format_ == MatrixFormat::Nf4) {
        tensor.absmax = elements<float>(*absmax_.view);
        return tensor;
    }
    tensor.absmax_codes = elements<uint8_t>(*absmax_.view);
    tensor.nested_absmax = elements<float>(*nested_absmax_.view);
    tensor.offset = offset_;
    return tensor;
}

void QuantisedTensor::read_nf4(std::span<float> out) const {
    const std::vector<float> absmax =
        format_ == MatrixFormat::Nf4Double
            ? nf4_absmax(elements<uint8_t>(*absmax_.view), elements<float>(*nested_absmax_.view), offset_)
            : elements<float>(*absmax_.view);
    const auto bytes = weight_.view->bytes;
    dequantise_nf4(out, {reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()}, absmax);
}

void QuantisedTensor::read_int8(std::span<float> out) const {
    const std::vector<float> absmax = elements<float>(*row_absmax_.view);
    const auto* codes = reinterpret_cast<const int8_t*>(weight_.view->bytes.data());
    const auto cols = static_cast<size_t>(shape_[1]);
    for (size_t i = 0; i < out.size(); ++i) out[i] = static_cast<float>(codes[i]) * absmax[i / cols] * kInt8Step;
}

std::string nf4_state(const Nf4Tensor& tensor, std::span<const int64_t> shape, DType dtype) {
    std::string state = fmt::format(R"({{"quant_type": "nf4", "blocksize": {}, "dtype": "{}", "shape": [{}])",
                                    kNf4Block, torch_name(dtype), fmt::join(shape, ", "));
    if (!tensor.absmax_codes.empty()) {
        state += fmt::format(R"(, "nested_blocksize": {}, "nested_dtype": "float32", "nested_offset": {})",
                             kNf4NestedBlock, python_float(tensor.offset));
    }
    return state + "}";
}

}  // namespace llmc
