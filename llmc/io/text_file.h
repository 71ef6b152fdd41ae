// A text file as training data: one document, one token per byte, end-of-text in front.
#pragma once

#include "llmc/io/data_file.h"
#include "llmc/io/token_source.h"

#include <cstdint>
#include <span>
#include <string>

namespace llmc {

/// Tokens of a text file as ByteTokenizer gives them: token 0 is end-of-text, token i is byte i - 1.
class TextFile final : public TokenSource {
  public:
    explicit TextFile(DataFile file);
    int64_t size() const override { return 1 + file_.size(); }
    void read(int64_t position, std::span<int32_t> out) const override;
    std::string where(int64_t position) const override;
    int32_t vocab_size() const override;
    int32_t end_of_text() const override;
    std::string tokenizer() const override { return "bytes"; }
    std::string describe() const override;

  private:
    std::string what_;  ///< For describe().
    MappedFile file_;
};

}  // namespace llmc
