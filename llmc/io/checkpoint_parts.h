// A parameter in the files of a checkpoint: one tensor, or parts of it in the files of several ranks. A part is a
// one-dimensional tensor called NAME[first:end], by elements of the row-major whole.
#pragma once

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

class CheckpointParts {
  public:
    /// Indexes the files STEM*.safetensors of a checkpoint, which must outlive this.
    CheckpointParts(const Checkpoint& checkpoint, const std::string& stem);

    /// The checkpoint has such files at all.
    bool any() const { return files_ > 0; }

    /// Hands over the fp32 elements [first, end) of a tensor of that shape, part by part: where a part begins, and its
    /// elements, which may be unaligned. A tensor that is missing, incomplete, or of another shape or type is an Error
    /// that names it.
    void read(const std::string& name, std::span<const int64_t> shape, int64_t first, int64_t end,
              const std::function<void(int64_t first, std::span<const std::byte> elements)>& take) const;

  private:
    struct Part {
        int64_t first = 0, end = 0;
        const SafetensorsView* view = nullptr;
        const SafetensorsFile* file = nullptr;
        bool is_whole = false;
    };
    void add(const SafetensorsFile& file);

    const Checkpoint& checkpoint_;
    int files_ = 0;
    std::map<std::string, std::vector<Part>> parts_;  ///< By name, in order.
};

}  // namespace llmc
