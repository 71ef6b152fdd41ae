#include "llmc/train/plan_json.h"

#include "llmc/plan/decisions.h"
#include "llmc/plan/fuse.h"
#include "llmc/train/offload.h"
#include "llmc/train/plan_ranks.h"

#include <nlohmann/json.hpp>

namespace llmc {

std::string memory_peak(const Model& model, const PlannedMemory& memory) {
    return describe_step(model, memory.plan.steps[static_cast<size_t>(memory.simulation.peak_step)]);
}

nlohmann::ordered_json plan_json(const Model& model, const ChosenPlan& chosen, bool fits) {
    const PlannedMemory& memory = chosen.memory;
    nlohmann::ordered_json by_consumer;
    for (const MemoryRow& row : memory.rows()) by_consumer[row.name] = row.bytes;
    nlohmann::ordered_json json = {{"recompute", memory.plan.policy},
                                   {"batch_size", memory.plan.shape.B},
                                   {"arena_bytes", memory.layout.arena_bytes},
                                   {"activation_bytes", memory.simulation.activation_bytes},
                                   {"layer_activation_bytes", memory.simulation.layer_activation_bytes},
                                   {"logits_chunk_tokens", memory.plan.logits_chunk_tokens},
                                   {"block_tokens", memory.plan.block_tokens},
                                   {"tile_tokens", memory.plan.tile_tokens},
                                   {"fused", fused_names(model, memory.plan)},
                                   {"peak_position", memory_peak(model, memory)},
                                   {"extra_flops_ratio", memory.simulation.extra_flops_ratio()},
                                   {"predicted_step_ms", chosen.step_seconds * 1e3},
                                   {"update", chosen.delays_update() ? "delayed" : "now"},
                                   {"total_bytes", memory.total_bytes()},
                                   {"offload", offload_of(memory.plan.places)},
                                   {"host_bytes", memory.host_bytes()},
                                   {"by_consumer", by_consumer}};
    if (memory.host_bytes() > 0) {
        for (const MemoryRow& row : memory.host_rows()) json["host_by_consumer"][row.name] = row.bytes;
        const HostTraffic traffic = host_traffic_per_update(memory.plan);
        json["host_bytes_in_per_update"] = traffic.in, json["host_bytes_out_per_update"] = traffic.out;
    }
    json["layers"] = nlohmann::ordered_json::array();
    const std::vector<LayerDecision> decisions = layer_decisions(model, memory.plan, chosen.keep, chosen.times);
    for (const LayerDecision& row : decisions) {
        json["layers"].push_back({{"first", row.first},
                                  {"last", row.last},
                                  {"keeps", row.keeps},
                                  {"kept_bytes_each", row.kept_bytes},
                                  {"tile_tokens", row.tile_tokens},
                                  {"host_bytes_each", row.host_bytes},
                                  {"repeated_ms_each", row.repeated_seconds * 1e3}});
    }
    for (const ModeWords& mode : decision_words(decisions)) json["modes"][mode.name] = mode.words;
    json["in_words"] = chosen.words;
    if (chosen.above_bound > -1) json["above_bound_ratio"] = chosen.above_bound;
    json["fits"] = fits;
    if (chosen.delays_update()) json["predicted_step_ms_with_update_now"] = chosen.now_seconds * 1e3;
    if (memory.plan.parallel.ranks > 1) add_communication(chosen, &json);
    return json;
}

}  // namespace llmc
