#include "llmc/io/pipeline/byte_trie.h"

#include "llmc/base/check.h"

#include <algorithm>

namespace llmc {

ByteTrie::ByteTrie(std::vector<std::pair<std::string, int32_t>> entries) {
    std::stable_sort(entries.begin(), entries.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
    // Breadth first: a node stands for the entries [begin, end) that share their first `depth` bytes.
    struct Range {
        size_t begin, end, depth;
    };
    std::vector<Range> ranges = {{0, entries.size(), 0}};
    nodes_.emplace_back();
    bytes_.push_back(0);
    for (size_t node = 0; node < ranges.size(); ++node) {
        Range range = ranges[node];
        for (; range.begin < range.end && entries[range.begin].first.size() == range.depth; ++range.begin) {
            CHECK(range.depth > 0 && entries[range.begin].second >= 0, range.depth, entries[range.begin].second);
            nodes_[node].value = entries[range.begin].second;
        }
        nodes_[node].begin = static_cast<uint32_t>(nodes_.size());
        while (range.begin < range.end) {
            const char byte = entries[range.begin].first[range.depth];
            size_t end = range.begin;
            while (end < range.end && entries[end].first[range.depth] == byte) ++end;
            if (node == 0) first_[static_cast<unsigned char>(byte)] = static_cast<uint32_t>(nodes_.size());
            ranges.push_back({range.begin, end, range.depth + 1});
            nodes_.emplace_back();
            bytes_.push_back(static_cast<unsigned char>(byte));
            ++nodes_[node].children;
            range.begin = end;
        }
    }
}

int32_t ByteTrie::longest(std::string_view text, size_t i, size_t* bytes) const {
    int32_t found = -1;
    uint32_t node = kNone;
    for (size_t end = i; end < text.size();) {
        node = child(node, text[end++]);
        if (node == kNone) break;
        if (value(node) < 0) continue;
        found = value(node);
        *bytes = end - i;
    }
    return found;
}

}  // namespace llmc
