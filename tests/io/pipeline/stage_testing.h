// What tests of stages share: one stage at a time, from text to pieces or text.
#pragma once

#include "llmc/io/pipeline/normalizer.h"
#include "llmc/io/pipeline/pre_tokenizer.h"

#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace llmc {

using Words = std::vector<std::string>;

class WordCollector final : public PieceSink {
  public:
    void take(Piece piece) override { words.emplace_back(piece.text); }
    Words words;
};

/// The pieces that a stage makes of a text.
inline Words pieces_of(const PreTokenizer& stage, std::string_view text, bool is_first = true) {
    WordCollector words;
    stage.connect(words)->take({text, is_first});
    return words.words;
}

inline std::string normal(const Normalizer& stage, std::string_view text) {
    NormalText whole = {std::string(text), /*is_first=*/true, /*continues=*/false};
    stage.apply(&whole);
    return whole.text;
}

}  // namespace llmc
