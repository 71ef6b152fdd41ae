// What a SentencePiece model says about itself that its library does not tell: a few fields of the file, which is a
// protocol buffer. https://github.com/google/sentencepiece/blob/master/src/sentencepiece_model.proto
#pragma once

#include <string>
#include <string_view>

namespace llmc {

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
