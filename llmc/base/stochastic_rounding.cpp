#include "llmc/base/stochastic_rounding.h"

#include "llmc/base/check.h"
#include "llmc/base/philox.h"
#include "llmc/base/rng.h"

#include <cstring>

namespace llmc {
namespace {

constexpr int kLanes = 16;  ///< Counters at a time, so that loops over them vectorise.

}  // namespace

std::array<uint32_t, 2> rounding_key(uint64_t seed) {
    const auto words = philox(seed, RngStream::Rounding, 0, 0);
    return {words[0], words[1]};
}

void fill_rounding_bits(uint16_t* out, const RoundingDraws& draws, RoundedBuffer buffer, int32_t row, int64_t first,
                        int64_t count) {
    static_assert(std::endian::native == std::endian::little, "half words, lower first");
    CHECK(first >= 0 && first % kDrawsOfCounter == 0 && row >= 0, first, row);
    const auto first_group = static_cast<uint64_t>(first / kDrawsOfCounter);
    const int64_t groups = (count + kDrawsOfCounter - 1) / kDrawsOfCounter;
    for (int64_t begin = 0; begin < groups; begin += kLanes) {
        uint32_t words[4][kLanes];
        for (int lane = 0; lane < kLanes; ++lane) {
            const auto counter =
                rounding_counter(draws, buffer, row, first_group + static_cast<uint64_t>(begin + lane));
            for (size_t word = 0; word < 4; ++word) words[word][lane] = counter[word];
        }
        philox_of_lanes(words, draws.key);
        uint32_t of_groups[kLanes][4];
        for (int lane = 0; lane < kLanes; ++lane)
            for (int word = 0; word < 4; ++word) of_groups[lane][word] = words[word][lane];
        const int64_t here = groups - begin < kLanes ? groups - begin : kLanes;
        std::memcpy(out + begin * kDrawsOfCounter, of_groups, static_cast<size_t>(here) * sizeof of_groups[0]);
    }
}

}  // namespace llmc
