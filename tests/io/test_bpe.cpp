#include "llmc/io/bpe.h"
#include "llmc/io/bpe_alphabet.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <random>
#include <set>
#include <string>
#include <vector>

namespace llmc {
namespace {

using Tokens = std::vector<int32_t>;

/// The definition, word for word.
Tokens merge_slowly(const BpeMerges& merges, Tokens tokens) {
    for (;;) {
        size_t best = tokens.size();
        int32_t rank = BpeMerges::kNoRank;
        for (size_t i = 0; i + 1 < tokens.size(); ++i) {
            const int32_t here = merges.find(tokens[i], tokens[i + 1]).rank;
            if (here < rank) rank = here, best = i;
        }
        if (best == tokens.size()) return tokens;
        tokens[best] = merges.find(tokens[best], tokens[best + 1]).token;
        tokens.erase(tokens.begin() + static_cast<std::ptrdiff_t>(best) + 1);
    }
}

/// Random merges, in which a later one may have a lower rank than the ones it builds on.
BpeMerges random_merges(std::mt19937& random, int count) {
    BpeMerges merges;
    std::vector<int32_t> ranks(static_cast<size_t>(count));
    for (int i = 0; i < count; ++i) ranks[static_cast<size_t>(i)] = i;
    std::shuffle(ranks.begin(), ranks.end(), random);
    std::set<std::pair<int32_t, int32_t>> pairs;
    for (int32_t i = 0; i < count; ++i) {
        std::uniform_int_distribution<int32_t> token(0, 3 + i / 4);
        const std::pair<int32_t, int32_t> pair = {token(random), token(random)};
        if (pairs.insert(pair).second) merges.set(pair.first, pair.second, {ranks[static_cast<size_t>(i)], 4 + i});
    }
    return merges;
}

TEST(BpeMerges, FindsWhatWasSet) {
    BpeMerges merges;
    for (int32_t i = 0; i < 10000; ++i) merges.set(i, 7 * i, {i, i + 1});
    merges.set(5, 35, {77, 78});
    EXPECT_EQ(merges.size(), 10000u);
    EXPECT_EQ(merges.find(9999, 7 * 9999).token, 10000);
    EXPECT_EQ(merges.find(5, 35).rank, 77);
    EXPECT_EQ(merges.find(5, 36).rank, BpeMerges::kNoRank);
}

TEST(WordMerger, FollowsTheDefinition) {
    std::mt19937 random(1);
    WordMerger merger;
    for (int round = 0; round < 200; ++round) {
        const BpeMerges merges = random_merges(random, 60);
        Tokens word(std::uniform_int_distribution<size_t>(0, round % 2 == 0 ? 48 : 300)(random));
        for (int32_t& token : word) token = static_cast<int32_t>(random() % 4);
        Tokens merged = word;
        merger.merge(merges, &merged);
        ASSERT_EQ(merged, merge_slowly(merges, word)) << "round " << round;
    }
}

TEST(WordMerger, LongWordsAreNotQuadratic) {
    BpeMerges merges;
    for (int32_t i = 0; i < 20; ++i) merges.set(i, i, {i, i + 1});
    Tokens word(size_t{1} << 20, 0);
    const auto begin = std::chrono::steady_clock::now();
    WordMerger().merge(merges, &word);
    EXPECT_EQ(word, Tokens{20});
    // A quadratic merger would need minutes.
    EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(20));
}

TEST(BpeAlphabet, EveryByteHasACharacter) {
    const std::vector<std::string> bytes = bytes_in_gpt2_order();
    ASSERT_EQ(bytes.size(), 256u);
    EXPECT_EQ(bytes[0], "!");
    EXPECT_EQ(bytes[188], std::string(1, '\0'));
    EXPECT_EQ(bytes[220], " ");
    std::string all, back;
    for (const std::string& byte : bytes) all += byte;
    EXPECT_TRUE(from_alphabet(to_alphabet(all), &back));
    EXPECT_EQ(back, all);
    EXPECT_EQ(to_alphabet(" the\n"), "\u0120the\u010a");
    EXPECT_FALSE(from_alphabet("a b", &back));
    EXPECT_FALSE(from_alphabet("\u4e2d", &back));
}

}  // namespace
}  // namespace llmc
