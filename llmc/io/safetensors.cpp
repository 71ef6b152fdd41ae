#include "llmc/io/safetensors.h"

#include "llmc/base/check.h"
#include "llmc/base/error.h"
#include "llmc/base/units.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <cstring>
#include <set>
#include <utility>

namespace llmc {
namespace {

using nlohmann::json;

constexpr uint64_t kMaxHeaderBytes = 100'000'000;
constexpr int64_t kLengthBytes = 8;

struct ElementType {
    std::string_view name;
    int64_t bytes;
    std::optional<DType> dtype;
};
constexpr std::array kElementTypes = {
    ElementType{"F64", 8, DType::F64},       ElementType{"F32", 4, DType::F32},
    ElementType{"F16", 2, DType::F16},       ElementType{"BF16", 2, DType::BF16},
    ElementType{"I64", 8, DType::I64},       ElementType{"I32", 4, DType::I32},
    ElementType{"U16", 2, DType::U16},       ElementType{"U8", 1, DType::U8},
    ElementType{"U64", 8, std::nullopt},     ElementType{"U32", 4, std::nullopt},
    ElementType{"I16", 2, std::nullopt},     ElementType{"I8", 1, std::nullopt},
    ElementType{"BOOL", 1, std::nullopt},    ElementType{"C64", 8, std::nullopt},
    ElementType{"F8_E5M2", 1, std::nullopt}, ElementType{"F8_E4M3", 1, std::nullopt},
};

const ElementType* element_type(std::string_view name) {
    const auto found = std::find_if(kElementTypes.begin(), kElementTypes.end(),
                                    [&](const ElementType& type) { return type.name == name; });
    return found == kElementTypes.end() ? nullptr : &*found;
}

/// Parses JSON, refusing what the parser alone would let pass: a name twice in one object, and deep nesting. Throws
/// json::exception or Error.
json parse_strictly(std::string_view text, const std::string& path) {
    constexpr int kMaxDepth = 4;
    std::vector<std::set<std::string>> names;  // of every open object
    const auto callback = [&](int depth, json::parse_event_t event, json& parsed) {
        if (depth > kMaxDepth) fail("'{}' is not a safetensors file: its header is nested too deeply", path);
        if (event == json::parse_event_t::object_start) names.emplace_back();
        if (event == json::parse_event_t::object_end) names.pop_back();
        if (event == json::parse_event_t::key) {
            const auto& name = parsed.get_ref<const std::string&>();
            if (!names.back().insert(name).second) fail("'{}': the name '{}' occurs twice in the header", path, name);
        }
        return true;
    };
    return json::parse(text, callback);
}

/// What a message shows of text that came from the file.
std::string excerpt(const std::string& text) {
    constexpr size_t kLongest = 200;
    return text.size() <= kLongest ? text : text.substr(0, kLongest) + "...";
}

/// product(shape) * item, or nothing if that does not fit into 63 bits.
std::optional<int64_t> bytes_of(const std::vector<int64_t>& shape, int64_t item) {
    int64_t bytes = item;
    for (const int64_t dim : shape) {
        if (__builtin_mul_overflow(bytes, dim, &bytes)) return std::nullopt;
    }
    return bytes;
}

/// A JSON array of a few non-negative integers below 2^63, or nothing.
std::optional<std::vector<int64_t>> sizes_from(const json& value) {
    constexpr size_t kMaxDims = 8;
    if (!value.is_array() || value.size() > kMaxDims) return std::nullopt;
    std::vector<int64_t> sizes;
    for (const json& item : value) {
        if (!item.is_number_unsigned() || item.get<uint64_t>() > INT64_MAX) return std::nullopt;
        sizes.push_back(item.get<int64_t>());
    }
    return sizes;
}

const json& field(const json& entry, const char* name) {
    static const json kNull;
    const auto found = entry.find(name);
    return found == entry.end() ? kNull : *found;
}

/// One entry of the header, its range checked against `data`, the bytes after the header.
SafetensorsView view_from(const std::string& path, const std::string& name, const json& entry,
                          std::span<const std::byte> data) {
    if (!entry.is_object()) fail("'{}': tensor '{}' is not described by a JSON object", path, name);
    const json& dtype = field(entry, "dtype");
    const ElementType* type = dtype.is_string() ? element_type(dtype.get_ref<const std::string&>()) : nullptr;
    if (type == nullptr) {
        fail("'{}': tensor '{}' has the unknown element type {}", path, name, excerpt(dtype.dump()));
    }
    const auto shape = sizes_from(field(entry, "shape"));
    if (!shape) fail("'{}': tensor '{}' has the invalid shape {}", path, name, excerpt(field(entry, "shape").dump()));
    const auto offsets = sizes_from(field(entry, "data_offsets"));
    if (!offsets || offsets->size() != 2 || (*offsets)[0] > (*offsets)[1]) {
        fail("'{}': tensor '{}' has the invalid data_offsets {}", path, name,
             excerpt(field(entry, "data_offsets").dump()));
    }
    const int64_t begin = (*offsets)[0];
    const int64_t end = (*offsets)[1];
    if (end > static_cast<int64_t>(data.size())) {
        fail("'{}': tensor '{}' ends at byte {} of the data, the file has only {}; it is truncated or damaged", path,
             name, end, data.size());
    }
    if (bytes_of(*shape, type->bytes) != end - begin) {
        fail("'{}': tensor '{}' has {} bytes, its shape ({}) of {} needs another number", path, name, end - begin,
             fmt::join(*shape, ", "), type->name);
    }
    return {name, std::string(type->name), type->dtype, *shape,
            data.subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin))};
}

}  // namespace

std::string_view safetensors_name(DType dtype) {
    for (const ElementType& type : kElementTypes) {
        if (type.dtype == dtype) return type.name;
    }
    return "?";
}

SafetensorsFile::SafetensorsFile(MappedFile file) : file_(std::move(file)) {
    if (file_.size() < kLengthBytes) {
        fail("'{}' is not a safetensors file: it has only {} bytes; it is truncated or of another kind", path(),
             file_.size());
    }
    uint64_t header_bytes = 0;
    std::memcpy(&header_bytes, file_.data(), sizeof header_bytes);
    const auto available = static_cast<uint64_t>(file_.size() - kLengthBytes);
    if (header_bytes > std::min(available, kMaxHeaderBytes)) {
        fail(
            "'{}' is not a safetensors file: a header of {} bytes, where {} are left and {} allowed; it is truncated "
            "or of another kind",
            path(), header_bytes, available, kMaxHeaderBytes);
    }
    read_header(file_.text().substr(kLengthBytes, header_bytes));
}

void SafetensorsFile::read_header(std::string_view header) {
    const auto data = file_.bytes().subspan(kLengthBytes + header.size());
    if (!header.starts_with('{')) fail("'{}' is not a safetensors file: its header is not a JSON object", path());
    json root;
    try {
        root = parse_strictly(header, path());
    } catch (const json::exception& error) {
        fail("'{}' is not a safetensors file: its header is not valid JSON ({})", path(), excerpt(error.what()));
    }
    for (const auto& [name, entry] : root.items()) {
        if (name != "__metadata__") {
            tensors_.push_back(view_from(path(), name, entry, data));
            continue;
        }
        if (!entry.is_object()) fail("'{}': __metadata__ is not a JSON object", path());
        for (const auto& [key, value] : entry.items()) {
            if (!value.is_string()) fail("'{}': __metadata__ entry '{}' is not a string", path(), key);
            metadata_[key] = value.get<std::string>();
        }
    }
    std::sort(tensors_.begin(), tensors_.end(), [](const SafetensorsView& a, const SafetensorsView& b) {
        return std::pair(a.bytes.data(), a.bytes.size()) < std::pair(b.bytes.data(), b.bytes.size());
    });
    check_ranges(data);
    for (size_t i = 0; i < tensors_.size(); ++i) index_[tensors_[i].name] = i;
}

void SafetensorsFile::check_ranges(std::span<const std::byte> data) const {
    const std::byte* end = data.data();
    for (const SafetensorsView& tensor : tensors_) {
        if (tensor.bytes.data() != end) {
            fail("'{}': tensor '{}' {}; the file is damaged", path(), tensor.name,
                 tensor.bytes.data() < end ? "overlaps another tensor" : "leaves a hole in the data before it");
        }
        end += tensor.bytes.size();
    }
    if (const auto unused = data.data() + data.size() - end; unused != 0) {
        fail("'{}': {} bytes at its end belong to no tensor; the file is damaged", path(), unused);
    }
}

const SafetensorsView* SafetensorsFile::find(std::string_view name) const {
    const auto found = index_.find(name);
    return found == index_.end() ? nullptr : &tensors_[found->second];
}

const SafetensorsView& SafetensorsFile::expect(std::string_view name, DType dtype,
                                               std::span<const int64_t> shape) const {
    const SafetensorsView* tensor = find(name);
    if (tensor == nullptr) {
        fail("'{}' has no tensor '{}'; it belongs to another model or is incomplete", path(), name);
    }
    if (tensor->dtype != dtype || !std::equal(shape.begin(), shape.end(), tensor->shape.begin(), tensor->shape.end())) {
        fail("'{}': tensor '{}' is {} ({}), expected {} ({}); it belongs to another model", path(), name,
             tensor->dtype_name, fmt::join(tensor->shape, ", "), safetensors_name(dtype), fmt::join(shape, ", "));
    }
    return *tensor;
}

int64_t SafetensorsEntry::bytes() const {
    const auto bytes = bytes_of(shape, size_of(dtype));
    CHECK(bytes.has_value() && *bytes >= 0, name);
    return *bytes;
}

SafetensorsWriter::SafetensorsWriter(const std::string& path, std::vector<SafetensorsEntry> entries,
                                     const std::map<std::string, std::string>& metadata)
    : writer_(path), entries_(std::move(entries)) {
    nlohmann::ordered_json header = nlohmann::ordered_json::object();
    if (!metadata.empty()) header["__metadata__"] = metadata;
    int64_t end = 0;
    std::set<std::string> names;
    for (const SafetensorsEntry& entry : entries_) {
        CHECK(entry.name != "__metadata__" && names.insert(entry.name).second, entry.name);
        const int64_t begin = std::exchange(end, end + entry.bytes());
        header[entry.name] = {
            {"dtype", safetensors_name(entry.dtype)}, {"shape", entry.shape}, {"data_offsets", {begin, end}}};
        ends_.push_back(end);
    }
    std::string text = header.dump();
    text.resize(static_cast<size_t>(round_up(static_cast<int64_t>(text.size()), kLengthBytes)), ' ');
    CHECK(text.size() <= kMaxHeaderBytes, path, text.size());
    const uint64_t length = text.size();
    writer_.write(&length, kLengthBytes);
    writer_.write(text);
    header_bytes_ = kLengthBytes + static_cast<int64_t>(length);
}

void SafetensorsWriter::append(const void* data, int64_t bytes) {
    CHECK(bytes >= 0 && offset_ + bytes <= (ends_.empty() ? 0 : ends_.back()), offset_, bytes);
    writer_.write(data, bytes);
    offset_ += bytes;
}

void SafetensorsWriter::write(std::string_view name, const void* data) {
    for (size_t i = 0; i < entries_.size(); ++i) {
        if (entries_[i].name != name) continue;
        CHECK(offset_ == ends_[i] - entries_[i].bytes(), name, offset_);
        return append(data, entries_[i].bytes());
    }
    CHECK(false && "a tensor that is not in the header", name);
}

void SafetensorsWriter::close() {
    CHECK(offset_ == (ends_.empty() ? 0 : ends_.back()), offset_);
    writer_.close();
}

void read_as_fp32(const SafetensorsView& view, std::span<float> out) {
    CHECK(view.bytes.size() == out.size() * static_cast<size_t>(size_of(view.dtype.value())), view.name, out.size());
    if (view.dtype == DType::F32) {
        std::memcpy(out.data(), view.bytes.data(), view.bytes.size());
        return;
    }
    for (size_t i = 0; i < out.size(); ++i) {
        uint16_t bits = 0;
        std::memcpy(&bits, view.bytes.data() + i * sizeof bits, sizeof bits);
        out[i] = view.dtype == DType::BF16 ? to_float(bf16{bits}) : fp16_to_float(bits);
    }
}

}  // namespace llmc
