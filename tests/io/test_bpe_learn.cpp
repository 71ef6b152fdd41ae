#include "llmc/io/bpe_alphabet.h"
#include "llmc/io/bpe_learn.h"
#include "llmc/io/pipeline/pipeline_files.h"
#include "tests/io/tokenizer_testing.h"

#include <gtest/gtest.h>

#include <map>
#include <sstream>

namespace llmc {
namespace {

WordCounts count(std::string_view text) {
    WordCounts words;
    words.add_text(text);
    return words;
}

std::string merges_of(const LearnedBpe& bpe) {
    std::string lines;
    for (const auto& [left, right] : bpe.merges) {
        lines += to_alphabet(bpe.tokens[static_cast<size_t>(left)]) + " " +
                 to_alphabet(bpe.tokens[static_cast<size_t>(right)]) + "\n";
    }
    return lines;
}

TEST(LearnBpe, EqualsHuggingFacesTrainer) {
    const std::string wanted = slurp(std::string(kGoldenFolder) + "learned_merges.txt");
    const auto size = 257 + std::count(wanted.begin(), wanted.end(), '\n');
    const LearnedBpe bpe = learn_bpe(count(golden_text()), size);
    EXPECT_EQ(merges_of(bpe), wanted);
    EXPECT_EQ(static_cast<std::ptrdiff_t>(bpe.tokens.size()), size);
    EXPECT_EQ(bpe.tokens.back(), "<|endoftext|>");
}

/// The definition: count all pairs anew for every merge.
LearnedBpe learn_slowly(const WordCounts& words, size_t vocab_size) {
    LearnedBpe bpe = {bytes_in_gpt2_order(), {}};
    std::map<std::string, int32_t> ids;
    for (size_t id = 0; id < 256; ++id) ids[bpe.tokens[id]] = static_cast<int32_t>(id);
    std::vector<std::pair<std::vector<int32_t>, int64_t>> split;
    for (const auto& [word, times] : words.sorted()) {
        split.emplace_back();
        split.back().second = times;
        for (const char c : word) split.back().first.push_back(ids.at(std::string(1, c)));
    }
    while (bpe.tokens.size() + 1 < vocab_size) {
        std::map<std::pair<int32_t, int32_t>, int64_t> pairs;
        for (const auto& [word, times] : split) {
            for (size_t i = 0; i + 1 < word.size(); ++i) pairs[{word[i], word[i + 1]}] += times;
        }
        auto best = pairs.begin();
        for (auto pair = pairs.begin(); pair != pairs.end(); ++pair) {
            if (pair->second > best->second) best = pair;
        }
        if (best == pairs.end() || best->second < 2) break;
        const auto [left, right] = best->first;
        bpe.merges.emplace_back(left, right);
        const std::string text = bpe.tokens[static_cast<size_t>(left)] + bpe.tokens[static_cast<size_t>(right)];
        if (ids.emplace(text, static_cast<int32_t>(bpe.tokens.size())).second) bpe.tokens.push_back(text);
        for (auto& [word, times] : split) {
            std::vector<int32_t> merged;
            for (size_t i = 0; i < word.size(); ++i) {
                const bool joins = i + 1 < word.size() && word[i] == left && word[i + 1] == right;
                merged.push_back(joins ? ids.at(text) : word[i]);
                i += joins ? 1 : 0;
            }
            word = merged;
        }
    }
    bpe.tokens.emplace_back(kEndOfTextName);
    return bpe;
}

TEST(LearnBpe, FollowsTheDefinition) {
    WordCounts words;
    words.add("aaaaaaa", 3);
    words.add("abababab", 5);
    words.add("babab", 2);
    words.add("ccc", 1);
    words.add("aabbaabb", 4);
    for (const int64_t size : {258, 262, 270, 400}) {
        const LearnedBpe bpe = learn_bpe(words, size), slow = learn_slowly(words, static_cast<size_t>(size));
        EXPECT_EQ(bpe.tokens, slow.tokens);
        EXPECT_EQ(bpe.merges, slow.merges);
    }
    const WordCounts text = count(golden_text());
    EXPECT_EQ(learn_bpe(text, 100'000).merges, learn_slowly(text, 100'000).merges);
}

TEST(LearnBpe, NothingToLearn) {
    EXPECT_EQ(learn_bpe(WordCounts(), 1000).tokens.size(), 257u);
    EXPECT_EQ(learn_bpe(count("abcdefg \xff\xff\xff\xff"), 1000).tokens.size(), 257u);
}

TEST(LearnBpe, ItsFilesMakeATokenizer) {
    const TempDir dir;
    const LearnedBpe bpe = learn_bpe(count(golden_text()), 400);
    write_bpe(bpe, dir.path());
    const auto from_json = make_tokenizer(dir / "tokenizer.json"), from_pair = make_tokenizer(dir / "vocab.json");
    const std::vector<int32_t> tokens = from_json->encode(golden_text());
    EXPECT_EQ(from_pair->encode(golden_text()), tokens);
    EXPECT_EQ(from_json->decode(tokens), golden_text());
    EXPECT_LT(tokens.size(), golden_text().size() * 3 / 4);
    for (const auto& tokenizer : {from_json.get(), from_pair.get()}) {
        EXPECT_EQ(tokenizer->vocab_size(), 400);
        EXPECT_EQ(tokenizer->end_of_text(), 399);
        EXPECT_EQ(tokenizer->token_bytes(399), "<|endoftext|>");
        EXPECT_EQ(tokenizer->token_bytes(0), "!");
    }
}

}  // namespace
}  // namespace llmc
