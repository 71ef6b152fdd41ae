#include "dev/cuda_on_cpu/wgmma_tile.h"

#include "dev/cuda_on_cpu/report.h"
#include "dev/cuda_on_cpu/shared_memory.h"

namespace cuda_on_cpu {

namespace {

constexpr int kSpans[4] = {0, 128, 64, 32};  // By the code of the swizzle.
constexpr int kCore = 8;                     // Rows of a core matrix, and elements in 16 bytes.

uint32_t field(uint64_t descriptor, int first) { return static_cast<uint32_t>(descriptor >> first & 0x3fff) << 4; }

}  // namespace

WgmmaTile::WgmmaTile(uint64_t descriptor, int rows, bool mn_major)
    : start_(field(descriptor, 0)),
      leading_(field(descriptor, 16)),
      stride_(field(descriptor, 32)),
      base_offset_(static_cast<int>(descriptor >> 49 & 7)),
      span_(kSpans[descriptor >> 62]),
      rows_(rows),
      mn_major_(mn_major) {}

std::string WgmmaTile::problem() const {
    if (base_offset_ != 0) return format("base offset %d: only tiles at pattern starts are modelled", base_offset_);
    if (span_ == 0) return "";
    // The pattern repeats every 8 rows of the span; the steps of K go along a row where K is, else over whole patterns.
    const uint32_t pattern = static_cast<uint32_t>(8 * span_), within = start_ % pattern;
    if (mn_major_ ? within == 0 : within < static_cast<uint32_t>(span_)) return "";
    return format("misaligned: shared address %u is %u bytes into the swizzle's pattern of %u", start_, within,
                  pattern);
}

uint32_t WgmmaTile::address(int row, int k) const {
    const auto r = static_cast<uint32_t>(row), c = static_cast<uint32_t>(k);
    if (span_ == 0) {
        // Core matrices of 8 rows of 16 bytes: leading from one to the next along K, stride along the rows.
        return start_ + c / kCore * leading_ + r / kCore * stride_ + (mn_major_ ? c % kCore : r % kCore) * 16;
    }
    const auto span = static_cast<uint32_t>(span_);
    if (!mn_major_) return swizzled(start_ + r / kCore * stride_ + r % kCore * span + c * 2, span_);
    const uint32_t chunk = span / 2;  // Elements of a row of the pattern.
    return swizzled(start_ + r / chunk * leading_ + c / kCore * stride_ + c % kCore * span + r % chunk * 2, span_);
}

}  // namespace cuda_on_cpu
