// The operands of a wgmma in shared memory: what a descriptor says, and where it puts each element.
#pragma once

#include <cstdint>
#include <string>

namespace cuda_on_cpu {

/// A descriptor ("matrix descriptor format" in the PTX ISA), for a tile of `rows` rows of A (or columns of B) and 16
/// elements of K, of 2 bytes each.
class WgmmaTile {
  public:
    WgmmaTile(uint64_t descriptor, int rows, bool mn_major);

    /// Why there is no such tile; empty if there is.
    std::string problem() const;

    /// The shared address of 8 consecutive elements (16 bytes): of K if the tile is K-major, else of rows.
    uint32_t address(int row, int k) const;

    int rows() const { return rows_; }
    bool mn_major() const { return mn_major_; }

  private:
    uint32_t start_, leading_, stride_;
    int base_offset_, span_;  ///< Bytes of the swizzle, 0: none.
    int rows_;
    bool mn_major_;
};

}  // namespace cuda_on_cpu
