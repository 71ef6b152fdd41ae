// Philox-4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) of several counters at once,
// so that loops over them vectorise. One counter at a time: rng.h.
#pragma once

#include <array>
#include <cstdint>

namespace llmc {

/// Counters, word by word, become their random words.
template <int kLanes>
void philox_of_lanes(uint32_t (&words)[4][kLanes], std::array<uint32_t, 2> key) {
    for (int round = 0; round < 10; ++round) {
#pragma omp simd
        for (int lane = 0; lane < kLanes; ++lane) {
            const uint64_t product0 = uint64_t{0xD2511F53u} * words[0][lane];
            const uint64_t product1 = uint64_t{0xCD9E8D57u} * words[2][lane];
            words[0][lane] = static_cast<uint32_t>(product1 >> 32) ^ words[1][lane] ^ key[0];
            words[2][lane] = static_cast<uint32_t>(product0 >> 32) ^ words[3][lane] ^ key[1];
            words[1][lane] = static_cast<uint32_t>(product1);
            words[3][lane] = static_cast<uint32_t>(product0);
        }
        key = {key[0] + 0x9E3779B9u, key[1] + 0xBB67AE85u};
    }
}

}  // namespace llmc
