#include "llmc/plan/generate.h"

#include "llmc/base/check.h"
#include "llmc/base/units.h"
#include "llmc/model/dropout.h"
#include "llmc/plan/communicate.h"
#include "llmc/plan/fuse.h"
#include "llmc/plan/generate_head.h"
#include "llmc/plan/gradients.h"
#include "llmc/plan/host_boundaries.h"
#include "llmc/plan/plan_builder.h"
#include "llmc/plan/tiles.h"
#include "llmc/plan/unpack.h"
#include "llmc/plan/update.h"

#include <algorithm>
#include <map>
#include <utility>

namespace llmc {
namespace {

class Generator {
  public:
    Generator(const Model& model, const PlanRequest& request, const std::string& name, bool drops)
        : builder_(model, request, name),
          plan_(builder_.plan),
          model_(model),
          request_(request),
          slots_(static_cast<int>(model.activations.size())),
          block_(drops ? model.block : block_without_dropout(model)),
          tiling_(block_, request.shape.N(), request.tile_tokens) {
        plan_.tile_tokens = tiling_.tile_tokens();
        live_.assign(static_cast<size_t>(layers()) + 1, std::vector<int32_t>(static_cast<size_t>(slots_), kNone));
        whole_.assign(static_cast<size_t>(layers()), tiling_.whole_slots(slots_, {}));
    }

    Plan training(const KeepSet& keep) {
        keep_ = keep;
        for (size_t layer = 0; layer < whole_.size(); ++layer) {
            whole_[layer] = tiling_.whole_slots(slots_, keep_.slots[layer]);
        }
        const bool drops = model_.drops(OpKind::Dropout);
        if (drops || model_.drops(OpKind::AdapterDown)) mask_rows_ = builder_.new_input("mask_rows", /*cols=*/2);
        embedding();
        if (drops) drop_embedding();
        for (int layer = 0; layer < layers(); ++layer) {
            if (layer > 0) drop_unkept(layer - 1);
            forward_layer(layer);
        }
        if (!keep_.keep_last_layer) drop_unkept(layers() - 1);
        d_residual_ = add_head(&builder_, live(layers(), kLayerInput), /*training=*/true);
        for (int layer = layers() - 1; layer >= path_.lowest_layer(); --layer) backward_layer(layer);
        if (path_.reaches(0)) embedding_backward();
        return std::move(plan_);
    }

    Plan evaluation() {
        embedding();
        for (int layer = 0; layer < layers(); ++layer) forward_layer(layer);
        add_head(&builder_, live(layers(), kLayerInput), /*training=*/false);
        return std::move(plan_);
    }

    Plan generation(int64_t cache_tokens) {
        cache_tokens_ = cache_tokens;
        embedding();
        for (int layer = 0; layer < layers(); ++layer) forward_layer(layer);
        add_generation_head(&builder_, live(layers(), kLayerInput));
        return std::move(plan_);
    }

  private:
    int layers() const { return builder_.layers(); }
    int rows() const { return static_cast<int>(model_.block.size()); }
    int64_t N() const { return builder_.N(); }
    bool rotates(int layer, const OpRow& row) const { return row.rope && model_.config.rotates(layer); }
    const OpRow& block_row(int row) const { return block_[static_cast<size_t>(row)]; }

    // ---- Tensors ----

    /// Whether an activation has all tokens, and not those of a tile.
    bool is_whole(int layer, int slot) const {
        return slot == kLayerOutput || slot == kLayerInput ||
               whole_[static_cast<size_t>(layer)][static_cast<size_t>(slot)];
    }

    /// In the first of a group's tiles a new tensor; in the others the same one, of which they write other rows, or the
    /// same rows for other tokens.
    int32_t layer_tensor(const std::string& name, int layer, DType dtype, int64_t cols, bool whole, Consumer consumer) {
        const auto made = made_.find(name);
        if (tile_.count > 0 && made != made_.end()) return made->second;
        const int64_t rows = whole ? N() : tiling_.tile_tokens();
        const int32_t id = builder_.new_tensor(name, layer, dtype, rows, cols, consumer);
        builder_.tensor(id).is_tile = !whole;
        if (tile_.count > 0) made_[name] = id;
        return id;
    }

    int32_t new_activation(int layer, int slot) {
        const ActivationRow& row = model_.activations[static_cast<size_t>(slot)];
        const bool boundary = row.role == ActivationRole::LayerInput;
        const Consumer consumer = boundary ? Consumer::Boundaries : Consumer::LayerInternals;
        const DType dtype = row.is_stat() ? DType::F32 : plan_.dtype;
        const bool whole = is_whole(layer, tiling_.place_of(slot));
        return live(layer, slot) = layer_tensor(row.name, layer, dtype, row.columns, whole, consumer);
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

    /// Of a layer: of the tile at hand.
    Step& add_step(OpKind op, Pass pass, Phase phase, int layer, int row) {
        Step& step = builder_.add_step(op, pass, phase, layer, row);
        step.first_token = tile_.first, step.tokens = tile_.count;
        return step;
    }

    /// Of the last step; the steps of a group of tiles share one.
    void workspace(int64_t bytes) {
        if (tile_.count == 0 || bytes == 0 || workspace_ == kNone) {
            const int32_t id = builder_.add_workspace(bytes);
            if (tile_.count > 0 && bytes > 0) workspace_ = id;
            return;
        }
        PlanTensor& shared = builder_.tensor(workspace_);
        if (bytes > shared.rows) shared.rows = bytes, shared.bytes = round_up(bytes, kPlanAlignment);
        plan_.steps.back().operand(Slot::Workspace) = workspace_;
    }

    WorkspaceBytes::Row block_workspace(int row) const {
        return request_.workspace.block.empty() ? WorkspaceBytes::Row{}
                                                : request_.workspace.block[static_cast<size_t>(row)];
    }

    /// Tile after tile of a group of rows. What a tile leaves in tensors of a tile is gone after it, and what was there
    /// of all tokens before the first is what the next reads, even if the tile has brought its own part back again.
    template <typename Body>
    void for_each_tile(int layer, const RowGroup& group, Body body) {
        if (!group.is_tiled) return body();
        CHECK(tile_.count == 0, "tiles inside a tile", layer);
        made_.clear();
        workspace_ = kNone;
        const std::vector<int32_t> before = live_[static_cast<size_t>(layer)];
        for (const RowRange& tile : tiling_.tiles(group)) {
            tile_ = tile;
            body();
            for (int slot = 0; slot < slots_; ++slot) {
                const int32_t whole = before[static_cast<size_t>(slot)];
                if (!is_whole(layer, slot)) live(layer, slot) = kNone;
                if (is_whole(layer, slot) && whole != kNone) live(layer, slot) = whole;
            }
        }
        tile_ = {};
    }

    void embedding() {
        tokens_ = builder_.new_input("tokens");
        add_step(OpKind::Embedding, Pass::Forward, Phase::Forward, -1, -1).operand(Slot::Tokens) = tokens_;
        const int32_t x = new_activation(0, kLayerInput);
        plan_.steps.back().operand(Slot::Out) = x;
        if (!plan_.shape.packed) return;
        documents_ = builder_.new_input("documents");
        if (model_.wpe != kNone) plan_.steps.back().operand(Slot::Documents) = documents_;
    }

    /// The stream begins with what dropout leaves of the embedding.
    void drop_embedding() {
        const int32_t embedded =
            builder_.new_tensor("embedded", -1, plan_.dtype, N(), model_.config.C, Consumer::Boundaries);
        const int32_t x = std::exchange(plan_.steps.back().operand(Slot::Out), embedded);
        Step& step = add_step(OpKind::Dropout, Pass::Forward, Phase::Forward, -1, -1);
        step.operand(Slot::In) = embedded;
        step.operand(Slot::Out) = x;
        tell_mask_rows(&step);
    }

    /// Of packed sequences, to a step that goes by positions or attends.
    void tell_documents(Step* step) const {
        if (step->op == OpKind::Attention || step->rope) step->operand(Slot::Documents) = documents_;
    }

    /// In training, to a step that drops.
    void tell_mask_rows(Step* step) const {
        if (model_.drops(step->op)) step->operand(Slot::MaskRows) = mask_rows_;
    }

    void forward_layer(int layer) {
        const bool drops = !keep_.slots.empty();
        for (const RowGroup& group : tiling_.groups()) {
            for_each_tile(layer, group, [&] {
                for (int row = group.first; row <= group.last; ++row) {
                    if (drops || block_row(row).kind != OpKind::Dropout) forward(layer, row, Phase::Forward);
                }
            });
        }
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
        const int32_t id =
            builder_.new_tensor(name, layer, plan_.dtype, cache_tokens_, columns, Consumer::KeyValueCache);
        plan_.tensors[static_cast<size_t>(id)].external = true;
        plan_.tensors[static_cast<size_t>(id)].output = true;
        return id;
    }

    // ---- Backward, and what it needs brought back ----

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
        if (is_whole(layer, slot)) return run_again(layer, row);
        require_inputs(layer, row);
        forward(layer, row, Phase::Recompute);
    }

    void require_inputs(int layer, int row) {
        require(layer, block_row(row).in);
        if (block_row(row).residual != kNone) require(layer, block_row(row).residual);
    }

    /// An operation again whose output has all tokens.
    void run_again(int layer, int row) {
        require_whole_inputs(layer, row);
        for_each_tile(layer, tiling_.group_of(row), [&] {
            require_inputs(layer, row);
            forward(layer, row, Phase::Recompute);
        });
    }

    /// Of what an operation reads, and of what brings that back, tensors of all tokens.
    void require_whole_inputs(int layer, int row) {
        require_whole(layer, block_row(row).in);
        if (block_row(row).residual != kNone) require_whole(layer, block_row(row).residual);
    }

    void require_whole(int layer, int slot) {
        if (live(layer, slot) != kNone) return;
        is_whole(layer, slot) ? require(layer, slot) : require_whole_inputs(layer, model_.producer(slot));
    }

    /// Walks from the nearest live boundary below. Internals made on the way are given up again; of the boundaries
    /// passed, those in keep_.walk stay.
    void bring_back_input(int target) {
        int from = target - 1;
        while (live(from, kLayerInput) == kNone) --from;  // That of the lowest layer always survives.
        const auto& held = keep_.walk[static_cast<size_t>(target)];
        for (int layer = from; layer < target; ++layer) {
            const std::vector<int32_t> before = live_[static_cast<size_t>(layer)];
            run_again(layer, rows() - 1);
            live_[static_cast<size_t>(layer)] = before;
            const bool holds = std::find(held.begin(), held.end(), layer) != held.end();
            if (layer != from && !holds) live(layer, kLayerInput) = kNone;
        }
    }

    void backward_layer(int layer) {
        gradients_.assign(static_cast<size_t>(slots_), kNone);
        for (auto group = tiling_.groups().rbegin(); group != tiling_.groups().rend(); ++group) {
            for (int row = group->last; row >= group->first && group->is_tiled; --row) require_whole_reads(layer, row);
            const std::vector<int32_t> before = gradients_;
            for_each_tile(layer, *group, [&] {
                gradients_ = before;
                for (int row = group->last; row >= group->first; --row) backward(layer, row);
            });
        }
    }

    /// Before the first tile, what the backward of a row reads, or what that is brought back from, of all tokens.
    void require_whole_reads(int layer, int row_index) {
        const OpRow& row = block_row(row_index);
        const BackwardReads reads = reads_of(layer, row);
        if (reads.in) require_whole(layer, row.in);
        if (reads.out) require_whole(layer, row.out);
        if (reads.stats && row.stat0 != kNone) require_whole(layer, row.stat0);
        if (reads.stats && row.stat1 != kNone) require_whole(layer, row.stat1);
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
        const WorkspaceBytes::Row bytes = block_workspace(row_index);
        workspace(step.elements > 0 ? bytes.backward_in_place : bytes.backward);
    }

    /// Where an activation is kept of all tokens its gradient need not be: only where attention is on one side of it.
    bool is_whole_gradient(int slot) const { return whole_without_keeping_[static_cast<size_t>(slot)]; }

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
        const bool whole = is_whole_gradient(row.in);
        const int32_t d_in = layer_tensor("d_" + in.name, layer, dtype, in.columns, whole, Consumer::Gradients);
        const int32_t d_out = step->operand(Slot::DOut);
        if (facts_of(row.kind).d_in_replaces_d_out && builder_.tensor(d_out).is_tile == !whole) {
            builder_.tensor(d_in).alias = d_out;
        }
        if (facts_of(row.kind).d_in_replaces_in && tiling_.is_tiled()) {
            builder_.tensor(d_in).alias = std::exchange(live(layer, row.in), kNone);
            const int64_t waits = in.columns - model_.config.attention_columns();  // Gradients of keys and values.
            step->elements = 2 * N() * waits * size_of(dtype);                     // Read and written once more.
        }
        of_slot = d_in;
        step->operand(Slot::DIn) = d_in;
    }

    /// Returns the gradient of what was dropped.
    int32_t drop_embedding_backward() {
        const int32_t d_embedded = builder_.new_gradient("embedded", -1, model_.config.C);
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

    PlanBuilder builder_;
    Plan& plan_;
    const Model& model_;
    const PlanRequest& request_;
    const GradientPath& path_ = builder_.path;
    const int slots_;
    const std::vector<OpRow> block_;  ///< In training the model's; else without dropout.
    const Tiling tiling_;
    const std::vector<bool> whole_without_keeping_ = tiling_.whole_slots(slots_, {});
    KeepSet keep_;
    std::vector<std::vector<bool>> whole_;    ///< [layer][slot]
    std::vector<std::vector<int32_t>> live_;  ///< [layer][slot] -> tensor; row L has only the last block's output.
    RowRange tile_;                           ///< At hand; `count` is 0 outside of tiles.
    std::map<std::string, int32_t> made_;     ///< By name, tensors of the group whose tile it is.
    int32_t workspace_ = kNone;               ///< Of that group.
    std::vector<int32_t> gradients_;          ///< Of the layer in its backward, by slot.
    int64_t cache_tokens_ = 0;
    int32_t tokens_ = kNone, documents_ = kNone, mask_rows_ = kNone, d_residual_ = kNone;
};

}  // namespace

Plan make_training_plan(const Model& model, const PlanRequest& request, const KeepSet& keep, const std::string& name) {
    const int lowest = GradientPath(model).lowest_layer();
    CHECK(lowest == model.config.L || keep.slots[static_cast<size_t>(lowest)][kLayerInput],
          "the input of the lowest layer with a backward must survive: nothing below it could bring it back");
    CHECK(keep.host.empty() || !keep.host.back(), "the last layer's input is read before it could be fetched");
    Plan plan = with_unpacking(model, Generator(model, request, name, /*drops=*/true).training(keep));
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
    Plan plan = with_unpacking(model, Generator(model, request, "evaluate", /*drops=*/false).evaluation());
    plan = with_communication(model, std::move(plan));
    return with_fusion(model, std::move(plan), request.fusions);
}

Plan make_generation_plan(const Model& model, const PlanRequest& request, int64_t cache_tokens) {
    CHECK(request.shape.B == 1 && cache_tokens >= request.shape.T, request.shape.B, cache_tokens);
    Plan plan = with_unpacking(model, Generator(model, request, "generate", /*drops=*/false).generation(cache_tokens));
    plan = with_communication(model, std::move(plan));
    return with_fusion(model, std::move(plan), request.fusions);
}

}  // namespace llmc
