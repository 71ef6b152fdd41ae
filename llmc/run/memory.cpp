#include "llmc/run/memory.h"

#include "llmc/base/units.h"
#include "llmc/plan/formats.h"
#include "llmc/plan/logits_chunk.h"
#include "llmc/plan/token_blocks.h"
#include "llmc/plan/verify.h"
#include "llmc/run/fusion.h"

#include <algorithm>
#include <functional>

namespace llmc {

std::vector<MemoryRow> StateBytes::rows() const {
    std::vector<MemoryRow> all = {{"parameters", parameters},
                                  {"gradients", gradients},
                                  {"sums of micro-batches", partial_sums},
                                  {"optimiser's moments", moments()},
                                  {"fp32 master weights", master},
                                  {std::string(name_of(Buffer::Frozen)), frozen},
                                  {"RoPE table", rope_table},
                                  {"scalars", scalars}};
    std::erase_if(all, [](const MemoryRow& row) { return row.bytes == 0; });
    return all;
}

int partial_sum_count(const Parallel& parallel) {
    if (!parallel.rank_invariant) return 0;
    int count = 0;
    for (int64_t sums = parallel.micro_batches; sums > 1; sums = (sums + 1) / 2) ++count;
    return count;
}

ScalarsLayout scalars_layout(const Partition& partition, bool training) {
    ScalarsLayout layout;
    const auto place = [&](int64_t bytes) {
        const int64_t offset = layout.bytes;
        layout.bytes += round_up(bytes, kTensorAlignment);
        return offset;
    };
    layout.loss_sum = place(size_of(DType::F64) + size_of(DType::I32));
    layout.position = layout.loss_sum + size_of(DType::F64);
    if (!training) return layout;
    layout.loss_scale = place(size_of(DType::F32));
    layout.controls = place(kNumControls * size_of(DType::F64));
    layout.factors = place(kNumFactors * size_of(DType::F32));
    layout.grad_norm = place(size_of(DType::F64));
    layout.norm_pieces = place(static_cast<int64_t>(partition.buckets.size()) * size_of(DType::I32));
    layout.norm_sums = place(norm_layout(partition).count() * size_of(DType::F64));
    return layout;
}

NormLayout norm_layout(const Partition& partition) {
    return {partition.ranks, static_cast<int64_t>(partition.buckets.size()), partition.chunks_per_piece};
}

StateBytes state_bytes(const Model& model, const Places& places, int64_t T, const Parallel& parallel, bool training,
                       Memory memory) {
    const auto padded = [](int64_t bytes) { return round_up(bytes, kTensorAlignment); };
    const Partition partition = make_partition(model, parallel.ranks, places.row_multiple());
    const Partition frozen_rows = make_frozen_partition(model, parallel.ranks, places);
    const auto bytes_of = [&](Buffer buffer) {
        if (places[buffer].memory != memory) return int64_t{0};
        return buffer_bytes(model, buffer == Buffer::Frozen ? frozen_rows : partition, places[buffer]);
    };
    StateBytes bytes;
    bytes.parameters = bytes_of(Buffer::Parameters);
    bytes.frozen = bytes_of(Buffer::Frozen);
    if (model.config.is_rotary() && memory == Memory::Device) {
        bytes.rope_table = padded(T * model.config.rotary_columns() * size_of(DType::F32));
    }
    if (memory == Memory::Device) bytes.scalars = scalars_layout(partition, training).bytes;
    if (!training) return bytes;
    bytes.gradients = bytes_of(Buffer::Gradients);
    bytes.partial_sums = partial_sum_count(parallel) * bytes.gradients;
    bytes.moment_m = bytes_of(Buffer::MomentM);
    bytes.moment_v = bytes_of(Buffer::MomentV);
    bytes.master = bytes_of(Buffer::Masters);
    return bytes;
}

WorkspaceBytes workspace_bytes(const Model& model, const BatchShape& shape, DType dtype, const TokensAtOnce& at_once,
                               const Backend& backend) {
    const ModelConfig& config = model.config;
    const int64_t N = shape.N();
    // The last piece may be smaller, and a backend may treat it differently.
    const auto largest = [N](int64_t piece, const std::function<int64_t(int64_t)>& bytes_of) {
        const int64_t most = piece > 0 ? std::min(piece, N) : N, last = N % most;
        return last > 0 ? std::max(bytes_of(most), bytes_of(last)) : bytes_of(most);
    };
    const auto of_blocks = [&](const std::function<int64_t(int64_t)>& bytes) { return largest(at_once.block, bytes); };
    const AttentionShape attention = {shape.B, shape.T, config.NH, config.NKV, config.HD};
    const auto of_norm = [&](int64_t tokens) { return backend.norm_backward_workspace(tokens, config.C); };
    WorkspaceBytes result;
    for (const OpRow& row : model.block) {
        WorkspaceBytes::Row bytes;
        const int weight = model.parameter_index(0, row.weight);
        const ParameterRow* const factor = weight == kNone ? nullptr : &model.parameters[static_cast<size_t>(weight)];
        if (row.kind == OpKind::Matmul) {
            bytes.forward = bytes.backward = of_blocks(
                [&](int64_t tokens) { return backend.matmul_workspace(dtype, tokens, factor->rows, factor->cols); });
        } else if (row.kind == OpKind::Attention) {
            bytes.forward = backend.attention_forward_workspace(dtype, attention);
            bytes.backward = backend.attention_backward_workspace(dtype, attention, /*in_place=*/false);
            bytes.backward_in_place = backend.attention_backward_workspace(dtype, attention, /*in_place=*/true);
        } else if (row.kind == OpKind::AdapterDown || row.kind == OpKind::AdapterUp) {
            bytes.forward = bytes.backward = of_blocks(
                [&](int64_t tokens) { return backend.adapter_workspace(tokens, factor->rows, factor->cols); });
        } else if (row.kind == OpKind::LayerNorm || row.kind == OpKind::RmsNorm) {
            bytes.backward = of_blocks(of_norm);
        } else if (row.kind == OpKind::HeadNorm) {
            bytes.backward =
                of_blocks([&](int64_t tokens) { return backend.head_norm_backward_workspace(tokens, config.HD); });
        }
        result.block.push_back(bytes);
    }
    result.embedding.backward = backend.embedding_backward_workspace(N, config.C, config.Vp(), shape.packed);
    result.final_norm.backward = of_blocks(of_norm);
    result.classifier.forward = result.classifier.backward = largest(at_once.logits_chunk, [&](int64_t tokens) {
        return backend.matmul_workspace(dtype, tokens, config.Vp(), config.C);
    });
    return result;
}

std::vector<MemoryRow> PlannedMemory::rows() const {
    std::vector<MemoryRow> rows = state.rows();
    int64_t live = 0;
    for (int consumer = 0; consumer < kNumConsumers; ++consumer) {
        const int64_t bytes = simulation.by_consumer[static_cast<size_t>(consumer)];
        if (bytes == 0) continue;
        rows.push_back({std::string(name_of(static_cast<Consumer>(consumer))), bytes});
        live += bytes;
    }
    if (layout.arena_bytes > live) rows.push_back({"gaps in the arena", layout.arena_bytes - live});
    return rows;
}

std::vector<MemoryRow> PlannedMemory::host_rows() const {
    std::vector<MemoryRow> rows = host_state.rows();
    if (plan.host_bytes > 0) rows.push_back({std::string(kHostMemoryRow), plan.host_bytes});
    return rows;
}

PlanRequest plan_request(const Model& model, const BatchShape& shape, const Places& places, const TokensAtOnce& at_once,
                         const Backend& backend, const Parallel& parallel, bool fuses) {
    PlanRequest request;
    request.shape = shape;
    request.places = places;
    const auto chosen = [](int64_t given, int64_t usual) { return given > 0 ? given : usual; };
    const std::string kind = backend.info().kind;
    request.logits_chunk_tokens = chosen(at_once.logits_chunk, default_logits_chunk(model, shape, kind));
    request.block_tokens = std::min(shape.N(), chosen(at_once.block, default_block_tokens(model, shape, kind)));
    request.workspace =
        workspace_bytes(model, shape, request.dtype(), {request.logits_chunk_tokens, request.block_tokens}, backend);
    request.parallel = parallel;
    if (fuses) request.fusions = fused_runs(model, shape, request.block_tokens, request.dtype(), backend);
    return request;
}

PlannedMemory with_memory(const Model& model, Plan plan) {
    PlannedMemory result;
    result.plan = std::move(plan);
    result.simulation = simulate(model, result.plan);
    result.layout = make_layout(result.plan);
    const std::string fault = find_fault(model, result.plan, result.layout);
    CHECK(fault.empty(), fault);
    const auto state_in = [&](Memory memory) {
        const Plan& planned = result.plan;
        return state_bytes(model, planned.places, planned.shape.T, planned.parallel, /*training=*/true, memory);
    };
    result.state = state_in(Memory::Device);
    result.host_state = state_in(Memory::Host);
    return result;
}

PlannedMemory plan_memory(const Model& model, const BatchShape& shape, const Places& places, const PolicyRow& policy,
                          const TokensAtOnce& at_once, const Backend& backend, const Parallel& parallel, bool fuses) {
    const PlanRequest request = plan_request(model, shape, places, at_once, backend, parallel, fuses);
    return with_memory(model, make_training_plan(model, request, policy));
}

}  // namespace llmc
