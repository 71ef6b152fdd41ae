#include "llmc/backend/make_backend.h"
#include "llmc/io/hf_model.h"
#include "llmc/train/checkpointing.h"
#include "llmc/train/initial_weights.h"
#include "llmc/train/load_weights.h"
#include "llmc/train/scoring.h"
#include "tests/io/temp_dir.h"

#include <gtest/gtest.h>

#include <cmath>

namespace llmc {
namespace {

/// The golden LLaMA with a scorer of that shape.
class TinyScorer {
  public:
    explicit TinyScorer(BatchShape shape) : weights_("tests/golden/hf/llama"), backend_(make_backend("cpu", 2)) {
        ScoringPlan plan = plan_scoring(weights_.model(), shape, DType::F32, *backend_);
        state_ = std::make_unique<State>(*backend_, weights_.model(), DType::F32, shape.T, plan.layout.arena_bytes,
                                         /*training=*/false);
        load_weights(weights_, *state_);
        scorer_ = std::make_unique<Scorer>(*state_, std::move(plan));
    }
    Scorer& operator*() { return *scorer_; }

    /// Mean loss of `ending` after `context`, from a batch of one row that fits exactly.
    static double loss_of(std::vector<int32_t> context, const std::vector<int32_t>& ending) {
        std::vector<int32_t> targets(context.size() - 1, -1);
        targets.insert(targets.end(), ending.begin(), ending.end());
        context.insert(context.end(), ending.begin(), ending.end() - 1);
        TinyScorer scorer({1, static_cast<int64_t>(context.size())});
        double sum = 0;
        for (const float loss : (*scorer).losses(context, targets)) sum += loss;
        return sum / static_cast<double>(ending.size());
    }

  private:
    HfModel weights_;
    std::unique_ptr<Backend> backend_;
    std::unique_ptr<State> state_;
    std::unique_ptr<Scorer> scorer_;
};

/// Given tokens.
class Numbers final : public TokenSource {
  public:
    explicit Numbers(std::vector<int32_t> tokens) : tokens_(std::move(tokens)) {}
    int64_t size() const override { return static_cast<int64_t>(tokens_.size()); }
    void read(int64_t position, std::span<int32_t> out) const override {
        std::copy_n(tokens_.begin() + position, out.size(), out.begin());
    }
    std::string where(int64_t position) const override { return fmt::format("number {}", position); }
    int32_t vocab_size() const override { return 67; }
    int32_t end_of_text() const override { return 0; }
    std::string tokenizer() const override { return "none"; }
    std::string describe() const override { return "numbers"; }

  private:
    std::vector<int32_t> tokens_;
};

std::vector<int32_t> some_tokens(size_t count) {
    std::vector<int32_t> tokens(count);
    for (size_t i = 0; i < count; ++i) tokens[i] = static_cast<int32_t>(i * i * 7 + 3 * i) % 67;
    return tokens;
}

TEST(ScoreText, PredictsEveryTokenButTheFirstOnceAtAnyBatchSize) {
    constexpr int64_t T = 8;
    for (const size_t size : {2u, 8u, 9u, 10u, 45u}) {
        const std::vector<int32_t> tokens = some_tokens(size);
        double expected = 0;
        for (size_t begin = 0; begin + 1 < size; begin += T) {
            const size_t end = std::min(size, begin + T + 1);
            const std::vector<int32_t> ending(tokens.begin() + static_cast<long>(begin) + 1,
                                              tokens.begin() + static_cast<long>(end));
            expected += TinyScorer::loss_of({tokens[begin]}, ending) * static_cast<double>(ending.size());
        }
        const Numbers source(tokens);
        for (const int64_t B : {1, 3, 16}) {
            TinyScorer scorer({B, T});
            const TextScore score = score_text(*scorer, TokenRange(source), UnknownTokenizer(), "--data");
            EXPECT_EQ(score.tokens, static_cast<int64_t>(size) - 1);
            EXPECT_EQ(score.bytes, 0);
            EXPECT_NEAR(score.nats, expected, 1e-6 * expected) << size << " tokens, batches of " << B;
        }
    }
}

TEST(ScoreText, CountsTheBytesOfText) {
    // Byte ids below 67, with end-of-text nowhere: a byte per token, but for the first, which is not predicted.
    const Numbers source(some_tokens(30));
    TinyScorer scorer({2, 8});
    const TextScore score = score_text(*scorer, TokenRange(source, 3, 20), ByteTokenizer(), "--data");
    EXPECT_EQ(score.tokens, 19);
    EXPECT_EQ(score.bytes, 19);
    EXPECT_DOUBLE_EQ(score.bits_per_byte(), score.bits_per_token());
    EXPECT_NEAR(score.bits_per_token() * std::log(2.0), score.loss(), 1e-12);
    EXPECT_NEAR(std::log(score.perplexity()), score.loss(), 1e-12);
}

TEST(ScoreText, NamesATokenOutsideTheVocabulary) {
    std::vector<int32_t> tokens = some_tokens(30);
    tokens[21] = 67;
    const Numbers source(tokens);
    TinyScorer scorer({2, 8});
    const auto score = [&](TokenRange range) { score_text(*scorer, range, UnknownTokenizer(), "--data"); };
    EXPECT_TRUE(has(error_of([&] { score(TokenRange(source)); }), {"--data", "67", "number 21", "vocabulary is 67"}));
    EXPECT_TRUE(has(error_of([&] { score(TokenRange(source, 0, 1)); }), {"--data", "one token"}));
}

std::vector<HellaswagExample> some_examples() {
    std::vector<HellaswagExample> examples;
    for (int32_t i = 0; i < 7; ++i) {
        HellaswagExample example;
        for (int32_t k = 0; k <= i; ++k) example.context.push_back((5 * i + 11 * k) % 67);
        for (int32_t e = 0; e < 4; ++e) {
            std::vector<int32_t> ending;
            for (int32_t k = 0; k <= (e + i) % 3; ++k) ending.push_back((13 * i + 17 * e + 29 * k) % 67);
            example.endings.push_back(ending);
        }
        example.label = i % 4;
        examples.push_back(example);
    }
    return examples;
}

TEST(ScoreHellaswag, TheLowestMeanLossWinsAtAnyBatchSize) {
    std::vector<HellaswagExample> examples = some_examples();
    EXPECT_EQ(longest_row(examples), 9);
    int64_t correct = 0;
    for (const HellaswagExample& example : examples) {
        std::vector<double> losses;
        for (const auto& ending : example.endings) losses.push_back(TinyScorer::loss_of(example.context, ending));
        correct += std::min_element(losses.begin(), losses.end()) - losses.begin() == example.label;
    }
    for (const int64_t B : {1, 2, 5, 40}) {
        TinyScorer scorer({B, longest_row(examples)});
        const HellaswagScore score = score_hellaswag(*scorer, examples);
        EXPECT_EQ(score.examples, 7);
        EXPECT_EQ(score.correct, correct) << B;
    }
    // With the model's own choices for labels all are right.
    for (HellaswagExample& example : examples) {
        std::vector<double> losses;
        for (const auto& ending : example.endings) losses.push_back(TinyScorer::loss_of(example.context, ending));
        example.label = std::min_element(losses.begin(), losses.end()) - losses.begin();
    }
    TinyScorer scorer({3, 12});
    EXPECT_EQ(score_hellaswag(*scorer, examples).accuracy(), 1.0);
}

}  // namespace
}  // namespace llmc
