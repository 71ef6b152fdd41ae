// Unigram: of all ways to cut a piece into tokens the one whose scores add up to most (Kudo 2018), by Viterbi's
// algorithm.
#pragma once

#include "llmc/io/pipeline/byte_trie.h"
#include "llmc/io/pipeline/token_model.h"

#include <array>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace llmc {

class UnigramModel final : public TokenModel {
  public:
    /// Scores by id. `unk` is -1 if there is no unknown token.
    UnigramModel(std::string source, TokenNames names, std::vector<double> scores, int32_t unk, bool byte_fallback);
    const TokenNames& names() const override { return names_; }
    std::unique_ptr<ModelEncoder> make_encoder(LostText& lost) const override;
    /// Sums of scores are rounded, so nothing is certain about long pieces.
    bool never_joins(std::string_view, std::string_view) const override { return false; }

  private:
    friend class UnigramEncoder;
    std::string source_;
    TokenNames names_;
    std::vector<double> scores_;
    int32_t unk_;
    bool byte_fallback_;
    double unknown_score_ = 0;
    ByteTrie trie_;
    std::array<int32_t, 256> bytes_{};  ///< byte_fallback's tokens; -1 where there is none.
};

}  // namespace llmc
