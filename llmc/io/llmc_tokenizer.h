// llm.c's tokenizer file: the bytes of every token, without merges, so it can only decode. A header of 256 int32
// (magic, version, number of tokens, end-of-text), then a length of one byte and the bytes for each token.
#pragma once

#include "llmc/io/tokenizer.h"

#include <cstddef>
#include <span>
#include <string>
#include <vector>

namespace llmc {

/// Whether a file starts with the magic number of such a file.
bool is_llmc_tokenizer(std::span<const std::byte> bytes);

class LlmcTokenizer final : public Tokenizer {
  public:
    /// Reads versions 1 (GPT-2's end-of-text is implied) and 2.
    LlmcTokenizer(std::string name, const std::string& path);
    std::string name() const override { return name_; }
    int32_t vocab_size() const override { return static_cast<int32_t>(tokens_.size()); }
    int32_t end_of_text() const override { return end_of_text_; }
    std::unique_ptr<Encoder> make_encoder(SpecialTokens special) const override;
    std::string token_bytes(int32_t token) const override;
    std::string decode(std::span<const int32_t> tokens) const override;

  private:
    std::string name_;
    std::vector<std::string> tokens_;
    int32_t end_of_text_ = -1;
};

/// Writes version 2. An id that stands for nothing is written by its number, since llm.c wants no empty tokens; a token
/// of more than 255 bytes is an Error.
void write_llmc_tokenizer(const Tokenizer& tokenizer, const std::string& path);

}  // namespace llmc
