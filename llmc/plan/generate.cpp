#include "llmc/plan/generate.h"

#include "llmc/base/check.h"
#include "llmc/model/dropout.h"
#include "llmc/model/trainable.h"
#include "llmc/plan/add_tensor.h"
#include "llmc/plan/communicate.h"
#include "llmc/plan/fuse.h"
#include "llmc/plan/gradients.h"
#include "llmc/plan/host_boundaries.h"
#include "llmc/plan/unpack.h"
#include "llmc/plan/update.h"

#include <algorithm>
#include <utility>

namespace llmc {
namespace {

class Generator {
  public:
    Generator(const Model& model, const PlanRequest& request, const std::string& name)
        : model_(model),
          path_(model),
          request_(request),
          slots_(static_cast<int>(model.activations.size())),
          block_(model.block) {
        plan_.policy = name;
        plan_.shape = request.shape;
        plan_.dtype = request.dtype();
        plan_.parallel = request.parallel;
        plan_.places = request.places;
        live_.assign(static_cast<size_t>(layers()) + 1, std::vector<int32_t>(static_cast<size_t>(slots_), kNone));
    }

    Plan training(const KeepSet& keep) {
        keep_ = keep;
        const bool drops = model_.drops(OpKind::Dropout);
        if (drops || model_.drops(OpKind::AdapterDown)) mask_rows_ = new_input("mask_rows", /*cols=*/2);
        embedding();
        if (drops) drop_embedding();
        for (int layer = 0; layer < layers(); ++layer) {
            if (layer > 0) drop_unkept(layer - 1);
            for (int row = 0; row < rows(); ++row) forward(layer, row, Phase::Forward);
        }
        if (!keep_.keep_last_layer) drop_unkept(layers() - 1);
        head(/*training=*/true);
        for (int layer = layers() - 1; layer >= path_.lowest_layer(); --layer) backward_layer(layer);
        if (path_.reaches(0)) embedding_backward();
        return std::move(plan_);
    }

    Plan evaluation() {
        block_ = block_without_dropout(model_);
        embedding();
        forward_only();
        head(/*training=*/false);
        return std::move(plan_);
    }

    Plan generation(int64_t cache_tokens) {
        block_ = block_without_dropout(model_);
        cache_tokens_ = cache_tokens;
        embedding();
        forward_only();
        final_norm();
        const int32_t logits = new_tensor("logits", -1, plan_.dtype, 1, model_.config.Vp(), Consumer::Logits);
        plan_.tensors[static_cast<size_t>(logits)].output = true;
        classifier_step(Pass::Forward, logits, Slot::In, lnf_out_, kNone, {});
        workspace(request_.workspace.classifier.forward);
        return std::move(plan_);
    }

  private:
    int layers() const { return static_cast<int>(model_.config.L); }
    int rows() const { return static_cast<int>(model_.block.size()); }
    int64_t N() const { return request_.shape.N(); }
    bool rotates(int layer, const OpRow& row) const { return row.rope && model_.config.rotates(layer); }
    const OpRow& block_row(int row) const { return block_[static_cast<size_t>(row)]; }

    // ---- Tensors ----

    int32_t new_tensor(const std::string& name, int layer, DType dtype, int64_t rows, int64_t cols, Consumer consumer) {
        return add_tensor(&plan_, name, layer, dtype, rows, cols, consumer);
    }

    int32_t new_activation(int layer, int slot) {
        const ActivationRow& row = model_.activations[static_cast<size_t>(slot)];
        const bool boundary = row.role == ActivationRole::LayerInput;
        const Consumer consumer = boundary ? Consumer::Boundaries : Consumer::LayerInternals;
        const int32_t id =
            new_tensor(row.name, layer, row.is_stat() ? DType::F32 : plan_.dtype, N(), row.columns, consumer);
        live(layer, slot) = id;
        return id;
    }

    /// The tensor that holds an activation now; kNone if it has to be brought back. The block's output is the next
    /// layer's input; layer L has only that.
    int32_t& live(int layer, int slot) {
        if (slot == kLayerOutput) return live_[static_cast<size_t>(layer) + 1][kLayerInput];
        return live_[static_cast<size_t>(layer)][static_cast<size_t>(slot)];
    }

    int32_t output_tensor(int layer, int slot) {
        return slot == kLayerOutput ? new_activation(layer + 1, kLayerInput) : new_activation(layer, slot);
    }

    // ---- Steps ----

    Step& add_step(OpKind op, Pass pass, Phase phase, int layer, int row) {
        Step step;
        step.op = op, step.pass = pass, step.phase = phase;
        step.layer = static_cast<int16_t>(layer), step.row = static_cast<int16_t>(row);
        plan_.steps.push_back(step);
        return plan_.steps.back();
    }

    void workspace(int64_t bytes) {
        if (bytes == 0) return;
        const int32_t id = new_tensor("workspace", plan_.steps.back().layer, DType::U8, bytes, 1, Consumer::Workspace);
        plan_.steps.back().operand(Slot::Workspace) = id;
    }

    WorkspaceBytes::Row block_workspace(int row) const {
        return request_.workspace.block.empty() ? WorkspaceBytes::Row{}
                                                : request_.workspace.block[static_cast<size_t>(row)];
    }

    void embedding() {
        tokens_ = new_input("tokens");
        add_step(OpKind::Embedding, Pass::Forward, Phase::Forward, -1, -1).operand(Slot::Tokens) = tokens_;
        const int32_t x = new_activation(0, kLayerInput);
        plan_.steps.back().operand(Slot::Out) = x;
        if (!plan_.shape.packed) return;
        documents_ = new_input("documents");
        if (model_.wpe != kNone) plan_.steps.back().operand(Slot::Documents) = documents_;
    }

    /// The stream begins with what dropout leaves of the embedding.
    void drop_embedding() {
        const int32_t embedded = new_tensor("embedded", -1, plan_.dtype, N(), model_.config.C, Consumer::Boundaries);
        const int32_t x = std::exchange(plan_.steps.back().operand(Slot::Out), embedded);
        Step& step = add_step(OpKind::Dropout, Pass::Forward, Phase::Forward, -1, -1);
        step.operand(Slot::In) = embedded;
        step.operand(Slot::Out) = x;
        tell_mask_rows(&step);
    }

    /// What the caller writes, numbers for every token.
    int32_t new_input(const char* name, int64_t cols = 1) {
        const int32_t id = new_tensor(name, -1, DType::I32, N(), cols, Consumer::Inputs);
        plan_.tensors[static_cast<size_t>(id)].external = true;
        return id;
    }

    /// Of packed sequences, to a step that goes by positions or attends.
    void tell_documents(Step* step) const {
        if (step->op == OpKind::Attention || step->rope) step->operand(Slot::Documents) = documents_;
    }

    /// In training, to a step that drops.
    void tell_mask_rows(Step* step) const {
        if (model_.drops(step->op)) step->operand(Slot::MaskRows) = mask_rows_;
    }

    void forward(int layer, int row_index, Phase phase) {
        const OpRow& row = block_row(row_index);
        Step& step = add_step(row.kind, Pass::Forward, phase, layer, row_index);
        step.rope = rotates(layer, row);
        tell_documents(&step);
        tell_mask_rows(&step);
        step.operand(Slot::In) = live(layer, row.in);
        if (row.residual != kNone) step.operand(Slot::Residual) = live(layer, row.residual);
        CHECK(step.operand(Slot::In) != kNone && (row.residual == kNone || step.operand(Slot::Residual) != kNone),
              layer, row.name);
        const int32_t out = step.operand(Slot::Out) = output_tensor(layer, row.out);
        if (facts_of(row.kind).out_replaces_residual) {
            plan_.tensors[static_cast<size_t>(out)].alias = step.operand(Slot::Residual);
            live(layer, row.residual) = kNone;
        }
        if (cache_tokens_ > 0 && row.kind == OpKind::Attention) {
            step.operand(Slot::Stat0) = cache_tensor("k_cache", layer);
            step.operand(Slot::Stat1) = cache_tensor("v_cache", layer);
        } else {
            if (row.stat0 != kNone) step.operand(Slot::Stat0) = new_activation(layer, row.stat0);
            if (row.stat1 != kNone) step.operand(Slot::Stat1) = new_activation(layer, row.stat1);
        }
        workspace(block_workspace(row_index).forward);
    }

    int32_t cache_tensor(const std::string& name, int layer) {
        const int64_t columns = model_.config.NKV * model_.config.HD;
        const int32_t id = new_tensor(name, layer, plan_.dtype, cache_tokens_, columns, Consumer::KeyValueCache);
        plan_.tensors[static_cast<size_t>(id)].external = true;
        plan_.tensors[static_cast<size_t>(id)].output = true;
        return id;
    }

    void forward_only() {
        for (int layer = 0; layer < layers(); ++layer) {
            for (int row = 0; row < rows(); ++row) {
                if (block_row(row).kind != OpKind::Dropout) forward(layer, row, Phase::Forward);
            }
        }
    }

    void final_norm() {
        Step& step = add_step(model_.norm, Pass::Forward, Phase::Head, -1, -1);
        step.operand(Slot::In) = live(layers(), kLayerInput);
        const auto head_tensor = [this](const char* name, DType dtype, int64_t cols) {
            return new_tensor(name, -1, dtype, N(), cols, Consumer::HeadActivations);
        };
        lnf_out_ = step.operand(Slot::Out) = head_tensor("lnf_out", plan_.dtype, model_.config.C);
        if (model_.norm == OpKind::LayerNorm) step.operand(Slot::Stat0) = head_tensor("lnf_mean", DType::F32, 1);
        step.operand(Slot::Stat1) = head_tensor("lnf_rstd", DType::F32, 1);
    }

    /// Rows that count, one after the other from the first on: the rest of the chunks is for nothing.
    void gather_scored() {
        const int32_t rows = new_input("scored_rows");
        Step& step = add_step(OpKind::ScoredRows, Pass::Forward, Phase::Head, -1, -1);
        step.operand(Slot::Rows) = rows;
        step.operand(Slot::In) = lnf_out_;
        head_in_ = new_tensor("scored", -1, plan_.dtype, N(), model_.config.C, Consumer::HeadActivations);
        step.operand(Slot::Out) = head_in_;
    }

    /// Their gradients go back to where they came from. Returns those of all rows.
    int32_t scatter_scored(int32_t d_scored) {
        const int32_t places = new_input("scored_places"), d_all = new_gradient("lnf_out", -1, model_.config.C);
        Step& step = add_step(OpKind::ScoredRows, Pass::Backward, Phase::Head, -1, -1);
        step.operand(Slot::Rows) = places;
        step.operand(Slot::DOut) = d_scored;
        step.operand(Slot::DIn) = d_all;
        return d_all;
    }

    /// Final norm and classifier; for training their backward too, since the classifier makes its gradients at once.
    void head(bool training) {
        final_norm();
        const Step norm = plan_.steps.back();
        head_in_ = lnf_out_;
        if (plan_.shape.partly_scored) gather_scored();
        const int32_t d_head_in = classifier(training);
        if (d_head_in == kNone) return;
        const int32_t d_lnf_out = plan_.shape.partly_scored ? scatter_scored(d_head_in) : d_head_in;

        Step backward = norm;
        backward.pass = Pass::Backward;
        backward.operand(Slot::Out) = kNone;
        backward.operand(Slot::DOut) = d_lnf_out;
        if (path_.reaches(layers())) {
            backward.operand(Slot::DIn) = d_residual_ = new_gradient("residual", -1, model_.config.C);
        }
        plan_.steps.push_back(backward);
        workspace(request_.workspace.final_norm.backward);
    }

    /// Chunk after chunk of tokens: logits, losses and in place the logits' gradient, then the head's gradients. The
    /// gradient of a chunk's input takes the place of the input, which has given its weight gradient by then. Returns
    /// that gradient, all chunks of it; kNone where nothing wants it.
    int32_t classifier(bool training) {
        const int64_t chunk = plan_.logits_chunk_tokens = std::clamp<int64_t>(request_.logits_chunk_tokens, 1, N());
        const int32_t targets = new_input("targets");
        const int32_t losses = new_tensor("losses", -1, DType::F32, N(), 1, Consumer::Inputs);
        plan_.tensors[static_cast<size_t>(losses)].output = true;
        const int32_t logits = new_tensor("logits", -1, plan_.dtype, chunk, model_.config.Vp(), Consumer::Logits);
        const bool norm_trains = model_.trains(model_.lnf_weight) || model_.trains(model_.lnf_bias);
        const bool d_in = training && (norm_trains || path_.reaches(layers()));
        const bool d_weight = training && model_.trains(model_.head);
        const char* name = head_in_ == lnf_out_ ? "lnf_out" : "scored";
        const int32_t d_head_in = d_in ? new_gradient(name, -1, model_.config.C) : kNone;
        if (d_in) plan_.tensors[static_cast<size_t>(d_head_in)].alias = head_in_;
        const WorkspaceBytes::Row& bytes = request_.workspace.classifier;
        const int64_t scratch_bytes = training ? bytes.backward : bytes.forward;
        int32_t scratch = kNone;
        if (scratch_bytes > 0) scratch = new_tensor("workspace", -1, DType::U8, scratch_bytes, 1, Consumer::Workspace);

        for (int64_t first = 0; first < N(); first += chunk) {
            const RowRange rows = {first, std::min(chunk, N() - first)};
            classifier_step(Pass::Forward, logits, Slot::In, head_in_, scratch, rows);
            Step& loss = add_step(OpKind::CrossEntropy, training ? Pass::Backward : Pass::Forward, Phase::Head, -1, -1);
            loss.first_token = rows.first, loss.tokens = rows.count;
            loss.operand(Slot::Logits) = logits;
            loss.operand(Slot::Tokens) = targets;
            loss.operand(Slot::Losses) = losses;
            if (d_weight) classifier_step(Pass::BackwardWeight, logits, Slot::In, head_in_, scratch, rows);
            if (d_in) classifier_step(Pass::BackwardInput, logits, Slot::DIn, d_head_in, scratch, rows);
        }
        Step& sum = add_step(OpKind::LossSum, Pass::Forward, Phase::Head, -1, -1);
        sum.operand(Slot::Losses) = losses;
        // Losses of micro-batches that are reduced one by one are added up in the ranks' own order.
        sum.adds = training && !plan_.parallel.rank_invariant ? Adds::AfterFirst : Adds::Never;
        return d_head_in;
    }

    /// One product with the head, of the rows of `tensor` in `slot`.
    void classifier_step(Pass pass, int32_t logits, Slot slot, int32_t tensor, int32_t scratch, RowRange rows) {
        Step& step = add_step(OpKind::Classifier, pass, Phase::Head, -1, -1);
        step.first_token = rows.first, step.tokens = rows.count;
        step.operand(Slot::Logits) = logits;
        step.operand(slot) = tensor;
        step.operand(Slot::Workspace) = scratch;
    }

    // ---- Backward, and what it needs brought back ----

    int32_t new_gradient(const std::string& of, int layer, int64_t cols) {
        return new_tensor("d_" + of, layer, plan_.dtype, N(), cols, Consumer::Gradients);
    }

    void drop_unkept(int layer) {
        for (int slot = 0; slot < slots_; ++slot) {
            if (!keep_.slots[static_cast<size_t>(layer)][static_cast<size_t>(slot)]) live(layer, slot) = kNone;
        }
    }

    /// Makes an activation live: nothing to do, or its operation again, after what that operation reads.
    void require(int layer, int slot) {
        if (live(layer, slot) != kNone) return;
        if (slot == kLayerInput) return bring_back_input(layer);
        const int row = model_.producer(slot);
        require_inputs(layer, row);
        forward(layer, row, Phase::Recompute);
    }

    void require_inputs(int layer, int row) {
        require(layer, block_row(row).in);
        if (block_row(row).residual != kNone) require(layer, block_row(row).residual);
    }

    /// Walks from the nearest live boundary below. Internals made on the way are given up again; of the boundaries
    /// passed, those in keep_.walk stay.
    void bring_back_input(int target) {
        int from = target - 1;
        while (live(from, kLayerInput) == kNone) --from;  // That of the lowest layer always survives.
        const auto& held = keep_.walk[static_cast<size_t>(target)];
        for (int layer = from; layer < target; ++layer) {
            const std::vector<int32_t> before = live_[static_cast<size_t>(layer)];
            require_inputs(layer, rows() - 1);
            forward(layer, rows() - 1, Phase::Recompute);
            live_[static_cast<size_t>(layer)] = before;
            const bool holds = std::find(held.begin(), held.end(), layer) != held.end();
            if (layer != from && !holds) live(layer, kLayerInput) = kNone;
        }
    }

    void backward_layer(int layer) {
        gradients_.assign(static_cast<size_t>(slots_), kNone);
        for (int row = rows() - 1; row >= 0; --row) backward(layer, row);
    }

    int32_t gradient_of(int slot) const {
        if (slot == kLayerOutput || model_.activations[static_cast<size_t>(slot)].is_residual()) return d_residual_;
        return gradients_[static_cast<size_t>(slot)];
    }

    bool trains(int layer, int operand) const { return model_.trains(model_.parameter_index(layer, operand)); }

    /// What the backward of a row reads in a layer: of a matmul, only what its weight gradient does.
    BackwardReads reads_of(int layer, const OpRow& row) const {
        const OpFacts& facts = facts_of(row.kind);
        const bool weight = trains(layer, row.weight);
        const bool any =
            weight || (!facts.splits_backward && (trains(layer, row.bias) || path_.reaches(layer, row.in)));
        return any ? facts.backward_reads : BackwardReads{};
    }

    void backward(int layer, int row_index) {
        const OpRow& row = block_row(row_index);
        const OpFacts& facts = facts_of(row.kind);
        const bool weight = trains(layer, row.weight), bias = trains(layer, row.bias);
        const bool d_in = path_.reaches(layer, row.in);
        if (facts.out_replaces_residual && gradient_of(row.residual) == kNone) {
            gradients_[static_cast<size_t>(row.residual)] = gradient_of(row.out);  // It is what the output's is.
        }
        if (!weight && !bias && !d_in) return;
        const BackwardReads reads = reads_of(layer, row);
        if (reads.in) require(layer, row.in);
        if (reads.out) require(layer, row.out);
        if (reads.stats && row.stat0 != kNone) require(layer, row.stat0);
        if (reads.stats && row.stat1 != kNone) require(layer, row.stat1);

        bool rope = rotates(layer, row);  // DOut still has to be turned back.
        if (facts.splits_backward && (weight || bias)) {
            Step& step = add_step(row.kind, Pass::BackwardWeight, Phase::Backward, layer, row_index);
            step.rope = std::exchange(rope, false);
            tell_documents(&step);
            tell_mask_rows(&step);
            if (weight) step.operand(Slot::In) = live(layer, row.in);
            step.operand(Slot::DOut) = gradient_of(row.out);
            workspace(block_workspace(row_index).backward);
        }
        if (facts.splits_backward && !d_in) return;
        const Pass pass = facts.splits_backward ? Pass::BackwardInput : Pass::Backward;
        add_step(row.kind, pass, Phase::Backward, layer, row_index);
        const size_t index = plan_.steps.size() - 1;
        Step step = plan_.steps[index];
        step.rope = rope;
        tell_documents(&step);
        tell_mask_rows(&step);
        if (pass == Pass::Backward) {
            if (reads.in) step.operand(Slot::In) = live(layer, row.in);
            if (reads.out) step.operand(Slot::Out) = live(layer, row.out);
            if (reads.stats && row.stat0 != kNone) step.operand(Slot::Stat0) = live(layer, row.stat0);
            if (reads.stats && row.stat1 != kNone) step.operand(Slot::Stat1) = live(layer, row.stat1);
        }
        step.operand(Slot::DOut) = gradient_of(row.out);
        if (d_in) set_input_gradient(layer, row, &step);
        plan_.steps[index] = step;
        workspace(block_workspace(row_index).backward);
    }

    void set_input_gradient(int layer, const OpRow& row, Step* step) {
        const ActivationRow& in = model_.activations[static_cast<size_t>(row.in)];
        if (in.is_residual()) {
            step->accumulate = true;
            step->operand(Slot::DIn) = d_residual_;
            return;
        }
        int32_t& of_slot = gradients_[static_cast<size_t>(row.in)];
        if (of_slot != kNone) {  // Another operation read it, too.
            step->accumulate = true;
            step->operand(Slot::DIn) = of_slot;
            return;
        }
        const DType dtype = in.is_stat() ? DType::F32 : plan_.dtype;
        const int32_t d_in = new_tensor("d_" + in.name, layer, dtype, N(), in.columns, Consumer::Gradients);
        if (facts_of(row.kind).d_in_replaces_d_out) {
            plan_.tensors[static_cast<size_t>(d_in)].alias = step->operand(Slot::DOut);
        }
        of_slot = d_in;
        step->operand(Slot::DIn) = d_in;
    }

    /// Returns the gradient of what was dropped.
    int32_t drop_embedding_backward() {
        const int32_t d_embedded = new_gradient("embedded", -1, model_.config.C);
        Step& step = add_step(OpKind::Dropout, Pass::Backward, Phase::Backward, -1, -1);
        step.operand(Slot::DOut) = d_residual_;
        step.operand(Slot::DIn) = d_embedded;
        tell_mask_rows(&step);
        return d_embedded;
    }

    void embedding_backward() {
        const int32_t d_out = model_.drops(OpKind::Dropout) ? drop_embedding_backward() : d_residual_;
        Step& step = add_step(OpKind::Embedding, Pass::Backward, Phase::Backward, -1, -1);
        step.operand(Slot::DOut) = d_out;
        if (model_.trains(model_.wpe)) step.operand(Slot::Documents) = documents_;
        if (model_.trains(model_.wte)) step.operand(Slot::Tokens) = tokens_;
        // Positions need neither tokens nor, where all sequences have the same, to be sorted.
        const bool sorts = model_.trains(model_.wte) || step.operand(Slot::Documents) != kNone;
        if (sorts) workspace(request_.workspace.embedding.backward);
    }

    const Model& model_;
    const GradientPath path_;
    const PlanRequest& request_;
    const int slots_;
    std::vector<OpRow> block_;  ///< In training the model's; else without dropout.
    KeepSet keep_;
    Plan plan_;
    std::vector<std::vector<int32_t>> live_;  ///< [layer][slot] -> tensor; row L has only the last block's output.
    std::vector<int32_t> gradients_;          ///< Of the layer in its backward, by slot.
    int64_t cache_tokens_ = 0;
    int32_t tokens_ = kNone, documents_ = kNone, mask_rows_ = kNone, lnf_out_ = kNone, head_in_ = kNone,
            d_residual_ = kNone;
};

}  // namespace

Plan make_training_plan(const Model& model, const PlanRequest& request, const KeepSet& keep, const std::string& name) {
    const int lowest = GradientPath(model).lowest_layer();
    CHECK(lowest == model.config.L || keep.slots[static_cast<size_t>(lowest)][kLayerInput],
          "the input of the lowest layer with a backward must survive: nothing below it could bring it back");
    CHECK(keep.host.empty() || !keep.host.back(), "the last layer's input is read before it could be fetched");
    Plan plan = with_unpacking(model, Generator(model, request, name).training(keep));
    plan.update_ahead = request.update_ahead;
    const bool all = request.places.on_host(Buffer::Boundaries);
    if (all || !keep.host.empty()) {
        plan = with_boundaries_on_host(model, std::move(plan), all ? std::vector<bool>() : keep.host);
    }
    plan = with_communication(model, std::move(plan));
    plan = with_update(model, with_gradient_writes(model, std::move(plan)));
    return with_fusion(model, std::move(plan), request.fusions);
}

Plan make_training_plan(const Model& model, const PlanRequest& request, const PolicyRow& policy) {
    return make_training_plan(model, request, policy.function(model), policy.name);
}

Plan make_evaluation_plan(const Model& model, const PlanRequest& request) {
    Plan plan = with_unpacking(model, Generator(model, request, "evaluate").evaluation());
    plan = with_communication(model, std::move(plan));
    return with_fusion(model, std::move(plan), request.fusions);
}

Plan make_generation_plan(const Model& model, const PlanRequest& request, int64_t cache_tokens) {
    CHECK(request.shape.B == 1 && cache_tokens >= request.shape.T, request.shape.B, cache_tokens);
    Plan plan = with_unpacking(model, Generator(model, request, "generate").generation(cache_tokens));
    plan = with_communication(model, std::move(plan));
    return with_fusion(model, std::move(plan), request.fusions);
}

}  // namespace llmc
