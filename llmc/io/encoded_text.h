// Text or JSON Lines as training data for a model with a tokenizer of its own: encoded once, when it is opened, and
// kept in memory. Plain text for byte models is not (text_file.h); what is larger than memory goes through `tokenize`
// first.
#pragma once

#include "llmc/io/data_file.h"
#include "llmc/io/special_names.h"
#include "llmc/io/token_source.h"
#include "llmc/io/tokenizer.h"

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace llmc {

/// End-of-text and the tokens of every document of the file.
class EncodedText final : public TokenSource {
  public:
    /// An Error naming `option` if a line is not as it should be, or the tokenizer cannot encode. Names of special
    /// tokens that are read as text are counted in `names`, where it is not null.
    EncodedText(DataFile file, const Tokenizer& tokenizer, const DataReading& reading, const std::string& option,
                SpecialNames* names);
    int64_t size() const override { return static_cast<int64_t>(small_.size() + large_.size()); }
    void read(int64_t position, std::span<int32_t> out) const override;
    std::string where(int64_t position) const override;
    int32_t vocab_size() const override { return vocab_size_; }
    int32_t end_of_text() const override { return end_of_text_; }
    std::string tokenizer() const override { return tokenizer_; }
    std::string describe() const override;

  private:
    std::string path_;
    std::string what_;  ///< For describe().
    std::string tokenizer_;
    std::string describes_end_of_text_;
    int32_t vocab_size_;
    int32_t end_of_text_;
    // One of them holds the tokens: the first where 16 bits are enough.
    std::vector<uint16_t> small_;
    std::vector<int32_t> large_;
};

}  // namespace llmc
