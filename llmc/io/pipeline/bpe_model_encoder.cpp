#include "llmc/base/error.h"
#include "llmc/io/bpe_alphabet.h"
#include "llmc/io/pipeline/bpe_model.h"
#include "llmc/io/pipeline/unicode.h"
#include "llmc/io/pipeline/word_cache.h"

namespace llmc {

class BpeModelEncoder final : public ModelEncoder {
  public:
    BpeModelEncoder(const BpeModel& model, LostText& lost)
        : model_(model),
          settings_(model.settings_),
          lost_(lost),
          has_affixes_(!settings_.prefix.empty() || !settings_.suffix.empty()) {}

    void encode(std::string_view piece, std::vector<int32_t>* tokens) override {
        if (piece.size() <= WordCache::kMostBytes) {
            if (cache_.find(piece, tokens)) return;
            word_.clear();
            encode_anew(piece);
            cache_.put(piece, word_);
            tokens->insert(tokens->end(), word_.begin(), word_.end());
            return;
        }
        if (settings_.ignore_merges) {
            const int32_t id = whole(piece);
            if (id >= 0) return tokens->push_back(id);
        }
        if (model_.joins_known_) return encode_parts(piece, tokens);
        word_.clear();
        merge(piece);
        tokens->insert(tokens->end(), word_.begin(), word_.end());
    }

    void encode_byte(char byte, std::vector<int32_t>* tokens) override {
        const auto value = static_cast<unsigned char>(byte);
        word_.clear();
        if (settings_.over_bytes && model_.near_[value] >= 0) {
            word_.push_back(model_.near_[value]);
        } else {
            add_unknown({&byte, 1});
            finish_unknown();
        }
        tokens->insert(tokens->end(), word_.begin(), word_.end());
    }

  private:
    int32_t whole(std::string_view piece) {
        key_ = piece;
        const auto found = model_.whole_.find(key_);
        return found == model_.whole_.end() ? -1 : found->second;
    }

    void encode_anew(std::string_view piece) {
        const int32_t id = settings_.ignore_merges ? whole(piece) : -1;
        if (id >= 0) {
            word_.push_back(id);
        } else {
            merge(piece);
        }
    }

    /// A long piece falls into parts between which nothing merges.
    void encode_parts(std::string_view piece, std::vector<int32_t>* tokens) {
        size_t begin = 0;
        int32_t last = -1;
        for (size_t i = 0, bytes = 0; i < piece.size(); i += bytes) {
            bytes = settings_.over_bytes ? 1 : utf8_bytes(piece[i]);
            const char32_t c = settings_.over_bytes ? static_cast<unsigned char>(piece[i]) : character_at(piece, i);
            const BpeModel::Ends ends = model_.ends_of(c, piece.substr(i, bytes));
            if (i > begin && last >= 0 && ends.first >= 0 && !model_.joins(last, ends.first)) {
                encode_part(piece.substr(begin, i - begin), tokens);
                begin = i;
            }
            last = ends.last;
        }
        encode_part(piece.substr(begin), tokens);
    }

    void encode_part(std::string_view part, std::vector<int32_t>* tokens) {
        const bool is_short = part.size() <= WordCache::kMostBytes;
        if (is_short && parts_.find(part, tokens)) return;
        word_.clear();
        merge(part);
        if (is_short) parts_.put(part, word_);
        tokens->insert(tokens->end(), word_.begin(), word_.end());
    }

    /// Leaves the tokens of a text in word_.
    void merge(std::string_view text) {
        if (has_affixes_) {
            add_with_affixes(text);
        } else if (settings_.over_bytes) {
            for (const char c : text) add(model_.near_[static_cast<unsigned char>(c)], {&c, 1});
        } else {
            for (size_t i = 0, bytes = 0; i < text.size(); i += bytes) {
                bytes = utf8_bytes(text[i]);
                add(model_.known(character_at(text, i)), text.substr(i, bytes));
            }
        }
        finish_unknown();
        merger_.merge(model_.merges_, &word_);
    }

    void add_with_affixes(std::string_view text) {
        for (size_t i = 0, bytes = 0; i < text.size(); i += bytes) {
            bytes = settings_.over_bytes ? 1 : utf8_bytes(text[i]);
            std::string name(text.substr(i, bytes));
            if (settings_.over_bytes) name = to_alphabet(name);
            if (i > 0) name = settings_.prefix + name;
            if (i + bytes == text.size()) name += settings_.suffix;
            const int32_t id = model_.names_.id(name);
            if (id >= 0) {
                add(id, name);
            } else {
                add_unknown_name(name);
            }
        }
    }

    void add(int32_t id, std::string_view text) {
        if (id < 0) return add_unknown(text);
        finish_unknown();
        word_.push_back(id);
    }
    void add_unknown(std::string_view text) {
        if (settings_.over_bytes) return add_unknown_name(to_alphabet(text));
        add_unknown_name(text);
    }

    void add_unknown_name(std::string_view name) {
        bool has_bytes = settings_.byte_fallback;
        for (const char c : name) has_bytes = has_bytes && model_.bytes_[static_cast<unsigned char>(c)] >= 0;
        if (has_bytes) {  // An unknown that waits stays behind them: so does the library.
            for (const char c : name) word_.push_back(model_.bytes_[static_cast<unsigned char>(c)]);
            return;
        }
        if (settings_.unk_token.empty()) return lose(name);
        if (model_.unk_ < 0) {
            fail("{}: the text has '{}', for which there is neither a token nor unk_token '{}' in the vocabulary",
                 settings_.source, name, settings_.unk_token);
        }
        if (!settings_.fuse_unk) finish_unknown();
        unknown_waits_ = true;
    }
    void finish_unknown() {
        if (unknown_waits_) word_.push_back(model_.unk_);
        unknown_waits_ = false;
    }
    void lose(std::string_view name) {
        std::string bytes;
        lost_.lose(settings_.over_bytes && from_alphabet(name, &bytes) ? bytes : name);
    }

    const BpeModel& model_;
    const BpeSettings& settings_;
    LostText& lost_;
    bool has_affixes_;
    WordMerger merger_;
    WordCache cache_;  ///< Of pieces.
    WordCache parts_;  ///< Of parts of long ones.
    std::vector<int32_t> word_;
    std::string key_;
    bool unknown_waits_ = false;
};

std::unique_ptr<ModelEncoder> BpeModel::make_encoder(LostText& lost) const {
    return std::make_unique<BpeModelEncoder>(*this, lost);
}

}  // namespace llmc
