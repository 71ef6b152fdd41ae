#include "llmc/io/bpe_learn.h"

#include "llmc/base/check.h"
#include "llmc/base/file.h"
#include "llmc/base/log.h"
#include "llmc/io/bpe_alphabet.h"
#include "llmc/io/pipeline/pipeline_files.h"
#include "llmc/io/pipeline/pre_tokenizer.h"
#include "llmc/io/pipeline/unicode.h"

#define XXH_INLINE_ALL
#include <nlohmann/json.hpp>
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <queue>

namespace llmc {
namespace {

constexpr ByteLevelSettings kGpt2Words = {/*add_prefix_space=*/false, /*use_regex=*/true, /*spell=*/false};

}  // namespace

void WordCounts::add_text(std::string_view text) {
    class Counter final : public PieceSink {
      public:
        explicit Counter(WordCounts& counts) : counts_(counts) {}
        void take(Piece piece) override { counts_.add(piece.text, 1); }

      private:
        WordCounts& counts_;
    };
    static const std::unique_ptr<PreTokenizer> kWords = make_byte_level(kGpt2Words);
    Counter counter(*this);
    const std::unique_ptr<PieceSink> words = kWords->connect(counter);
    while (!text.empty()) {
        const std::string_view valid = text.substr(0, valid_utf8_prefix(text));
        if (!valid.empty()) words->take({valid, false});
        text.remove_prefix(std::min(valid.size() + 1, text.size()));
    }
}

void WordCounts::add(std::string_view word, int64_t count) {
    const auto known = counts_.find(word);
    if (known != counts_.end()) {
        known->second += count;
    } else {
        counts_.emplace(word, count);
    }
}

void WordCounts::add(const WordCounts& other) {
    for (const auto& [word, count] : other.counts_) add(word, count);
}

std::vector<std::pair<std::string_view, int64_t>> WordCounts::sorted() const {
    std::vector<std::pair<std::string_view, int64_t>> words(counts_.begin(), counts_.end());
    std::sort(words.begin(), words.end());
    return words;
}

size_t WordCounts::Hash::operator()(std::string_view text) const { return XXH3_64bits(text.data(), text.size()); }

namespace {

using Pair = std::pair<int32_t, int32_t>;

/// The words as they stand after the merges so far, and where each pair of neighbours occurs.
class Learner {
  public:
    Learner(const WordCounts& words, std::vector<std::string> bytes) : tokens_(std::move(bytes)) {
        std::array<int32_t, 256> id_of_byte{};
        for (size_t id = 0; id < tokens_.size(); ++id) {
            id_of_byte[static_cast<unsigned char>(tokens_[id][0])] = static_cast<int32_t>(id);
            ids_.emplace(tokens_[id], static_cast<int32_t>(id));
        }
        for (const auto& [text, count] : words.sorted()) {
            if (text.size() < 2) continue;
            Word word = {{}, count};
            for (const char c : text) word.tokens.push_back(id_of_byte[static_cast<unsigned char>(c)]);
            words_.push_back(std::move(word));
        }
        for (size_t i = 0; i < words_.size(); ++i) count_pairs(i, +1);
        offer_changed();
    }

    /// Merges the most frequent pair. False if none occurs twice.
    bool step() {
        while (!candidates_.empty()) {
            Candidate best = candidates_.top();
            candidates_.pop();
            const Occurrences& now = pairs_[best.pair];
            if (now.count != best.count) {  // Offered again with what it has now, if that is anything.
                best.count = now.count;
                if (best.count > 0) candidates_.push(best);
                continue;
            }
            if (best.count < 2) return false;
            merge(best.pair);
            return true;
        }
        return false;
    }
    size_t token_count() const { return tokens_.size(); }
    LearnedBpe result() && { return {std::move(tokens_), std::move(merges_)}; }

  private:
    struct Word {
        std::vector<int32_t> tokens;
        int64_t count;
    };
    struct Occurrences {
        int64_t count = 0;
        std::vector<uint32_t> words;  ///< Words that have, or had, the pair; some more than once.
        bool changed = false;
    };
    struct Candidate {
        int64_t count;
        Pair pair;
        bool operator<(const Candidate& other) const {
            return count != other.count ? count < other.count : pair > other.pair;
        }
    };
    struct PairHash {
        size_t operator()(const Pair& pair) const {
            const uint64_t key = uint64_t{static_cast<uint32_t>(pair.first)} << 32 | static_cast<uint32_t>(pair.second);
            return (key ^ key >> 29) * 0x9E3779B97F4A7C15u >> 16;
        }
    };

    /// Counts the pairs of a word in, or with sign -1 out.
    void count_pairs(size_t index, int sign) {
        const Word& word = words_[index];
        for (size_t i = 0; i + 1 < word.tokens.size(); ++i) {
            const Pair pair = {word.tokens[i], word.tokens[i + 1]};
            Occurrences& found = pairs_[pair];
            found.count += sign * word.count;
            if (sign < 0) continue;
            if (found.words.empty() || found.words.back() != index) found.words.push_back(static_cast<uint32_t>(index));
            if (!found.changed) changed_.push_back(pair);
            found.changed = true;
        }
    }

    /// Makes candidates of the pairs that may have become more frequent.
    void offer_changed() {
        for (const Pair& pair : changed_) {
            Occurrences& found = pairs_[pair];
            found.changed = false;
            if (found.count > 0) candidates_.push({found.count, pair});
        }
        changed_.clear();
    }

    void merge(const Pair& pair) {
        merges_.push_back(pair);
        const std::string text = tokens_[static_cast<size_t>(pair.first)] + tokens_[static_cast<size_t>(pair.second)];
        const auto [entry, is_new] = ids_.emplace(text, static_cast<int32_t>(tokens_.size()));
        const int32_t merged = entry->second;
        if (is_new) tokens_.push_back(text);
        const std::vector<uint32_t> words = std::move(pairs_[pair].words);
        pairs_[pair].words.clear();
        for (const uint32_t index : words) {
            std::vector<int32_t>& tokens = words_[index].tokens;
            const std::array<int32_t, 2> both = {pair.first, pair.second};
            if (std::search(tokens.begin(), tokens.end(), both.begin(), both.end()) == tokens.end()) continue;
            count_pairs(index, -1);
            size_t kept = 0;
            for (size_t i = 0; i < tokens.size(); ++i) {
                const bool joins = i + 1 < tokens.size() && Pair(tokens[i], tokens[i + 1]) == pair;
                tokens[kept++] = joins ? merged : tokens[i];
                i += joins ? 1 : 0;
            }
            tokens.resize(kept);
            count_pairs(index, +1);
        }
        offer_changed();
    }

    std::vector<std::string> tokens_;
    std::unordered_map<std::string, int32_t> ids_;
    std::vector<Pair> merges_;
    std::vector<Word> words_;
    std::unordered_map<Pair, Occurrences, PairHash> pairs_;
    std::vector<Pair> changed_;
    std::priority_queue<Candidate> candidates_;
};

}  // namespace

LearnedBpe learn_bpe(const WordCounts& words, int64_t vocab_size) {
    CHECK(vocab_size > 256, vocab_size);
    Learner learner(words, bytes_in_gpt2_order());
    ProgressBar progress("learning", vocab_size);
    while (static_cast<int64_t>(learner.token_count()) + 1 < vocab_size && learner.step()) {
        progress.update(static_cast<int64_t>(learner.token_count()));
    }
    LearnedBpe bpe = std::move(learner).result();
    bpe.tokens.emplace_back(kEndOfTextName);
    return bpe;
}

namespace {

using OrderedJson = nlohmann::ordered_json;

}  // namespace

void write_bpe(const LearnedBpe& bpe, const std::string& folder) {
    OrderedJson vocab = OrderedJson::object();  // Filled as the list it is: its [] would search it all every time.
    auto& entries = vocab.get_ref<OrderedJson::object_t&>();
    for (size_t id = 0; id < bpe.tokens.size(); ++id) entries.emplace_back(to_alphabet(bpe.tokens[id]), id);
    std::string merges = "#version: 0.2\n";
    OrderedJson merge_list = OrderedJson::array();
    for (const auto& [left, right] : bpe.merges) {
        const std::string line = to_alphabet(bpe.tokens[static_cast<size_t>(left)]) + " " +
                                 to_alphabet(bpe.tokens[static_cast<size_t>(right)]);
        merges += line + "\n";
        merge_list.push_back(line);
    }
    const OrderedJson byte_level = {
        {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}};
    const OrderedJson end_of_text = {{"id", bpe.tokens.size() - 1},
                                     {"content", kEndOfTextName},
                                     {"single_word", false},
                                     {"lstrip", false},
                                     {"rstrip", false},
                                     {"normalized", false},
                                     {"special", true}};
    const OrderedJson tokenizer = {{"version", "1.0"},
                                   {"truncation", nullptr},
                                   {"padding", nullptr},
                                   {"added_tokens", OrderedJson::array({end_of_text})},
                                   {"normalizer", nullptr},
                                   {"pre_tokenizer", byte_level},
                                   {"post_processor", byte_level},
                                   {"decoder", byte_level},
                                   {"model",
                                    {{"type", "BPE"},
                                     {"dropout", nullptr},
                                     {"unk_token", nullptr},
                                     {"continuing_subword_prefix", nullptr},
                                     {"end_of_word_suffix", nullptr},
                                     {"fuse_unk", false},
                                     {"byte_fallback", false},
                                     {"ignore_merges", false},
                                     {"vocab", vocab},
                                     {"merges", merge_list}}}};
    const OrderedJson config = {{"tokenizer_class", "PreTrainedTokenizerFast"},
                                {"bos_token", kEndOfTextName},
                                {"eos_token", kEndOfTextName},
                                {"unk_token", kEndOfTextName},
                                {"clean_up_tokenization_spaces", false}};
    write_text_atomically(folder + "/vocab.json", vocab.dump() + "\n");
    write_text_atomically(folder + "/merges.txt", merges);
    write_text_atomically(folder + "/tokenizer.json", tokenizer.dump() + "\n");
    write_text_atomically(folder + "/tokenizer_config.json", config.dump(2) + "\n");
}

}  // namespace llmc
