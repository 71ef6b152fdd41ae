// A text file as training data: one document, one token per byte, end-of-text in front.
#pragma once

#include "llmc/base/file.h"
#include "llmc/io/token_source.h"

#include <cstdint>
#include <span>
#include <string>

namespace llmc {

/// Maps a file; an Error naming `option` that says what to do if it is missing, a folder or unreadable.
MappedFile map_data(const std::string& path, const std::string& option);

/// An Error naming `option` if the content is not text. Any encoding without NUL bytes is accepted.
void require_text(const MappedFile& file, const std::string& option);

/// Tokens of a text file as ByteTokenizer gives them: token 0 is end-of-text, token i is byte i - 1.
class TextFile final : public TokenSource {
  public:
    /// Content that is not text is an Error, as of require_text().
    TextFile(MappedFile file, const std::string& option);
    int64_t size() const override { return 1 + file_.size(); }
    void read(int64_t position, std::span<int32_t> out) const override;
    std::string where(int64_t position) const override;
    int32_t vocab_size() const override;
    int32_t end_of_text() const override;
    std::string tokenizer() const override { return "bytes"; }
    std::string describe() const override;

  private:
    MappedFile file_;
};

}  // namespace llmc
