#include "llmc/run/executor.h"

#include "llmc/base/error.h"
#include "llmc/plan/simulate.h"

#include <algorithm>

namespace llmc {

struct Executor::Views {
    Tensor in, residual, out, stat0, stat1, d_out, d_in, tokens, logits, losses, workspace;
    Tensor weight, bias, d_weight, d_bias;
};

Executor::Executor(State& state, const Plan& plan, const Layout& layout, Comm* comm)
    : state_(state),
      backend_(state.backend()),
      model_(state.model()),
      plan_(plan),
      layout_(layout),
      rows_(plan.shape.N()),
      comm_(comm),
      copies_(plan.tensors.size()),
      gathers_(plan.tensors.size()),
      reductions_(plan.partition.buckets.size()) {
    CHECK(plan.partition.buckets.empty() || comm != nullptr, "a plan that communicates");
    state.reserve_host(plan.host_bytes);
    for (const Step& step : plan.steps) {
        if (step.op == OpKind::Embedding && step.pass == Pass::Forward) tokens_ = step.operand(Slot::Tokens);
        if (step.op == OpKind::Classifier) {
            targets_ = step.operand(Slot::Tokens);
            losses_ = step.operand(Slot::Losses);
            logits_ = step.operand(Slot::Logits);
        }
    }
}

Executor::~Executor() { backend_.forget(this); }

/// A view of the arena. Tensors with one row per token shrink to the rows of this run.
Tensor Executor::tensor(int32_t id) const {
    if (id < 0) return {};
    const PlanTensor& tensor = plan_.tensors[static_cast<size_t>(id)];
    const Consumer consumer = tensor.consumer;
    const bool other_rows = consumer == Consumer::KeyValueCache || consumer == Consumer::Workspace ||
                            consumer == Consumer::GatheredParameters || consumer == Consumer::BucketGradients ||
                            consumer == Consumer::Communication;
    const bool per_token = tensor.rows == plan_.shape.N() && !other_rows;
    const int64_t rows = per_token ? rows_ : tensor.rows;
    return {tensor.dtype, state_.arena() + layout_.offsets[static_cast<size_t>(id)], rows, tensor.cols};
}

Tensor Executor::touched(int32_t id) {
    if (id < 0) return {};
    const int64_t end = layout_.offsets[static_cast<size_t>(id)] + plan_.tensors[static_cast<size_t>(id)].bytes;
    high_water_bytes_ = std::max(high_water_bytes_, end);
    return tensor(id);
}

void Executor::run(const RunArguments& arguments, std::vector<double>* seconds) {
    const bool same = arguments.loss_scale == arguments_.loss_scale && arguments.rows == arguments_.rows &&
                      arguments.first_position == arguments_.first_position &&
                      arguments.loss_sum.data == arguments_.loss_sum.data;
    if (!same) backend_.forget(this);
    // The first walk may load kernels, which no recording likes; nor does it like other libraries' streams.
    const bool repeats = same && has_run_ && !communicates(arguments);
    has_run_ = true;
    arguments_ = arguments;
    rows_ = arguments.rows > 0 ? arguments.rows : plan_.shape.N();
    CHECK(rows_ <= plan_.shape.N(), rows_, plan_.shape.N());
    if (seconds != nullptr) return run_timed(seconds);
    const auto walk = [this] {
        for (const Step& step : plan_.steps) run_named(step);
    };
    repeats ? backend_.repeat(this, walk) : walk();
}

void Executor::run_timed(std::vector<double>* seconds) {
    std::vector<TimeMark> marks = {backend_.mark()};
    for (const Step& step : plan_.steps) {
        run_named(step);
        marks.push_back(backend_.mark());
    }
    seconds->clear();
    for (size_t i = 1; i < marks.size(); ++i) {
        seconds->push_back(backend_.seconds_between(marks[i - 1], marks[i]));
    }
}

const OpRow* Executor::row_of(const Step& step) const {
    return step.row >= 0 ? &model_.block[static_cast<size_t>(step.row)] : nullptr;
}

/// A device's failure says in which operation.
void Executor::run_named(const Step& step) {
    try {
        run_step(step);
    } catch (const Error& error) {
        throw Error(error.exit_code(), fmt::format("{}: {}", describe_step(model_, step), error.what()));
    }
}

void Executor::run_copy(const Step& step) {
    const int32_t in = step.operand(Slot::In), out = step.operand(Slot::Out);
    CopyTicket& copy = copies_[static_cast<size_t>(in >= 0 ? in : out)];
    switch (step.kind) {
        case StepKind::CopyOut: copy = backend_.copy_out(state_.host() + step.host_offset, touched(in)); return;
        case StepKind::Fetch: copy = backend_.copy_in(touched(out), state_.host() + step.host_offset); return;
        case StepKind::WaitCopyOut:
        case StepKind::WaitFetch: return backend_.wait_copy(copy);
        default: break;
    }
    CHECK(false, "no copy");
}

bool Executor::communicates(const RunArguments& arguments) const {
    return std::any_of(plan_.steps.begin(), plan_.steps.end(), [&](const Step& step) {
        return step.kind == StepKind::Gather || (step.kind == StepKind::Reduce && arguments.reduces);
    });
}

/// This rank's piece of a tensor that holds a bucket.
Tensor Executor::own_piece(const Tensor& bucket_tensor) const {
    const int64_t piece = bucket_tensor.count() / plan_.parallel.ranks;
    return Tensor(bucket_tensor.dtype, bucket_tensor.data, plan_.parallel.ranks, piece).row_range(state_.rank(), 1);
}

/// Gradients have a tensor of the plan only where they are not kept whole; their sum is then added to what is kept.
void Executor::run_communication(const Step& step) {
    const Tensor parameters = touched(step.operand(Slot::Parameters));
    const Tensor gradients = touched(step.operand(Slot::ParameterGradients));
    const Tensor workspace = touched(step.operand(Slot::Workspace));
    const int bucket = step.bucket;
    CHECK(arguments_.reduces || !gradients, "gradients that are kept nowhere");
    switch (step.kind) {
        case StepKind::ZeroGradients: return backend_.zero(gradients);
        case StepKind::Gather: {
            const Tensor mine = own_piece(parameters);
            backend_.convert(Tensor(mine.dtype, mine.data, mine.count()), state_.own_parameters(bucket));
            CommTicket& gather = gathers_[static_cast<size_t>(step.operand(Slot::Parameters))];
            gather = comm_->begin_all_gather(parameters);
            overlaps_ ? void(++under_way_) : comm_->wait(gather);
            return;
        }
        case StepKind::WaitGather:
            if (!overlaps_) return;
            --under_way_;
            return comm_->wait(gathers_[static_cast<size_t>(step.operand(Slot::Parameters))]);
        case StepKind::Reduce: {
            if (!arguments_.reduces) return;
            const Tensor whole = gradients ? gradients : state_.bucket_gradients(bucket);
            CommTicket& reduction = reductions_[static_cast<size_t>(bucket)];
            reduction = comm_->begin_reduce_scatter(whole, workspace);
            overlaps_ ? void(++under_way_) : comm_->wait(reduction);
            return;
        }
        case StepKind::WaitReduce: {
            if (!arguments_.reduces) return;
            if (overlaps_) {
                --under_way_;
                comm_->wait(reductions_[static_cast<size_t>(bucket)]);
            }
            if (!gradients) return;
            const Tensor mine = own_piece(gradients);
            return backend_.add(state_.own_gradients(bucket), Tensor(mine.dtype, mine.data, mine.count()));
        }
        case StepKind::Share: {
            if (!arguments_.reduces) return;
            CommTicket& share = reductions_[static_cast<size_t>(bucket)];
            share = comm_->begin_all_gather(state_.bucket_gradients(bucket));
            overlaps_ ? void(++under_way_) : comm_->wait(share);
            return;
        }
        case StepKind::WaitShare:
            if (!arguments_.reduces || !overlaps_) return;
            --under_way_;
            return comm_->wait(reductions_[static_cast<size_t>(bucket)]);
        default: break;
    }
    CHECK(false, "no communication");
}

Tensor Executor::row_of_bucket(const Tensor& bucket_tensor, int index) const {
    const ParameterRow& row = model_.parameters[static_cast<size_t>(index)];
    char* first = static_cast<char*>(bucket_tensor.data) +
                  plan_.partition.row_in_bucket(model_, index) * size_of(bucket_tensor.dtype);
    return {bucket_tensor.dtype, first, row.rows, row.cols};
}

Tensor Executor::parameter(const Step& step, int index) {
    const Tensor gathered = touched(step.operand(Slot::Parameters));
    if (index == kNone) return {};
    if (gathered) return row_of_bucket(gathered, index);
    // A weight that the step does not read may be nowhere.
    return state_.parallel().zero == 3 ? Tensor() : state_.parameter(index);
}

Tensor Executor::gradient(const Step& step, int index) {
    const Tensor bucket = touched(step.operand(Slot::ParameterGradients));
    if (index == kNone) return {};
    if (bucket) return row_of_bucket(bucket, index);
    return state_.parallel().zero >= 2 ? Tensor() : state_.gradient(index);
}

void Executor::run_step(const Step& step) {
    if (step.is_communication()) return run_communication(step);
    if (under_way_ > 0) comm_->progress();
    if (step.kind != StepKind::Compute) return run_copy(step);
    Views v;
    v.in = touched(step.operand(Slot::In));
    v.residual = touched(step.operand(Slot::Residual));
    v.out = touched(step.operand(Slot::Out));
    v.stat0 = touched(step.operand(Slot::Stat0));
    v.stat1 = touched(step.operand(Slot::Stat1));
    v.d_out = touched(step.operand(Slot::DOut));
    v.d_in = touched(step.operand(Slot::DIn));
    v.tokens = touched(step.operand(Slot::Tokens));
    v.logits = touched(step.operand(Slot::Logits));
    v.losses = touched(step.operand(Slot::Losses));
    v.workspace = touched(step.operand(Slot::Workspace));

    int weight = kNone, bias = kNone;
    if (const OpRow* row = row_of(step)) {
        weight = model_.parameter_index(step.layer, row->weight);
        bias = model_.parameter_index(step.layer, row->bias);
    } else {
        weight = step.op == OpKind::Embedding    ? model_.wte
                 : step.op == OpKind::Classifier ? model_.head
                                                 : model_.lnf_weight;
        bias = step.op == OpKind::Embedding ? model_.wpe : step.op == OpKind::Classifier ? kNone : model_.lnf_bias;
    }
    v.weight = parameter(step, weight);
    v.bias = parameter(step, bias);
    v.d_weight = gradient(step, weight);
    v.d_bias = gradient(step, bias);

    if (step.op == OpKind::Classifier) return run_classifier(v);
    step.pass == Pass::Forward ? run_forward(step, v) : run_backward(step, v);
}

namespace {

AttentionShape attention_shape(const Model& model, const Plan& plan, int64_t rows) {
    const ModelConfig& config = model.config;
    const bool whole = rows == plan.shape.N();
    return {whole ? plan.shape.B : 1, whole ? plan.shape.T : rows, config.NH, config.NKV, config.HD};
}

}  // namespace

void Executor::run_forward(const Step& step, const Views& v) {
    const AttentionShape shape = attention_shape(model_, plan_, rows_);
    const auto epsilon = static_cast<float>(model_.config.norm_epsilon);
    const int64_t first = arguments_.first_position;
    switch (step.op) {
        case OpKind::Embedding: return backend_.embedding_forward(v.out, v.tokens, v.weight, v.bias, shape.T, first);
        case OpKind::LayerNorm:
            return backend_.layernorm_forward(v.out, v.stat0, v.stat1, v.in, v.weight, v.bias, epsilon);
        case OpKind::RmsNorm: return backend_.rmsnorm_forward(v.out, v.stat1, v.in, v.weight, epsilon);
        case OpKind::Matmul:
            backend_.matmul_forward(v.out, v.in, v.weight, v.bias, v.residual, v.workspace);
            if (step.rope) backend_.rope(v.out, state_.rope_table(), shape, first, /*inverse=*/false);
            return;
        case OpKind::Attention:
            if (v.stat1) return backend_.attention_cached(v.out, v.stat0, v.stat1, v.in, shape, first);
            return backend_.attention_forward(v.out, v.stat0, v.in, shape, v.workspace);
        case OpKind::Gelu: return backend_.gelu_forward(v.out, v.in);
        case OpKind::Swiglu: return backend_.swiglu_forward(v.out, v.in);
        case OpKind::Classifier: break;
    }
    CHECK(false, "no forward", name_of(step.op));
}

void Executor::run_backward(const Step& step, const Views& v) {
    const AttentionShape shape = attention_shape(model_, plan_, rows_);
    switch (step.op) {
        case OpKind::Embedding:
            return backend_.embedding_backward(v.d_weight, v.d_bias, v.d_out, v.tokens, shape.T, v.workspace);
        case OpKind::LayerNorm:
            return backend_.layernorm_backward(v.d_in, step.accumulate, v.d_weight, v.d_bias, v.d_out, v.in, v.stat0,
                                               v.stat1, v.weight, v.workspace);
        case OpKind::RmsNorm:
            return backend_.rmsnorm_backward(v.d_in, step.accumulate, v.d_weight, v.d_out, v.in, v.stat1, v.weight,
                                             v.workspace);
        case OpKind::Matmul:
            if (step.pass == Pass::BackwardInput) {
                return backend_.matmul_backward_input(v.d_in, v.d_out, v.weight, v.workspace);
            }
            if (step.rope) backend_.rope(v.d_out, state_.rope_table(), shape, 0, /*inverse=*/true);
            return backend_.matmul_backward_weight(v.d_weight, v.d_bias, v.d_out, v.in, v.workspace);
        case OpKind::Attention:
            return backend_.attention_backward(v.d_in, v.d_out, v.in, v.out, v.stat0, shape, v.workspace);
        case OpKind::Gelu: return backend_.gelu_backward(v.d_in, v.d_out, v.in);
        case OpKind::Swiglu: return backend_.swiglu_backward(v.d_in, v.d_out, v.in);
        case OpKind::Classifier: break;
    }
    CHECK(false, "no backward", name_of(step.op));
}

/// The head in chunks of tokens: logits, loss and their gradient in place, then weight and input gradients. The input
/// gradient of a chunk replaces the chunk's input, so it comes last.
void Executor::run_classifier(const Views& v) {
    if (!v.losses) {  // Generation: the last token's logits.
        const Tensor last = v.in.row_range(v.in.shape[0] - 1, 1);
        return backend_.matmul_forward(v.logits, last, v.weight, {}, {}, v.workspace);
    }
    const int64_t rows = v.in.shape[0];
    for (int64_t first = 0; first < rows; first += plan_.logits_chunk_tokens) {
        const int64_t count = std::min(plan_.logits_chunk_tokens, rows - first);
        const Tensor h = v.in.row_range(first, count);
        const Tensor logits = v.logits.row_range(0, count);
        const Tensor losses = v.losses.row_range(first, count);
        backend_.matmul_forward(logits, h, v.weight, {}, {}, v.workspace);
        backend_.cross_entropy(losses, logits, v.tokens.row_range(first, count), model_.config.V,
                               v.d_in ? arguments_.loss_scale : 0.0f);
        if (!v.d_in) continue;
        backend_.matmul_backward_weight(v.d_weight, {}, logits, h, v.workspace);
        backend_.matmul_backward_input(v.d_in.row_range(first, count), logits, v.weight, v.workspace);
    }
    if (arguments_.loss_sum) backend_.accumulate_loss(arguments_.loss_sum, v.losses);
}

}  // namespace llmc
