#include "llmc/io/hf_nf4_writer.h"

#include "llmc/base/dynamic_map.h"
#include "llmc/io/hf_names.h"
#include "llmc/io/hf_values.h"
#include "llmc/io/safetensors.h"

#include <algorithm>
#include <vector>

namespace llmc {
namespace {

/// A tensor of the file, and who writes it.
struct Item {
    SafetensorsEntry entry;
    const HfPart* part = nullptr;
    const Nf4Tensor* tensor = nullptr;
    enum class Kind : uint8_t { Plain, Codes, Absmax, AbsmaxCodes, Map, NestedAbsmax, NestedMap, State };
    Kind kind = Kind::Plain;
    std::string state = {};
};

class Nf4Writer {
  public:
    Nf4Writer(const WeightSource& weights, MatrixFormat format, DType dtype)
        : model_(weights.model()),
          is_double_(format == MatrixFormat::Nf4Double),
          dtype_(dtype),
          values_(weights),
          parts_(hf_parts(model_)),
          tensors_(parts_.size()) {
        for (size_t i = 0; i < parts_.size(); ++i) {
            if (!model_.is_layer_matrix(parts_[i].parameter)) {
                items_.push_back({{parts_[i].name, dtype, parts_[i].shape(model_)}, &parts_[i]});
                continue;
            }
            tensors_[i] = quantised(parts_[i]);
            tensors_[i].codes = {};
            list(parts_[i], tensors_[i]);
        }
        // All are aligned where wider elements come first.
        std::stable_sort(items_.begin(), items_.end(),
                         [](const Item& a, const Item& b) { return size_of(a.entry.dtype) > size_of(b.entry.dtype); });
    }

    void write(const std::string& path) {
        std::vector<SafetensorsEntry> entries;
        for (const Item& item : items_) entries.push_back(item.entry);
        SafetensorsWriter writer(path, entries, {{"format", "pt"}});
        for (const Item& item : items_) append(item, &writer);
        writer.close();
    }

  private:
    std::vector<float> rounded(std::span<const float> values) const {
        std::vector<float> result(values.begin(), values.end());
        if (dtype_ == DType::BF16) {
            for (float& value : result) value = to_float(to_bf16(value));
        }
        return result;
    }
    Nf4Tensor quantised(const HfPart& part) { return quantise_nf4(rounded(values_.of(part)), is_double_); }

    std::vector<int64_t> shape_of(const HfPart& part) const {
        return {part.rows, model_.parameters[static_cast<size_t>(part.parameter)].cols};
    }

    void list(const HfPart& part, const Nf4Tensor& tensor) {
        using Kind = Item::Kind;
        const auto add = [&](Kind kind, const char* suffix, DType type, std::vector<int64_t> shape) {
            items_.push_back({{part.name + suffix, type, std::move(shape)}, &part, &tensor, kind});
        };
        const int64_t blocks = nf4_blocks(tensor.count);
        add(Kind::Codes, "", DType::U8, {nf4_bytes(tensor.count), 1});
        if (is_double_) {
            add(Kind::AbsmaxCodes, ".absmax", DType::U8, {blocks});
            add(Kind::NestedAbsmax, ".nested_absmax", DType::F32, {nf4_nested_blocks(tensor.count)});
            add(Kind::NestedMap, ".nested_quant_map", DType::F32, {256});
        } else {
            add(Kind::Absmax, ".absmax", DType::F32, {blocks});
        }
        add(Kind::Map, ".quant_map", DType::F32, {16});
        const std::string state = nf4_state(tensor, shape_of(part), dtype_);
        add(Kind::State, ".quant_state.bitsandbytes__nf4", DType::U8, {static_cast<int64_t>(state.size())});
        items_.back().state = state;
    }

    void append(const Item& item, SafetensorsWriter* writer) {
        const auto write = [&](const auto& values) {
            writer->append(values.data(), static_cast<int64_t>(values.size() * sizeof values[0]));
        };
        switch (item.kind) {
            case Item::Kind::Plain: return append_plain(*item.part, writer);
            case Item::Kind::Codes: return write(quantised(*item.part).codes);
            case Item::Kind::Absmax: return write(item.tensor->absmax);
            case Item::Kind::AbsmaxCodes: return write(item.tensor->absmax_codes);
            case Item::Kind::Map: return write(kNf4Values);
            case Item::Kind::NestedAbsmax: return write(item.tensor->nested_absmax);
            case Item::Kind::NestedMap: return write(signed_map().values());
            case Item::Kind::State: return write(item.state);
        }
    }

    void append_plain(const HfPart& part, SafetensorsWriter* writer) {
        const std::span<const float> values = values_.as_stored(part);
        if (dtype_ != DType::BF16) return writer->append(values.data(), static_cast<int64_t>(values.size_bytes()));
        std::vector<bf16> halves(values.size());
        std::transform(values.begin(), values.end(), halves.begin(), to_bf16);
        writer->append(halves.data(), static_cast<int64_t>(halves.size() * sizeof(bf16)));
    }

    const Model& model_;
    bool is_double_;
    DType dtype_;
    HfValues values_;
    std::vector<HfPart> parts_;
    std::vector<Nf4Tensor> tensors_;  ///< By part, without codes.
    std::vector<Item> items_;
};

}  // namespace

void write_nf4_tensors(const std::string& path, const WeightSource& weights, MatrixFormat format, DType dtype) {
    Nf4Writer(weights, format, dtype).write(path);
}

}  // namespace llmc
