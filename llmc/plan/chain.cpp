// Optimal checkpointing of a chain of equal layers: the recurrence R(n, m) of search.h as a table, and the walks that
// follow from it.
#include "llmc/plan/search.h"

#include <algorithm>

namespace llmc {

ChainCheckpointing::ChainCheckpointing(int max_layers, double layer_seconds, double repeat_seconds)
    : max_layers_(max_layers), table_(static_cast<size_t>((max_layers + 1) * (max_layers + 1))) {
    for (int slots = 0; slots <= max_layers; ++slots) {
        for (int n = 1; n <= max_layers; ++n) {
            Entry& best = table_[static_cast<size_t>(n * (max_layers + 1) + slots)];
            if (n == 1) {
                best.seconds = repeat_seconds;
                continue;
            }
            best.seconds = (n - 1) * layer_seconds + repeat_seconds + entry(n - 1, slots).seconds;
            for (int q = 1; slots > 0 && q < n; ++q) {
                const double total = q * layer_seconds + entry(n - q, slots - 1).seconds + entry(q, slots).seconds;
                if (total < best.seconds) best = {total, q};
            }
            best.walks = 1 + entry(best.split > 0 ? best.split : n - 1, slots).walks;
        }
    }
}

const ChainCheckpointing::Entry& ChainCheckpointing::entry(int layers, int slots) const {
    slots = std::min(slots, max_layers_);
    return table_[static_cast<size_t>(layers * (max_layers_ + 1) + slots)];
}

void ChainCheckpointing::fill_walks(int first, int layers, int slots, std::vector<std::vector<int>>* walk) const {
    // The walk to the last layer's input holds the boundary of every split on its way; what is left of each split is a
    // segment of its own afterwards, with the slots it had.
    const int last = first + layers - 1;
    while (layers > 1) {
        const int split = entry(layers, slots).split;
        if (split == 0) {
            fill_walks(first, layers - 1, slots, walk);
            return;
        }
        (*walk)[static_cast<size_t>(last)].push_back(first + split);
        fill_walks(first, split, slots, walk);
        first += split;
        layers -= split;
        --slots;
    }
}

}  // namespace llmc
