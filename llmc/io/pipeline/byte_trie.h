// A set of texts, each with a number, searched byte by byte. Immutable once built.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace llmc {

class ByteTrie {
  public:
    static constexpr uint32_t kNone = 0;  ///< Also the root, which nothing leads to.

    ByteTrie() = default;
    /// Texts are not empty; of equal ones the last counts. Numbers are not negative.
    explicit ByteTrie(std::vector<std::pair<std::string, int32_t>> entries);
    bool empty() const { return nodes_.size() <= 1; }

    /// The node behind `node` (kNone to begin) and `byte`; kNone if no text goes on so.
    uint32_t child(uint32_t node, char byte) const {
        const auto wanted = static_cast<unsigned char>(byte);
        if (node == kNone) return first_[wanted];
        const Node& from = nodes_[node];
        for (uint32_t i = from.begin; i < from.begin + from.children; ++i) {
            if (bytes_[i] >= wanted) return bytes_[i] == wanted ? i : kNone;
        }
        return kNone;
    }
    /// The number of the text that ends at a node; -1 if none does.
    int32_t value(uint32_t node) const { return nodes_[node].value; }
    /// Whether any text begins with this byte.
    bool begins(char byte) const { return first_[static_cast<unsigned char>(byte)] != kNone; }
    /// The longest text at text[i]; its number, or -1.
    int32_t longest(std::string_view text, size_t i, size_t* bytes) const;

  private:
    struct Node {
        int32_t value = -1;
        uint32_t begin = 0;
        uint32_t children = 0;
    };
    std::vector<Node> nodes_;           ///< The children of a node stand together, in the order of their bytes.
    std::vector<unsigned char> bytes_;  ///< Which byte leads to a node.
    std::array<uint32_t, 256> first_{};
};

}  // namespace llmc
