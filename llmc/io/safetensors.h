// safetensors files: named tensors behind a JSON header. The reader is strict, because these files come from anywhere,
// and gives views into the memory-mapped file; the writer streams, so that a model need not be in memory twice.
// Format: https://github.com/huggingface/safetensors#format
#pragma once

#include "llmc/base/dtype.h"
#include "llmc/base/file.h"

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace llmc {

/// A tensor in a file that is open.
struct SafetensorsView {
    std::string name;
    std::string dtype_name;      ///< As in the file: "F32", "BF16", "BOOL", ...
    std::optional<DType> dtype;  ///< Empty for types this program does not compute with.
    std::vector<int64_t> shape;  ///< Empty for a scalar.
    /// The elements, row-major, little-endian. They may be unaligned: use memcpy. Valid while the file is open.
    std::span<const std::byte> bytes;
};

/// The elements of a tensor that is F32, F16 or BF16, in the order of the file.
void read_as_fp32(const SafetensorsView& view, std::span<float> out);

/// An open file. Anything wrong with it is an Error that names the file and, where there is one, the tensor.
class SafetensorsFile {
  public:
    explicit SafetensorsFile(const std::string& path) : SafetensorsFile(MappedFile(path)) {}
    explicit SafetensorsFile(MappedFile file);

    const std::string& path() const { return file_.path(); }
    /// In the order of their bytes in the file.
    const std::vector<SafetensorsView>& tensors() const { return tensors_; }
    const std::map<std::string, std::string>& metadata() const { return metadata_; }
    /// Null if there is none of that name.
    const SafetensorsView* find(std::string_view name) const;
    /// The tensor of that name, type and shape; otherwise an Error that says what the file has instead.
    const SafetensorsView& expect(std::string_view name, DType dtype, std::span<const int64_t> shape) const;

  private:
    void read_header(std::string_view header);
    void check_ranges(std::span<const std::byte> data) const;

    MappedFile file_;
    std::vector<SafetensorsView> tensors_;
    std::map<std::string, std::string> metadata_;
    std::map<std::string, size_t, std::less<>> index_;
};

/// What the header says of a tensor.
struct SafetensorsEntry {
    std::string name;
    DType dtype = DType::F32;
    std::vector<int64_t> shape;
    int64_t bytes() const;
};

/// Writes a file front to back. Errors (a full disk) name the file; a file that is not closed is removed.
class SafetensorsWriter {
  public:
    /// Writes the header. Tensors with wider elements should come first, so that all are aligned.
    SafetensorsWriter(const std::string& path, std::vector<SafetensorsEntry> entries,
                      const std::map<std::string, std::string>& metadata = {});
    /// Appends the next bytes of the tensors, in the order of the entries and in pieces of any size.
    void append(const void* data, int64_t bytes);
    /// Appends a whole tensor, which must be the next one.
    void write(std::string_view name, const void* data);
    /// Syncs to the disk. All tensors must be complete.
    void close();
    /// XXH3 of everything written so far.
    std::string checksum() const { return writer_.checksum(); }
    int64_t bytes_written() const { return header_bytes_ + offset_; }

  private:
    FileWriter writer_;
    std::vector<SafetensorsEntry> entries_;
    std::vector<int64_t> ends_;  ///< Where every tensor ends, relative to the end of the header.
    int64_t header_bytes_ = 0;
    int64_t offset_ = 0;  ///< Bytes of tensors written.
};

/// "F32", "BF16", ...: the name of an element type in safetensors files.
std::string_view safetensors_name(DType dtype);

}  // namespace llmc
