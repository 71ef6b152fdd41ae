// Decoders make text of tokens' names again. Stages as tokenizer.json names them. Bytes that are no UTF-8 come out as
// they went in, where the library puts U+FFFD in their place.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace llmc {

/// A stage. Immutable.
class DecoderStage {
  public:
    virtual ~DecoderStage() = default;
    /// Changes one token's text: the first of all, or the last.
    virtual void apply(std::string* text, bool is_first, bool is_last) const = 0;
    /// Whether all tokens are one text from here on.
    virtual bool fuses() const { return false; }
};

std::unique_ptr<DecoderStage> make_byte_level_decoder();
std::unique_ptr<DecoderStage> make_byte_fallback_decoder();
std::unique_ptr<DecoderStage> make_fuse_decoder();
std::unique_ptr<DecoderStage> make_replace_decoder(const std::string& pattern, const std::string& content,
                                                   const std::string& source);
std::unique_ptr<DecoderStage> make_literal_replace_decoder(const std::string& text, const std::string& content,
                                                           const std::string& source);
/// Drops up to `start` and `stop` times `content`, a character, from the ends.
std::unique_ptr<DecoderStage> make_strip_decoder(const std::string& content, size_t start, size_t stop);
/// `replacement` becomes a blank, or nothing in the first token.
std::unique_ptr<DecoderStage> make_metaspace_decoder(const std::string& replacement, bool drops_first);
/// `suffix` becomes a blank, or nothing in the last token.
std::unique_ptr<DecoderStage> make_suffix_decoder(const std::string& suffix);

/// All stages of a tokenizer. Without any, tokens are written with blanks between them.
class Decoder {
  public:
    explicit Decoder(std::vector<std::unique_ptr<DecoderStage>> stages = {}) : stages_(std::move(stages)) {}
    std::string decode(std::span<const std::string> tokens) const;
    /// What a token adds to a text in its middle.
    std::string decode_next(const std::string& token) const;

  private:
    std::vector<std::unique_ptr<DecoderStage>> stages_;
};

}  // namespace llmc
