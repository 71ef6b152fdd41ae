// Tokenizers: text to token ids and back. A model is tied to one, so checkpoints record its reference, the string
// make_tokenizer() takes.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace llmc {

/// Turns text into token ids 0 <= id < vocab_size() and back. Immutable, so it may be shared between threads.
class Tokenizer {
  public:
    virtual ~Tokenizer() = default;
    /// The reference that makes this tokenizer again.
    virtual std::string name() const = 0;
    /// Number of ids, without the padding a model may add; 0 where unknown.
    virtual int32_t vocab_size() const = 0;
    /// The id that precedes every document; -1 where unknown.
    virtual int32_t end_of_text() const = 0;
    /// Ids of `text`, without end-of-text.
    virtual std::vector<int32_t> encode(std::string_view text) const = 0;
    /// The text of `tokens`; end-of-text gives none. An id outside the vocabulary is an Error.
    virtual std::string decode(std::span<const int32_t> tokens) const = 0;
};

/// One token per byte, end-of-text after them: any text in any encoding, nothing to learn or to load.
class ByteTokenizer final : public Tokenizer {
  public:
    static constexpr int32_t kEndOfText = 256;
    static constexpr int32_t kVocabSize = 257;
    std::string name() const override { return "bytes"; }
    int32_t vocab_size() const override { return kVocabSize; }
    int32_t end_of_text() const override { return kEndOfText; }
    std::vector<int32_t> encode(std::string_view text) const override;
    std::string decode(std::span<const int32_t> tokens) const override;
};

/// Stands in where only token ids are known (llm.c token files): ids are shown as "<123>", text cannot be encoded.
class UnknownTokenizer final : public Tokenizer {
  public:
    std::string name() const override { return "none"; }
    int32_t vocab_size() const override { return 0; }
    int32_t end_of_text() const override { return -1; }
    std::vector<int32_t> encode(std::string_view text) const override;
    std::string decode(std::span<const int32_t> tokens) const override;
};

/// "bytes" or "none". Anything else is an Error that lists what there is.
std::unique_ptr<Tokenizer> make_tokenizer(const std::string& reference);

}  // namespace llmc
