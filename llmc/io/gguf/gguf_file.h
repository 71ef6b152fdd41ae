// GGUF files: metadata as typed key-value pairs, then tensors, aligned to 32 bytes, little-endian. The writer streams,
// so that a model need not be in memory twice. Format, version 3:
// https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
#pragma once

#include "llmc/base/file.h"
#include "llmc/io/gguf/gguf_type.h"

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace llmc {

/// Every tensor begins at a multiple of this, counted from the first.
constexpr int64_t kGgufAlignment = 32;

/// The key-value pairs, in the order in which they were added, already as the file has them. A key comes once.
class GgufMetadata {
  public:
    void add_text(std::string_view key, std::string_view text);
    void add_count(std::string_view key, int64_t count);  ///< uint32; larger than that is a CHECK.
    void add_number(std::string_view key, double number);
    void add_flag(std::string_view key, bool flag);
    void add_texts(std::string_view key, std::span<const std::string> texts);
    void add_numbers(std::string_view key, std::span<const float> numbers);
    void add_integers(std::string_view key, std::span<const int32_t> integers);
    void add_bytes(std::string_view key, std::string_view bytes);

    int64_t size() const { return static_cast<int64_t>(keys_.size()); }
    const std::string& bytes() const { return bytes_; }

  private:
    void begin(std::string_view key, uint32_t type);
    void begin_array(std::string_view key, uint32_t type, size_t count);
    template <typename T>
    void put(T value);
    void put_text(std::string_view text);

    std::vector<std::string> keys_;
    std::string bytes_;
};

/// What the header says of a tensor. Rows have `cols` elements; a vector has one row and no second dimension.
struct GgufTensor {
    std::string name;
    GgufType type = GgufType::F32;
    int64_t rows = 1, cols = 0;
    bool is_vector = false;
    int64_t bytes() const { return bytes_of(type, rows * cols); }
};

/// Writes a file front to back. Errors (a full disk) name the file; a file that is not closed is removed.
class GgufWriter {
  public:
    /// Writes the header.
    GgufWriter(const std::string& path, const GgufMetadata& metadata, std::vector<GgufTensor> tensors);
    /// Bytes of the whole file.
    int64_t total_bytes() const { return header_bytes_ + ends_.back(); }
    /// Appends the next bytes of the tensors, in the order of the header and in pieces of any size within a tensor.
    void append(std::span<const std::byte> bytes);
    /// Syncs to the disk. All tensors must be complete.
    void close();

    /// total_bytes() of a file before it is begun.
    static int64_t bytes_needed(const GgufMetadata& metadata, std::span<const GgufTensor> tensors);

  private:
    FileWriter writer_;
    std::vector<GgufTensor> tensors_;
    std::vector<int64_t> ends_;  ///< Of each tensor with its padding, counted from the first; a 0 in front.
    size_t tensor_ = 0;          ///< The one being written.
    int64_t written_ = 0;        ///< Of it.
    int64_t header_bytes_ = 0;
};

}  // namespace llmc
