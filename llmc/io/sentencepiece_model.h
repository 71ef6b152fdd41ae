// What a SentencePiece model says about itself that its library does not tell: a few fields of the file, which is a
// protocol buffer. https://github.com/google/sentencepiece/blob/master/src/sentencepiece_model.proto
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace llmc {

/// A token as the file has it, with the file's numbers for types and kinds.
struct SentencePiece {
    enum class Type : uint8_t { Normal = 1, Unknown = 2, Control = 3, UserDefined = 4, Unused = 5, Byte = 6 };
    std::string text;
    float score = 0;
    Type type = Type::Normal;
};

struct SentencePieceContent {
    enum class Kind : uint8_t { Unigram = 1, Bpe = 2, Word = 3, Character = 4 };
    Kind kind = Kind::Unigram;
    std::vector<SentencePiece> pieces;  ///< By id.
    int32_t unk = 0, bos = 1, eos = 2, pad = -1;
    std::string normalizer;     ///< Its name: "nmt_nfkc", "identity".
    std::string character_map;  ///< What it does, compiled; "" if nothing.
    bool adds_prefix = true;    ///< Puts a blank in front of a text.
    bool removes_blanks = true, space_as_suffix = false;
};

/// Reads as far as the file makes sense; the library judges what is corrupt.
SentencePieceContent read_sentencepiece_model(std::string_view model);

struct SentencePieceFacts {
    bool is_bpe = false;
    bool adds_prefix = true;  ///< Puts a blank in front of a text.
    bool keeps_text = false;  ///< Changes nothing else: no normalisation, no blanks removed.
};

/// Reads as far as the file makes sense; the library judges what is corrupt.
SentencePieceFacts look_at_sentencepiece_model(std::string_view model);

/// The same model, which does not put a blank in front of a text.
std::string without_prefix(const std::string& model);

}  // namespace llmc
