// Normalisers change a text before it is cut into pieces. Stages as tokenizer.json names them, except sequences, which
// are stages one after the other.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

namespace llmc {

/// A text and what is remembered of where it came from.
struct NormalText {
    std::string text;
    bool is_first = false;   ///< Its first character comes from the document's first one.
    bool continues = false;  ///< It goes on where a document was cut.
};

/// A stage. Immutable; any number of threads may use it.
class Normalizer {
  public:
    virtual ~Normalizer() = default;
    virtual void apply(NormalText* text) const = 0;
    /// Whether a text may be cut between a letter and a blank or line end, and its parts normalised apart.
    virtual bool allows_cuts() const = 0;
    /// Whether it leaves ASCII as it is.
    virtual bool keeps_ascii() const { return false; }
};

/// Characters that came after Unicode 9 stay as they are, as in the tokenizers library.
enum class UnicodeForm : uint8_t { NFC, NFD, NFKC, NFKD };
std::unique_ptr<Normalizer> make_unicode_normalizer(UnicodeForm form);
/// Every character becomes small by itself.
std::unique_ptr<Normalizer> make_lowercase();
/// Drops the marks of letters.
std::unique_ptr<Normalizer> make_strip_accents();
/// Drops white space at the ends.
std::unique_ptr<Normalizer> make_strip(bool left, bool right);
/// Puts a text in front of one that is not empty.
std::unique_ptr<Normalizer> make_prepend(const std::string& prefix);
/// Replaces what an expression matches, or a text. Errors name `source`.
std::unique_ptr<Normalizer> make_replace(const std::string& pattern, const std::string& content,
                                         const std::string& source);
std::unique_ptr<Normalizer> make_literal_replace(const std::string& text, const std::string& content,
                                                 const std::string& source);
/// Drops controls and makes blanks of white space, as SentencePiece's nmt rules do.
std::unique_ptr<Normalizer> make_nmt();
/// Spells bytes in the characters of bpe_alphabet.h.
std::unique_ptr<Normalizer> make_byte_spelling();

}  // namespace llmc
