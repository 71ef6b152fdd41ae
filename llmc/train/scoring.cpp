#include "llmc/train/scoring.h"

#include "llmc/base/error.h"
#include "llmc/base/log.h"
#include "llmc/base/units.h"
#include "llmc/plan/logits_chunk.h"
#include "llmc/plan/token_blocks.h"
#include "llmc/plan/verify.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>
#include <utility>

namespace llmc {
namespace {

constexpr int32_t kIgnored = -1;

double sum_of(std::span<const float> losses) { return std::accumulate(losses.begin(), losses.end(), 0.0); }

void require_vocabulary_of(const Scorer& scorer, std::span<const int32_t> tokens, int64_t position,
                           const TokenRange& range, const std::string& option) {
    for (size_t i = 0; i < tokens.size(); ++i) {
        if (tokens[i] >= 0 && tokens[i] < scorer.vocab_size()) continue;
        fail("{}: token {} in {}, but the model's vocabulary is {}; give data made for this model's tokenizer", option,
             static_cast<uint32_t>(tokens[i]), range.where(position + static_cast<int64_t>(i)), scorer.vocab_size());
    }
}

/// Lengths of tokens in bytes, looked up once each.
class ByteCounter {
  public:
    explicit ByteCounter(const Tokenizer& tokenizer)
        : tokenizer_(tokenizer), lengths_(static_cast<size_t>(tokenizer.vocab_size()), -1) {}

    int64_t count(std::span<const int32_t> tokens) {
        int64_t bytes = 0;
        for (const int32_t token : tokens) bytes += length(token);
        return bytes;
    }

  private:
    /// End-of-text is no text; nor are ids that only pad the vocabulary.
    int64_t length(int32_t token) {
        if (token == tokenizer_.end_of_text() || static_cast<size_t>(token) >= lengths_.size()) return 0;
        int64_t& known = lengths_[static_cast<size_t>(token)];
        if (known < 0) known = static_cast<int64_t>(tokenizer_.token_bytes(token).size());
        return known;
    }

    const Tokenizer& tokenizer_;
    std::vector<int64_t> lengths_;
};

}  // namespace

ScoringPlan plan_scoring(const Model& model, const BatchShape& shape, DType dtype, const Backend& backend) {
    PlanRequest request;
    request.shape = shape;
    request.places = dtype;
    request.logits_chunk_tokens = default_logits_chunk(model, shape, backend.info().kind);
    request.block_tokens = default_block_tokens(model, shape, backend.info().kind);
    request.workspace =
        workspace_bytes(model, shape, dtype, {request.logits_chunk_tokens, request.block_tokens}, backend);
    ScoringPlan result;
    result.plan = make_evaluation_plan(model, request);
    result.layout = make_layout(result.plan);
    const std::string fault = find_fault(model, result.plan, result.layout);
    CHECK(fault.empty(), fault);
    return result;
}

Scorer::Scorer(State& state, ScoringPlan plan)
    : state_(state), plan_(std::move(plan)), executor_(state, plan_.plan, plan_.layout) {}

std::span<const float> Scorer::losses(std::span<const int32_t> tokens, std::span<const int32_t> targets) {
    const auto N = static_cast<size_t>(shape().N());
    CHECK(tokens.size() == N && targets.size() == N, tokens.size(), targets.size(), N);
    Backend& backend = state_.backend();
    backend.copy_to_device(executor_.tokens(), tokens.data());
    backend.copy_to_device(executor_.targets(), targets.data());
    executor_.run({});
    losses_.resize(N);
    backend.copy_to_host(losses_.data(), executor_.losses());
    return losses_;
}

double TextScore::perplexity() const { return std::exp(loss()); }
double TextScore::bits_per_token() const { return loss() / std::numbers::ln2; }
double TextScore::bits_per_byte() const { return nats / std::numbers::ln2 / static_cast<double>(bytes); }

TextScore score_text(Scorer& scorer, const TokenRange& range, const Tokenizer& tokenizer, const std::string& option) {
    const int64_t B = scorer.shape().B, T = scorer.shape().T;
    if (range.size() < 2) fail("{}: one token is too little to predict anything; give more data", option);
    TextScore score;
    score.tokens = range.size() - 1;
    ProgressBar progress("evaluation", score.tokens);
    ByteCounter bytes(tokenizer);
    std::vector<int32_t> window, tokens(static_cast<size_t>(B * T)), targets(tokens.size());
    const int64_t windows = ceil_div(score.tokens, T);
    for (int64_t first = 0; first < windows; first += B) {
        std::fill(tokens.begin(), tokens.end(), 0);
        std::fill(targets.begin(), targets.end(), kIgnored);
        const int64_t count = std::min(B, windows - first);
        for (int64_t b = 0; b < count; ++b) {
            const int64_t begin = (first + b) * T;
            window.resize(static_cast<size_t>(std::min(T, score.tokens - begin) + 1));
            range.read(begin, window);
            require_vocabulary_of(scorer, window, begin, range, option);
            std::copy(window.begin(), window.end() - 1, tokens.begin() + b * T);
            std::copy(window.begin() + 1, window.end(), targets.begin() + b * T);
            score.bytes += bytes.count(std::span(window).subspan(1));
        }
        const std::span<const float> losses = scorer.losses(tokens, targets);
        for (int64_t b = 0; b < count; ++b) {
            score.nats += sum_of(losses.subspan(static_cast<size_t>(b * T), static_cast<size_t>(T)));
        }
        progress.update(std::min(score.tokens, (first + count) * T));
    }
    return score;
}

namespace {

/// One ending of one example. Its row holds the context and all but the last token of the ending.
struct HellaswagRow {
    const HellaswagExample* example;
    const std::vector<int32_t>* ending;
    int64_t size() const { return static_cast<int64_t>(example->context.size() + ending->size()) - 1; }
};

std::vector<HellaswagRow> rows_of(std::span<const HellaswagExample> examples) {
    std::vector<HellaswagRow> rows;
    for (const HellaswagExample& example : examples) {
        for (const auto& ending : example.endings) rows.push_back({&example, &ending});
    }
    return rows;
}

}  // namespace

int64_t longest_row(std::span<const HellaswagExample> examples) {
    int64_t longest = 0;
    for (const HellaswagRow& row : rows_of(examples)) longest = std::max(longest, row.size());
    return longest;
}

HellaswagScore score_hellaswag(Scorer& scorer, std::span<const HellaswagExample> examples) {
    const int64_t B = scorer.shape().B, T = scorer.shape().T;
    const std::vector<HellaswagRow> rows = rows_of(examples);
    const auto count = static_cast<int64_t>(rows.size());
    ProgressBar progress("HellaSwag", count);
    std::vector<double> row_losses;
    std::vector<int32_t> tokens(static_cast<size_t>(B * T)), targets(tokens.size());
    for (int64_t first = 0; first < count; first += B) {
        std::fill(tokens.begin(), tokens.end(), 0);
        std::fill(targets.begin(), targets.end(), kIgnored);
        const auto batch =
            std::span(rows).subspan(static_cast<size_t>(first), static_cast<size_t>(std::min(B, count - first)));
        for (size_t b = 0; b < batch.size(); ++b) {
            const auto& context = batch[b].example->context;
            const auto& ending = *batch[b].ending;
            CHECK(batch[b].size() <= T, batch[b].size(), T);
            const auto start = static_cast<std::ptrdiff_t>(b) * T;
            const auto row = std::copy(context.begin(), context.end(), tokens.begin() + start);
            std::copy(ending.begin(), ending.end() - 1, row);
            std::copy(ending.begin(), ending.end(),
                      targets.begin() + start + static_cast<std::ptrdiff_t>(context.size()) - 1);
        }
        const std::span<const float> losses = scorer.losses(tokens, targets);
        for (size_t b = 0; b < batch.size(); ++b) {
            const double sum = sum_of(losses.subspan(b * static_cast<size_t>(T), static_cast<size_t>(T)));
            row_losses.push_back(sum / static_cast<double>(batch[b].ending->size()));
        }
        progress.update(first + static_cast<int64_t>(batch.size()));
    }
    HellaswagScore score;
    auto losses = row_losses.begin();
    for (const HellaswagExample& example : examples) {
        const auto end = losses + static_cast<std::ptrdiff_t>(example.endings.size());
        score.correct += std::min_element(losses, end) - losses == example.label ? 1 : 0;
        ++score.examples;
        losses = end;
    }
    return score;
}

}  // namespace llmc
