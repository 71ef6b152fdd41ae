#include "llmc/train/generation.h"

#include "llmc/base/error.h"
#include "llmc/plan/verify.h"

#include <algorithm>
#include <limits>

namespace llmc {
namespace {

constexpr int64_t kPrefillTokens = 64;

bool has_text(const Tokenizer& tokenizer, int32_t token) {
    try {
        return !tokenizer.token_bytes(token).empty();
    } catch (const Error&) {  // A hole in the vocabulary.
        return false;
    }
}

}  // namespace

GenerationPlan plan_generation(const Model& model, const Places& places, int64_t context, const Backend& backend,
                               const Parallel& parallel) {
    GenerationPlan generation;
    generation.context = context;
    PlanRequest request;
    request.shape = {1, std::min(context, kPrefillTokens)};
    request.places = places;
    const DType dtype = request.dtype();
    request.parallel = parallel;
    request.workspace = workspace_bytes(model, request.shape, dtype, 1, backend);
    // Fewer rows may need another kernel, and so another workspace: take the larger of both ends.
    const WorkspaceBytes one = workspace_bytes(model, {1, 1}, dtype, 1, backend);
    for (size_t row = 0; row < one.block.size(); ++row) {
        int64_t& bytes = request.workspace.block[row].forward;
        bytes = std::max(bytes, one.block[row].forward);
        if (model.block[row].kind == OpKind::Attention) {
            const ModelConfig& config = model.config;
            const AttentionShape shape = {1, request.shape.T, config.NH, config.NKV, config.HD};
            bytes = std::max(bytes, backend.attention_cached_workspace(shape, context));
        }
    }
    request.workspace.classifier.forward = one.classifier.forward;
    generation.plan = make_generation_plan(model, request, context);
    generation.layout = make_layout(generation.plan);
    const std::string fault = find_fault(model, generation.plan, generation.layout);
    CHECK(fault.empty(), fault);
    return generation;
}

int64_t fitting_context(const Model& model, const Places& places, int64_t wanted, int64_t arena_bytes,
                        const Backend& backend, const Parallel& parallel) {
    const auto fits = [&](int64_t context) {
        return plan_generation(model, places, context, backend, parallel).layout.arena_bytes <= arena_bytes;
    };
    int64_t low = 0, high = wanted + 1;  // low fits (0 trivially), high does not, or is not wanted.
    while (low + 1 < high) {
        const int64_t middle = high > wanted ? wanted : (low + high) / 2;
        (fits(middle) ? low : high) = middle;
        if (low == wanted) break;
    }
    return low;
}

TextGenerator::TextGenerator(State& state, GenerationPlan generation, Comm* comm)
    : state_(state),
      comm_(comm),
      generation_(std::move(generation)),
      executor_(state, generation_.plan, generation_.layout, comm) {}

void TextGenerator::feed(std::span<const int32_t> tokens) {
    const int64_t step = generation_.plan.shape.T;
    for (size_t first = 0; first < tokens.size(); first += static_cast<size_t>(step)) {
        const auto rows = std::min<int64_t>(step, static_cast<int64_t>(tokens.size() - first));
        Tensor ids = executor_.tokens();
        ids.shape[0] = rows;
        state_.backend().copy_to_device(ids, tokens.data() + first);
        executor_.run({.rows = rows, .first_position = position_});
        position_ += rows;
    }
}

void TextGenerator::draw_only_tokens_of(const Tokenizer& tokenizer) {
    without_text_.clear();
    if (tokenizer.vocab_size() == 0) return;
    for (int32_t token = 0; token < state_.model().config.V; ++token) {
        if (token >= tokenizer.vocab_size() || !has_text(tokenizer, token)) without_text_.push_back(token);
    }
}

void TextGenerator::read_logits() {
    if (comm_ != nullptr) comm_->synchronize();
    const Tensor logits = executor_.logits();
    const int64_t V = state_.model().config.V;
    logits_.resize(static_cast<size_t>(V));
    if (logits.dtype == DType::F32) {
        state_.backend().copy_to_host(logits_.data(), Tensor(DType::F32, logits.data, V));
    } else {
        std::vector<bf16> rounded(static_cast<size_t>(V));
        state_.backend().copy_to_host(rounded.data(), Tensor(DType::BF16, logits.data, V));
        std::transform(rounded.begin(), rounded.end(), logits_.begin(), [](bf16 value) { return to_float(value); });
    }
    for (const int32_t token : without_text_) {
        logits_[static_cast<size_t>(token)] = -std::numeric_limits<float>::infinity();
    }
}

void TextGenerator::generate(std::span<const int32_t> prompt, int64_t length, const SamplerSettings& settings,
                             uint32_t text, const std::function<void(int32_t token)>& emit,
                             const std::function<bool(int32_t token)>& ends) {
    CHECK(!prompt.empty());
    const int64_t context = generation_.context;
    std::vector<int32_t> history(prompt.begin(), prompt.end());
    position_ = 0;
    // Positions beyond the context are dropped from the left; a prompt may fill all but one.
    const auto window = [&](int64_t tokens) {
        const auto size = std::min<int64_t>(tokens, static_cast<int64_t>(history.size()));
        return std::span<const int32_t>(history).last(static_cast<size_t>(std::max<int64_t>(1, size)));
    };
    feed(window(context));
    for (int64_t i = 0; i < length; ++i) {
        read_logits();
        const int32_t token = sample_token(logits_, settings, text, static_cast<uint64_t>(i));
        if (token < 0) fail("the model's output is no number; its weights are damaged, or its training diverged");
        history.push_back(token);
        emit(token);
        if (i + 1 == length || ends(token)) break;
        if (position_ == context) {
            position_ = 0;
            feed(window(context / 2));
        } else {
            feed(window(1));
        }
    }
}

}  // namespace llmc
