#include "llmc/io/pipeline/unigram_model.h"

#include "llmc/base/error.h"
#include "llmc/io/pipeline/unicode.h"
#include "llmc/io/pipeline/word_cache.h"

#include <algorithm>
#include <limits>

namespace llmc {

UnigramModel::UnigramModel(std::string source, TokenNames names, std::vector<double> scores, int32_t unk,
                           bool byte_fallback)
    : source_(std::move(source)),
      names_(std::move(names)),
      scores_(std::move(scores)),
      unk_(unk),
      byte_fallback_(byte_fallback) {
    constexpr double kUnknownPenalty = 10;
    double least = std::numeric_limits<double>::infinity();
    std::vector<std::pair<std::string, int32_t>> entries;
    for (int32_t id = 0; id < names_.limit(); ++id) {
        least = std::min(least, scores_[static_cast<size_t>(id)]);
        if (!names_.name(id).empty()) entries.emplace_back(names_.name(id), id);
    }
    unknown_score_ = least - kUnknownPenalty;
    trie_ = ByteTrie(std::move(entries));
    for (size_t byte = 0; byte < 256; ++byte) {
        bytes_[byte] = byte_fallback_ ? names_.id(byte_name(static_cast<unsigned char>(byte))) : -1;
    }
}

class UnigramEncoder final : public ModelEncoder {
  public:
    explicit UnigramEncoder(const UnigramModel& model) : model_(model) {}

    void encode(std::string_view piece, std::vector<int32_t>* tokens) override {
        const bool is_short = piece.size() <= WordCache::kMostBytes;
        if (is_short && cache_.find(piece, tokens)) return;
        find_best_path(piece);
        word_.clear();
        read_path(piece);
        if (is_short) cache_.put(piece, word_);
        tokens->insert(tokens->end(), word_.begin(), word_.end());
    }
    void encode_byte(char byte, std::vector<int32_t>* tokens) override {
        word_.clear();
        add({&byte, 1});
        tokens->insert(tokens->end(), word_.begin(), word_.end());
    }

  private:
    /// The best way from the beginning to a place.
    struct Step {
        double score = 0;
        int32_t token = -1;
        int64_t begin = -1;  ///< Of the last token; -1 if no way leads here.
    };

    void offer(size_t begin, size_t end, double score, int32_t token) {
        Step& step = steps_[end];
        if (step.begin >= 0 && !(score > step.score)) return;
        step = {score, token, static_cast<int64_t>(begin)};
    }

    void find_best_path(std::string_view text) {
        steps_.assign(text.size() + 1, {});
        for (size_t begin = 0, bytes = 0; begin < text.size(); begin += bytes) {
            bytes = utf8_bytes(text[begin]);
            const double score = steps_[begin].score;
            bool has_character = false;
            uint32_t node = ByteTrie::kNone;
            for (size_t end = begin; end < text.size();) {
                node = model_.trie_.child(node, text[end++]);
                if (node == ByteTrie::kNone) break;
                const int32_t token = model_.trie_.value(node);
                if (token < 0) continue;
                offer(begin, end, model_.scores_[static_cast<size_t>(token)] + score, token);
                has_character = has_character || end - begin == bytes;
            }
            if (!has_character) offer(begin, begin + bytes, model_.unknown_score_ + score, model_.unk_);
        }
    }

    /// From the end to the beginning: neighbouring unknown tokens are one text.
    void read_path(std::string_view text) {
        parts_.clear();
        bool was_unknown = false;
        for (size_t end = text.size(); end > 0;) {
            const auto begin = static_cast<size_t>(steps_[end].begin);
            const bool is_unknown = steps_[end].token == model_.unk_;
            if (is_unknown && was_unknown) {
                parts_.back() = text.substr(begin, parts_.back().size() + end - begin);
            } else {
                parts_.push_back(text.substr(begin, end - begin));
            }
            was_unknown = is_unknown;
            end = begin;
        }
        for (size_t i = parts_.size(); i-- > 0;) add(parts_[i]);
    }

    void add(std::string_view part) {
        const int32_t id = model_.names_.id(part);
        if (id >= 0) return word_.push_back(id);
        bool has_bytes = model_.byte_fallback_;
        for (const char c : part) has_bytes = has_bytes && model_.bytes_[static_cast<unsigned char>(c)] >= 0;
        if (has_bytes) {
            for (const char c : part) word_.push_back(model_.bytes_[static_cast<unsigned char>(c)]);
            return;
        }
        if (model_.unk_ < 0) {
            fail("{}: the text has '{}', for which there is no token, and the model has no unk_id", model_.source_,
                 part);
        }
        word_.push_back(model_.unk_);
    }

    const UnigramModel& model_;
    WordCache cache_;
    std::vector<Step> steps_;
    std::vector<std::string_view> parts_;
    std::vector<int32_t> word_;
};

std::unique_ptr<ModelEncoder> UnigramModel::make_encoder(LostText&) const {
    return std::make_unique<UnigramEncoder>(*this);
}

}  // namespace llmc
