#include "llmc/plan/generate_head.h"

#include <algorithm>

namespace llmc {
namespace {

class Head {
  public:
    explicit Head(PlanBuilder* builder) : builder_(*builder), model_(builder->model), plan_(builder->plan) {}

    void final_norm(int32_t x) {
        Step& step = builder_.add_step(model_.norm, Pass::Forward, Phase::Head, -1, -1);
        step.operand(Slot::In) = x;
        const auto head_tensor = [this](const char* name, DType dtype, int64_t cols) {
            return builder_.new_tensor(name, -1, dtype, builder_.N(), cols, Consumer::HeadActivations);
        };
        lnf_out_ = step.operand(Slot::Out) = head_tensor("lnf_out", plan_.dtype, model_.config.C);
        if (model_.norm == OpKind::LayerNorm) step.operand(Slot::Stat0) = head_tensor("lnf_mean", DType::F32, 1);
        step.operand(Slot::Stat1) = head_tensor("lnf_rstd", DType::F32, 1);
    }

    int32_t all(int32_t x, bool training) {
        final_norm(x);
        const Step norm = plan_.steps.back();
        head_in_ = lnf_out_;
        if (plan_.shape.partly_scored) gather_scored();
        const int32_t d_head_in = classifier(training);
        if (d_head_in == kNone) return kNone;
        const int32_t d_lnf_out = plan_.shape.partly_scored ? scatter_scored(d_head_in) : d_head_in;

        Step backward = norm;
        backward.pass = Pass::Backward;
        backward.operand(Slot::Out) = kNone;
        backward.operand(Slot::DOut) = d_lnf_out;
        int32_t d_x = kNone;
        if (builder_.path.reaches(builder_.layers())) {
            backward.operand(Slot::DIn) = d_x = builder_.new_gradient("residual", -1, model_.config.C);
        }
        plan_.steps.push_back(backward);
        builder_.add_workspace(builder_.request.workspace.final_norm.backward);
        return d_x;
    }

    void generation(int32_t x) {
        final_norm(x);
        const int32_t logits = builder_.new_tensor("logits", -1, plan_.dtype, 1, model_.config.Vp(), Consumer::Logits);
        builder_.tensor(logits).output = true;
        classifier_step(Pass::Forward, logits, Slot::In, lnf_out_, kNone, {});
        builder_.add_workspace(builder_.request.workspace.classifier.forward);
    }

  private:
    /// Rows that count, one after the other from the first on: the rest of the chunks is for nothing.
    void gather_scored() {
        const int32_t rows = builder_.new_input("scored_rows");
        Step& step = builder_.add_step(OpKind::ScoredRows, Pass::Forward, Phase::Head, -1, -1);
        step.operand(Slot::Rows) = rows;
        step.operand(Slot::In) = lnf_out_;
        head_in_ =
            builder_.new_tensor("scored", -1, plan_.dtype, builder_.N(), model_.config.C, Consumer::HeadActivations);
        step.operand(Slot::Out) = head_in_;
    }

    /// Their gradients go back to where they came from. Returns those of all rows.
    int32_t scatter_scored(int32_t d_scored) {
        const int32_t places = builder_.new_input("scored_places");
        const int32_t d_all = builder_.new_gradient("lnf_out", -1, model_.config.C);
        Step& step = builder_.add_step(OpKind::ScoredRows, Pass::Backward, Phase::Head, -1, -1);
        step.operand(Slot::Rows) = places;
        step.operand(Slot::DOut) = d_scored;
        step.operand(Slot::DIn) = d_all;
        return d_all;
    }

    /// Chunk after chunk of tokens: logits, losses and in place the logits' gradient, then the head's gradients. The
    /// gradient of a chunk's input takes the place of the input, which has given its weight gradient by then. Returns
    /// that gradient, all chunks of it; kNone where nothing wants it.
    int32_t classifier(bool training) {
        const int64_t N = builder_.N();
        const int64_t chunk = plan_.logits_chunk_tokens =
            std::clamp<int64_t>(builder_.request.logits_chunk_tokens, 1, N);
        const int32_t targets = builder_.new_input("targets");
        const int32_t losses = builder_.new_tensor("losses", -1, DType::F32, N, 1, Consumer::Inputs);
        builder_.tensor(losses).output = true;
        const int32_t logits =
            builder_.new_tensor("logits", -1, plan_.dtype, chunk, model_.config.Vp(), Consumer::Logits);
        const bool norm_trains = model_.trains(model_.lnf_weight) || model_.trains(model_.lnf_bias);
        const bool d_in = training && (norm_trains || builder_.path.reaches(builder_.layers()));
        const bool d_weight = training && model_.trains(model_.head);
        const char* name = head_in_ == lnf_out_ ? "lnf_out" : "scored";
        const int32_t d_head_in = d_in ? builder_.new_gradient(name, -1, model_.config.C) : kNone;
        if (d_in) builder_.tensor(d_head_in).alias = head_in_;
        const WorkspaceBytes::Row& bytes = builder_.request.workspace.classifier;
        const int64_t scratch_bytes = training ? bytes.backward : bytes.forward;
        int32_t scratch = kNone;
        if (scratch_bytes > 0) {
            scratch = builder_.new_tensor("workspace", -1, DType::U8, scratch_bytes, 1, Consumer::Workspace);
        }

        for (int64_t first = 0; first < N; first += chunk) {
            const RowRange rows = {first, std::min(chunk, N - first)};
            classifier_step(Pass::Forward, logits, Slot::In, head_in_, scratch, rows);
            Step& loss =
                builder_.add_step(OpKind::CrossEntropy, training ? Pass::Backward : Pass::Forward, Phase::Head, -1, -1);
            loss.first_token = rows.first, loss.tokens = rows.count;
            loss.operand(Slot::Logits) = logits;
            loss.operand(Slot::Tokens) = targets;
            loss.operand(Slot::Losses) = losses;
            if (d_weight) classifier_step(Pass::BackwardWeight, logits, Slot::In, head_in_, scratch, rows);
            if (d_in) classifier_step(Pass::BackwardInput, logits, Slot::DIn, d_head_in, scratch, rows);
        }
        Step& sum = builder_.add_step(OpKind::LossSum, Pass::Forward, Phase::Head, -1, -1);
        sum.operand(Slot::Losses) = losses;
        // Losses of micro-batches that are reduced one by one are added up in the ranks' own order.
        sum.adds = training && !plan_.parallel.rank_invariant ? Adds::AfterFirst : Adds::Never;
        return d_head_in;
    }

    /// One product with the head, of the rows of `tensor` in `slot`.
    void classifier_step(Pass pass, int32_t logits, Slot slot, int32_t tensor, int32_t scratch, RowRange rows) {
        Step& step = builder_.add_step(OpKind::Classifier, pass, Phase::Head, -1, -1);
        step.first_token = rows.first, step.tokens = rows.count;
        step.operand(Slot::Logits) = logits;
        step.operand(slot) = tensor;
        step.operand(Slot::Workspace) = scratch;
    }

    PlanBuilder& builder_;
    const Model& model_;
    Plan& plan_;
    int32_t lnf_out_ = kNone, head_in_ = kNone;
};

}  // namespace

int32_t add_head(PlanBuilder* builder, int32_t x, bool training) { return Head(builder).all(x, training); }

void add_generation_head(PlanBuilder* builder, int32_t x) { Head(builder).generation(x); }

}  // namespace llmc
