// A parameter in the files of a checkpoint: one tensor, or parts of it in the files of several ranks. A part is a
// one-dimensional tensor called NAME[first:end], by elements of the row-major whole. Elements are stored in the type
// they were kept in: fp32, bf16, or codes (uint8) of 8-bit blocks (base/dynamic_map.h), whose largest magnitudes are a
// tensor of their own, NAME.absmax, of one dimension.
#pragma once

#include "llmc/base/dynamic_map.h"
#include "llmc/io/checkpoint.h"

#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

namespace llmc {

/// The file of a rank: "model.safetensors" where there is one rank, else "model-00003-of-00008.safetensors" (from 1).
std::string rank_file(const std::string& stem, int rank, int ranks);

/// How the part [first, end) of a tensor with `count` elements is called; all of it keeps its name.
std::string part_name(const std::string& name, int64_t first, int64_t end, int64_t count);

/// The tensor of the largest magnitudes of a tensor in 8-bit blocks.
std::string scales_name(const std::string& name);

class CheckpointParts {
  public:
    /// Indexes the files STEM*.safetensors of a checkpoint, which must outlive this.
    CheckpointParts(const Checkpoint& checkpoint, const std::string& stem);

    /// There is such a tensor, or a part of one.
    bool has(const std::string& name) const { return parts_.contains(name); }

    /// The checkpoint has such files at all.
    bool any() const { return files_ > 0; }

    /// What the tensor is stored in. One that is missing, or in a type that nothing is kept in, is an Error naming it.
    DType dtype_of(const std::string& name) const;

    /// Hands over the elements [first, end) of a tensor of that type and shape, part by part: where a part begins, and
    /// its elements, which may be unaligned. A tensor that is missing, incomplete, or of another shape or type is an
    /// Error that names it.
    void read(const std::string& name, DType dtype, std::span<const int64_t> shape, int64_t first, int64_t end,
              const std::function<void(int64_t first, std::span<const std::byte> elements)>& take) const;

    /// The same in fp32, whatever it is stored in; `map` is that of its codes, if there may be some.
    void read_values(const std::string& name, std::span<const int64_t> shape, int64_t first, int64_t end, float* out,
                     const DynamicMap* map = nullptr) const;

  private:
    struct Part {
        int64_t first = 0, end = 0;
        const SafetensorsView* view = nullptr;
        const SafetensorsFile* file = nullptr;
        bool is_whole = false;
    };
    void add(const SafetensorsFile& file);
    const std::vector<Part>& parts_of(const std::string& name) const;
    void read_codes(const std::string& name, std::span<const int64_t> shape, int64_t first, int64_t end, float* out,
                    const DynamicMap& map) const;

    const Checkpoint& checkpoint_;
    int files_ = 0;
    std::map<std::string, std::vector<Part>> parts_;  ///< By name, in order.
};

}  // namespace llmc
