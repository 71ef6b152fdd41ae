// The lowest free offset against trying all of them, among lives of every length.
#include "llmc/plan/placed_storages.h"

#include "llmc/base/rng.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

namespace llmc {
namespace {

struct Placed {
    Lifetime life;
    int64_t begin = 0, end = 0;
};

int64_t lowest_by_trying(const std::vector<Placed>& placed, const Lifetime& life, int64_t bytes) {
    std::vector<int64_t> candidates = {0};
    for (const Placed& other : placed) candidates.push_back(other.end);
    std::sort(candidates.begin(), candidates.end());
    for (const int64_t offset : candidates) {
        const bool is_free = std::none_of(placed.begin(), placed.end(), [&](const Placed& other) {
            return other.life.overlaps(life) && other.begin < offset + bytes && offset < other.end;
        });
        if (is_free) return offset;
    }
    return -1;
}

TEST(PlacedStorages, LowestFreeIsWhatTryingAllFinds) {
    for (const int steps : {1, 63, 64, 65, 500}) {
        for (uint32_t seed = 0; seed < 6; ++seed) {
            PlacedStorages storages(static_cast<size_t>(steps));
            std::vector<Placed> placed;
            for (uint64_t i = 0; i < 250; ++i) {
                const auto draw = philox(seed, RngStream::Test, static_cast<uint32_t>(steps), i);
                const auto below = [&](size_t which, int limit) {
                    return static_cast<int>(draw[which] % static_cast<uint32_t>(std::max(1, limit)));
                };
                const int length = below(3, 4) == 0 ? below(0, steps) : below(0, std::min(steps, 5));
                Placed next;
                next.life.first = below(1, steps - length);
                next.life.last = next.life.first + length;
                const int64_t bytes = 1 + below(2, seed % 2 == 0 ? 3 : 40);
                next.begin = storages.lowest_free(next.life, bytes);
                ASSERT_EQ(next.begin, lowest_by_trying(placed, next.life, bytes)) << steps << " " << seed << " " << i;
                next.end = next.begin + bytes;
                storages.insert(next.life, next.begin, next.end);
                placed.push_back(next);
            }
        }
    }
}

}  // namespace
}  // namespace llmc
