#include "llmc/io/gguf/gguf_file.h"

#include "llmc/base/check.h"
#include "llmc/base/units.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <limits>
#include <utility>

namespace llmc {
namespace {

static_assert(std::endian::native == std::endian::little, "the files are little-endian and are written as they are");

constexpr uint32_t kVersion = 3;
/// gguf_metadata_value_type.
enum ValueType : uint32_t { kUint8 = 0, kUint32 = 4, kInt32 = 5, kFloat32 = 6, kBool = 7, kString = 8, kArray = 9 };

template <typename T>
void append_raw(std::string* bytes, T value) {
    std::array<char, sizeof value> raw = {};
    std::memcpy(raw.data(), &value, sizeof value);
    bytes->append(raw.data(), raw.size());
}

void append_text(std::string* bytes, std::string_view text) {
    append_raw<uint64_t>(bytes, text.size());
    bytes->append(text);
}

/// Where each tensor ends, with its padding; a 0 in front.
std::vector<int64_t> ends_of(std::span<const GgufTensor> tensors) {
    std::vector<int64_t> ends = {0};
    for (const GgufTensor& tensor : tensors) {
        ends.push_back(round_up(ends.back() + tensor.bytes(), kGgufAlignment));
    }
    return ends;
}

/// Everything in front of the first tensor.
std::string header_of(const GgufMetadata& metadata, std::span<const GgufTensor> tensors) {
    const std::vector<int64_t> ends = ends_of(tensors);
    std::string header = "GGUF";
    append_raw(&header, kVersion);
    append_raw<uint64_t>(&header, tensors.size());
    append_raw<uint64_t>(&header, static_cast<uint64_t>(metadata.size()));
    header += metadata.bytes();
    for (size_t i = 0; i < tensors.size(); ++i) {
        const GgufTensor& tensor = tensors[i];
        append_text(&header, tensor.name);
        append_raw<uint32_t>(&header, tensor.is_vector ? 1 : 2);
        append_raw<uint64_t>(&header, static_cast<uint64_t>(tensor.cols));  // The fastest dimension comes first.
        if (!tensor.is_vector) append_raw<uint64_t>(&header, static_cast<uint64_t>(tensor.rows));
        append_raw(&header, static_cast<uint32_t>(tensor.type));
        append_raw<uint64_t>(&header, static_cast<uint64_t>(ends[i]));
    }
    header.resize(static_cast<size_t>(round_up(static_cast<int64_t>(header.size()), kGgufAlignment)), '\0');
    return header;
}

}  // namespace

template <typename T>
void GgufMetadata::put(T value) {
    append_raw(&bytes_, value);
}

void GgufMetadata::put_text(std::string_view text) { append_text(&bytes_, text); }

void GgufMetadata::begin(std::string_view key, uint32_t type) {
    CHECK(std::find(keys_.begin(), keys_.end(), key) == keys_.end(), key);
    keys_.emplace_back(key);
    put_text(key);
    put(type);
}

void GgufMetadata::begin_array(std::string_view key, uint32_t type, size_t count) {
    begin(key, kArray);
    put(type);
    put<uint64_t>(count);
}

void GgufMetadata::add_text(std::string_view key, std::string_view text) {
    begin(key, kString);
    put_text(text);
}

void GgufMetadata::add_count(std::string_view key, int64_t count) {
    CHECK(count >= 0 && count <= std::numeric_limits<uint32_t>::max(), key, count);
    begin(key, kUint32);
    put(static_cast<uint32_t>(count));
}

void GgufMetadata::add_number(std::string_view key, double number) {
    begin(key, kFloat32);
    put(static_cast<float>(number));
}

void GgufMetadata::add_flag(std::string_view key, bool flag) {
    begin(key, kBool);
    put(static_cast<uint8_t>(flag));
}

void GgufMetadata::add_texts(std::string_view key, std::span<const std::string> texts) {
    begin_array(key, kString, texts.size());
    for (const std::string& text : texts) put_text(text);
}

void GgufMetadata::add_numbers(std::string_view key, std::span<const float> numbers) {
    begin_array(key, kFloat32, numbers.size());
    for (const float number : numbers) put(number);
}

void GgufMetadata::add_integers(std::string_view key, std::span<const int32_t> integers) {
    begin_array(key, kInt32, integers.size());
    for (const int32_t integer : integers) put(integer);
}

void GgufMetadata::add_bytes(std::string_view key, std::string_view bytes) {
    begin_array(key, kUint8, bytes.size());
    bytes_ += bytes;
}

GgufWriter::GgufWriter(const std::string& path, const GgufMetadata& metadata, std::vector<GgufTensor> tensors)
    : writer_(path), tensors_(std::move(tensors)), ends_(ends_of(tensors_)) {
    const std::string header = header_of(metadata, tensors_);
    header_bytes_ = static_cast<int64_t>(header.size());
    writer_.write(header);
}

int64_t GgufWriter::bytes_needed(const GgufMetadata& metadata, std::span<const GgufTensor> tensors) {
    return static_cast<int64_t>(header_of(metadata, tensors).size()) + ends_of(tensors).back();
}

void GgufWriter::append(std::span<const std::byte> bytes) {
    CHECK(tensor_ < tensors_.size(), tensor_);
    const auto count = static_cast<int64_t>(bytes.size());
    const int64_t size = tensors_[tensor_].bytes();
    CHECK(written_ + count <= size, tensors_[tensor_].name, written_, count);
    writer_.write(bytes.data(), count);
    written_ += count;
    if (written_ < size) return;
    writer_.write(std::string(static_cast<size_t>(ends_[tensor_ + 1] - ends_[tensor_] - size), '\0'));
    ++tensor_;
    written_ = 0;
}

void GgufWriter::close() {
    CHECK(tensor_ == tensors_.size(), tensor_, tensors_.size());
    writer_.close();
}

}  // namespace llmc
