// Tokenizers: text to token ids and back. A model is tied to one, so checkpoints record its reference, the string
// make_tokenizer() takes. Read next: tokenizer_files.h (what is recognised),
// pipeline/pipeline_tokenizer.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace llmc {

/// What becomes of a special token such as <|endoftext|> where its name stands in a text.
enum class SpecialTokens : uint8_t {
    AsText,  ///< It is text like any other: nobody's text can end a document.
    AsIds,   ///< It is its id, for text that was written so on purpose.
};

/// One thread's encoding of texts. It keeps memory that makes the next call faster, never different.
class Encoder {
  public:
    virtual ~Encoder() = default;
    /// Appends the ids of `text`, without end-of-text. `continues`: it goes on where the text before it was cut.
    virtual void encode(std::string_view text, bool continues, std::vector<int32_t>* tokens) = 0;
    /// The first place p >= `from` to cut `text`: encoding text[0, p) and then, as a continuation, text[p, end) gives
    /// what encoding the whole gives. text.size() if there is none.
    virtual size_t safe_cut(std::string_view text, size_t from) = 0;
};

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
    /// Which token that is and what names it, for the banner; "" where there is nothing to choose.
    virtual std::string describe_end_of_text() const { return ""; }
    /// What encodes on one thread; this tokenizer must outlive it. An Error if it can only decode.
    virtual std::unique_ptr<Encoder> make_encoder(SpecialTokens special) const = 0;
    /// The bytes that a token stands for; the name of a special token. An id outside the vocabulary is an Error.
    virtual std::string token_bytes(int32_t token) const = 0;
    /// The text of `tokens`; end-of-text gives none. An id outside the vocabulary is an Error.
    virtual std::string decode(std::span<const int32_t> tokens) const = 0;
    /// The text that `token` adds to a text begun before it, for printing as tokens come.
    virtual std::string decode_next(int32_t token) const { return token == end_of_text() ? "" : token_bytes(token); }

    /// Ids of `text`, without end-of-text; special tokens in it are text.
    std::vector<int32_t> encode(std::string_view text) const;
};

/// One token per byte, end-of-text after them: any text in any encoding, nothing to learn or to load.
class ByteTokenizer final : public Tokenizer {
  public:
    static constexpr int32_t kEndOfText = 256;
    static constexpr int32_t kVocabSize = 257;
    std::string name() const override { return "bytes"; }
    int32_t vocab_size() const override { return kVocabSize; }
    int32_t end_of_text() const override { return kEndOfText; }
    std::unique_ptr<Encoder> make_encoder(SpecialTokens special) const override;
    std::string token_bytes(int32_t token) const override;
    std::string decode(std::span<const int32_t> tokens) const override;
};

/// Stands in where only token ids are known (llm.c token files): ids are shown as "<123>", text cannot be encoded.
class UnknownTokenizer final : public Tokenizer {
  public:
    std::string name() const override { return "none"; }
    int32_t vocab_size() const override { return 0; }
    int32_t end_of_text() const override { return -1; }
    std::unique_ptr<Encoder> make_encoder(SpecialTokens special) const override;
    std::string token_bytes(int32_t token) const override;
    std::string decode(std::span<const int32_t> tokens) const override;
};

/// What a user may say that a tokenizer's files leave open; "" where nothing is said.
struct TokenizerChoices {
    std::string document_token;  ///< Name or id of the token in front of documents, whatever the files name.
    std::string pattern;         ///< By which text is cut for a rank file, whatever family its size is of.
};

/// "bytes", "none", or the path of a tokenizer's folder or file, as tokenizer_files.h finds them. What cannot be read
/// or does not fit together is an Error. Choices that a folder has kept (tokenizer_choices.h) hold where none are
/// given.
std::unique_ptr<Tokenizer> make_tokenizer(const std::string& reference, const TokenizerChoices& choices = {});

/// An Error if the tokenizer has more tokens than the model's vocabulary `V`.
void require_vocabulary(const Tokenizer& tokenizer, int64_t V);

}  // namespace llmc
