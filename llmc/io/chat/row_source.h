// Instruction rows as training data: encoded once, when the file is opened, and kept in memory. Every row is a document
// with marks (token_source.h).
#pragma once

#include "llmc/io/chat/row_reader.h"
#include "llmc/io/token_source.h"

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace llmc {

class RowSource final : public TokenSource {
  public:
    /// Reads all of the file, and reports. An Error as RowReader::read() has them.
    RowSource(DataFile file, const Tokenizer& tokenizer, const DataReading& reading, const std::string& option);
    int64_t size() const override { return static_cast<int64_t>(tokens_.size()); }
    void read(int64_t position, std::span<int32_t> out) const override;
    bool is_marked() const override { return true; }
    void read_marks(int64_t position, std::span<uint8_t> out) const override;
    std::string where(int64_t position) const override;
    int32_t vocab_size() const override { return vocab_size_; }
    int32_t end_of_text() const override { return end_of_text_; }
    std::string tokenizer() const override { return tokenizer_; }
    std::string describe() const override;

  private:
    std::string path_;
    std::string what_;  ///< For describe().
    std::string tokenizer_;
    int32_t vocab_size_;
    int32_t end_of_text_;
    std::vector<int32_t> tokens_;
    std::vector<uint8_t> marks_;
    std::vector<int64_t> starts_;  ///< First token of every row,
    std::vector<int64_t> lines_;   ///< and the line it begins in.
};

}  // namespace llmc
