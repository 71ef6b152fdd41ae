// Instruction data as tests have it: rows of tokens, each with a mark.
#pragma once

#include "llmc/io/token_source.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

namespace llmc {

struct MarkedRow {
    std::vector<int32_t> ids;
    std::vector<int> scored;  ///< 1 for the tokens that count.
};

class MarkedSource final : public TokenSource {
  public:
    explicit MarkedSource(const std::vector<MarkedRow>& rows) {
        for (const MarkedRow& row : rows) {
            for (size_t i = 0; i < row.ids.size(); ++i) {
                ids_.push_back(row.ids[i]);
                marks_.push_back(
                    static_cast<uint8_t>((row.scored[i] != 0 ? kScored : 0) | (i == 0 ? kDocumentStart : 0)));
            }
        }
    }
    int64_t size() const override { return static_cast<int64_t>(ids_.size()); }
    void read(int64_t position, std::span<int32_t> out) const override {
        std::copy_n(ids_.begin() + position, out.size(), out.begin());
    }
    bool is_marked() const override { return true; }
    void read_marks(int64_t position, std::span<uint8_t> out) const override {
        std::copy_n(marks_.begin() + position, out.size(), out.begin());
    }
    std::string where(int64_t position) const override { return "'rows' at token " + std::to_string(position); }
    int32_t vocab_size() const override { return 1 << 20; }
    int32_t end_of_text() const override { return 0; }
    std::string tokenizer() const override { return "none"; }
    std::string describe() const override { return "rows of a test"; }

  private:
    std::vector<int32_t> ids_;
    std::vector<uint8_t> marks_;
};

/// A row of `length` tokens first, first + 1, ..., of which those from `prompt` on count.
inline MarkedRow row_of(int32_t first, int64_t length, int64_t prompt) {
    MarkedRow row;
    for (int64_t i = 0; i < length; ++i) {
        row.ids.push_back(first + static_cast<int32_t>(i));
        row.scored.push_back(i >= prompt ? 1 : 0);
    }
    return row;
}

}  // namespace llmc
