#include "llmc/io/token_file.h"
#include "llmc/io/token_source.h"
#include "llmc/train/data_loader.h"
#include "tests/io/temp_dir.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

namespace llmc {
namespace {

/// A source whose token at position i is i, so that a batch shows what was read.
class Counting final : public TokenSource {
  public:
    explicit Counting(int64_t size) : size_(size) {}
    int64_t size() const override { return size_; }
    void read(int64_t position, std::span<int32_t> out) const override {
        for (auto& token : out) token = static_cast<int32_t>(position++);
    }
    std::string where(int64_t position) const override { return "'numbers' at token " + std::to_string(position); }
    int32_t vocab_size() const override { return 1 << 30; }
    int32_t end_of_text() const override { return 0; }
    std::string tokenizer() const override { return "none"; }
    std::string describe() const override { return "numbers"; }

  private:
    int64_t size_;
};

constexpr int32_t kAnyToken = 1 << 30;

TEST(ShuffledOrder, AnEpochIsDisjointAndFits) {
    for (const int64_t T : {1, 3, 8}) {
        for (const int64_t size : {T + 1, 2 * T, 2 * T + 1, 3 * T + 2, 100 * T + 5}) {
            const int64_t per_epoch = sequences_per_epoch(size, T);
            ASSERT_GE(per_epoch, 1);
            const SequenceOrder order = shuffled_order(size, T, 7);
            for (int64_t epoch = 0; epoch < 5; ++epoch) {
                std::set<int64_t> starts;
                for (int64_t i = 0; i < per_epoch; ++i) starts.insert(order(epoch * per_epoch + i));
                ASSERT_EQ(static_cast<int64_t>(starts.size()), per_epoch);
                EXPECT_GE(*starts.begin(), 0);
                EXPECT_LE(*starts.rbegin() + T + 1, size);
                for (const int64_t start : starts) EXPECT_EQ((start - *starts.begin()) % T, 0);
            }
        }
    }
}

TEST(ShuffledOrder, EpochsAndSeedsDiffer) {
    constexpr int64_t kSize = 5000, T = 16;
    const int64_t per_epoch = sequences_per_epoch(kSize, T);
    std::set<int64_t> phases;
    std::set<std::vector<int64_t>> orders;
    for (const uint64_t seed : {1, 2}) {
        const SequenceOrder order = shuffled_order(kSize, T, seed);
        for (int64_t epoch = 0; epoch < 10; ++epoch) {
            std::vector<int64_t> starts;
            for (int64_t i = 0; i < per_epoch; ++i) starts.push_back(order(epoch * per_epoch + i));
            phases.insert(*std::min_element(starts.begin(), starts.end()));
            for (auto& start : starts) start /= T;
            orders.insert(starts);
            EXPECT_FALSE(std::is_sorted(starts.begin(), starts.end()));
        }
    }
    EXPECT_GE(phases.size(), 8u);  // of 20 draws from 24 phases, more than 8 differ but for bad luck the seeds lack
    EXPECT_EQ(orders.size(), 20u);
}

TEST(ShuffledOrder, EveryTokenIsSeenSooner) {
    constexpr int64_t kSize = 103, T = 10;
    const SequenceOrder order = shuffled_order(kSize, T, 3);
    std::vector<int> seen(kSize, 0);
    for (int64_t i = 0; i < 300; ++i) {
        const int64_t start = order(i);
        for (int64_t t = start; t <= start + T; ++t) ++seen[static_cast<size_t>(t)];
    }
    EXPECT_GT(*std::min_element(seen.begin(), seen.end()), 0);
}

TEST(SpreadOrder, CoversTheRangeEvenlyAndRepeats) {
    const SequenceOrder order = spread_order(1001, 10, 5);
    EXPECT_EQ(order(0), 0);
    EXPECT_EQ(order(1), 247);
    EXPECT_EQ(order(2), 495);
    EXPECT_EQ(order(4), 990);
    EXPECT_EQ(order(5), order(0));
    EXPECT_EQ(spread_order(11, 10, 3)(2), 0);
    EXPECT_EQ(spread_order(1000, 10, 1)(0), 0);
    constexpr int64_t kHuge = int64_t{1} << 60;
    EXPECT_EQ(spread_order(kHuge, 1024, 1 << 20)((1 << 20) - 1), kHuge - 1025);
}

TEST(DataLoader, TargetsAreTheNextTokens) {
    const Counting source(1000);
    const StreamSequences sequences(TokenRange(source, 100, 800), 7, kAnyToken, shuffled_order(800, 7, 5), 1);
    DataLoader loader(sequences, 3);
    const SequenceOrder order = shuffled_order(800, 7, 5);
    for (int64_t s = 0; s < 200; ++s) {
        const Batch& batch = loader.next();
        ASSERT_EQ(batch.first_sequence, 3 * s);
        ASSERT_EQ(batch.tokens.size(), 21u);
        ASSERT_EQ(batch.targets.size(), 21u);
        for (int64_t b = 0; b < 3; ++b) {
            for (int64_t t = 0; t < 7; ++t) {
                const auto i = static_cast<size_t>(b * 7 + t);
                ASSERT_EQ(batch.tokens[i], 100 + order(3 * s + b) + t);
                ASSERT_EQ(batch.targets[i], batch.tokens[i] + 1);
            }
        }
    }
    EXPECT_EQ(loader.position(), 600);
}

TEST(DataLoader, SeekReachesAnyPosition) {
    const Counting source(10'000);
    const SequenceOrder order = shuffled_order(10'000, 16, 1);
    const StreamSequences of_straight(TokenRange(source), 16, kAnyToken, order, 1);
    DataLoader straight(of_straight, 4);
    std::vector<std::vector<int32_t>> batches;
    for (int s = 0; s < 400; ++s) batches.push_back(straight.next().tokens);
    const StreamSequences of_jumping(TokenRange(source), 16, kAnyToken, order, 1);
    DataLoader jumping(of_jumping, 4);
    for (const int64_t s : {399, 0, 17, 18, 200}) {
        jumping.seek(4 * s);
        EXPECT_EQ(jumping.position(), 4 * s);
        EXPECT_EQ(jumping.next().tokens, batches[static_cast<size_t>(s)]);
    }
    EXPECT_EQ(jumping.next().tokens, batches[201]);
}

TEST(DataLoader, TheStreamDoesNotDependOnTheBatchSize) {
    const Counting source(3000);
    std::vector<std::vector<int32_t>> streams;
    for (const int64_t B : {1, 2, 3, 12}) {
        const StreamSequences sequences(TokenRange(source), 9, kAnyToken, shuffled_order(3000, 9, 2), 1);
        DataLoader loader(sequences, B);
        std::vector<int32_t> stream;
        while (loader.position() < 720) {
            const Batch& batch = loader.next();
            stream.insert(stream.end(), batch.tokens.begin(), batch.tokens.end());
        }
        streams.push_back(stream);
    }
    for (const auto& stream : streams) EXPECT_EQ(stream, streams[0]);
}

TEST(DataLoader, TheShortestRangeWorks) {
    const Counting source(6);
    const StreamSequences sequences(TokenRange(source), 5, 6, shuffled_order(6, 5, 0), 1);
    DataLoader loader(sequences, 2);
    for (int s = 0; s < 3; ++s) EXPECT_EQ(loader.next().targets, (std::vector<int32_t>{1, 2, 3, 4, 5, 1, 2, 3, 4, 5}));
}

TEST(DataLoader, SequencesOfAMillionTokens) {
    constexpr int64_t kTokens = 1 << 20;
    const Counting source(5 * kTokens + 1);
    const SequenceOrder order = shuffled_order(source.size(), kTokens, 3);
    const StreamSequences sequences(TokenRange(source), kTokens, kAnyToken, order, 1);
    DataLoader loader(sequences, 1);
    for (int64_t s = 0; s < 3; ++s) {
        const Batch& batch = loader.next();
        ASSERT_EQ(batch.tokens.size(), static_cast<size_t>(kTokens));
        EXPECT_EQ(batch.tokens.front(), order(s));
        EXPECT_EQ(batch.tokens.back(), order(s) + kTokens - 1);
        EXPECT_EQ(batch.targets.back(), order(s) + kTokens);
    }
}

TEST(DataLoader, ATokenBeyondTheVocabularyIsNamed) {
    const TempDir dir;
    TokenShardWriter writer(dir / "x_train", kGpt2Tokens, 50);
    std::vector<int32_t> tokens(100, 3);
    tokens[77] = 300;
    writer.append(tokens);
    writer.close();
    const auto source = open_token_source(dir / "*.bin", "--data");
    const StreamSequences sequences(TokenRange(*source), 9, 300, spread_order(100, 9, 10), 1);
    DataLoader loader(sequences, 1);
    for (int s = 0; s < 7; ++s) loader.next();
    for (int turn = 0; turn < 2; ++turn) {
        EXPECT_TRUE(has(error_of([&] { loader.next(); }),
                        {"token 300", "x_train_000001.bin' at token 27", "vocabulary is 300", "--vocab-size=301"}));
        EXPECT_EQ(loader.position(), 7);
    }
    loader.seek(0);
    EXPECT_EQ(loader.next().tokens, std::vector<int32_t>(9, 3));
}

TEST(DataLoader, IdsBeyondInt32AreOutOfRangeToo) {
    const TempDir dir;
    std::string bytes(kTokenFileHeaderBytes, '\0');
    const int32_t fields[] = {kLlama3Tokens.magic, kLlama3Tokens.version, 4};
    std::copy_n(reinterpret_cast<const char*>(fields), sizeof fields, bytes.begin());
    const auto source = open_token_source(dir.write("x.bin", bytes + std::string(16, '\xff')), "--data");
    const StreamSequences sequences(TokenRange(*source), 3, 128256, spread_order(4, 3, 1), 1);
    DataLoader loader(sequences, 1);
    EXPECT_TRUE(has(error_of([&] { loader.next(); }), {"token 4294967295", "at token 0"}));
}

TEST(DataLoader, MayBeDestroyedWhilePrefetching) {
    const Counting source(100'000);
    for (int turn = 0; turn < 20; ++turn) {
        const StreamSequences sequences(TokenRange(source), 512, kAnyToken, shuffled_order(100'000, 512, 0), 1);
        DataLoader loader(sequences, 8);
        loader.next();
    }
}

}  // namespace
}  // namespace llmc
