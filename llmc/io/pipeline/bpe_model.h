// Byte-pair encoding over characters or over bytes (Sennrich et al. 2016), as tokenizer.json describes it.
#pragma once

#include "llmc/io/bpe.h"
#include "llmc/io/pipeline/token_model.h"

#include <array>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace llmc {

struct BpeSettings {
    std::string source = "";     ///< For messages.
    bool over_bytes = false;     ///< Pieces are bytes, whose names are spelled as in bpe_alphabet.h; else characters.
    std::string unk_token = "";  ///< Stands for what has no token; "" if nothing does.
    bool fuse_unk = false;       ///< Neighbours without a token become one unk_token.
    bool byte_fallback = false;  ///< What has no token becomes bytes, "<0x0A>".
    bool ignore_merges = false;  ///< A piece that is a token is that token, whatever the merges say.
    std::string prefix = "";     ///< Of names of all but a piece's first character.
    std::string suffix = "";     ///< Of names of a piece's last character.
};

class BpeModel final : public TokenModel {
  public:
    /// `merges` are names, the first to merge first. An Error if one names what is no token.
    BpeModel(BpeSettings settings, TokenNames names, const std::vector<std::pair<std::string, std::string>>& merges);
    /// Merges by id.
    BpeModel(BpeSettings settings, TokenNames names, BpeMerges merges);
    const TokenNames& names() const override { return names_; }
    std::unique_ptr<ModelEncoder> make_encoder(LostText& lost) const override;
    bool never_joins(std::string_view before, std::string_view after) const override;

    const BpeSettings& settings() const { return settings_; }
    const BpeMerges& merges() const { return merges_; }

  private:
    friend class BpeModelEncoder;
    /// The tokens at both ends of what a character, or byte, becomes before merging; -1 if they are not certain.
    struct Ends {
        int32_t first = -1, last = -1;
    };
    void index();
    void find_joins();
    int32_t known(char32_t c) const;
    Ends ends_of(char32_t c, std::string_view text) const;
    bool joins(int32_t left, int32_t right) const { return joins_.find(left, right).rank != BpeMerges::kNoRank; }

    BpeSettings settings_;
    TokenNames names_;
    BpeMerges merges_;
    BpeMerges joins_;           ///< Pairs of unmerged tokens that some merge can bring together.
    bool joins_known_ = false;  ///< Else nothing is said about pairs.
    int32_t unk_ = -1;
    std::vector<int32_t> near_;  ///< Tokens of bytes, or of the first 2^16 characters; -1 where there is none.
    std::unordered_map<char32_t, int32_t> far_;       ///< Of the others.
    std::array<int32_t, 256> bytes_{};                ///< byte_fallback's tokens; -1 where there is none.
    std::unordered_map<std::string, int32_t> whole_;  ///< For ignore_merges.
};

}  // namespace llmc
