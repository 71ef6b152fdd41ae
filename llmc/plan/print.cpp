#include "llmc/plan/print.h"

#include "llmc/base/counted.h"
#include "llmc/base/units.h"

#include <spdlog/fmt/fmt.h>

#include <array>

namespace llmc {
namespace {

constexpr std::array<const char*, kNumSlots> kSlotNames = {
    "in",     "residual", "out",       "stat",       "stat",      "d_out",        "d_in", "tokens",
    "logits", "losses",   "workspace", "parameters", "frozen",    "d_parameters", "kept", "masters",
    "m",      "v",        "documents", "rows",       "mask_rows", "weight",       "bias"};

std::string operand_text(const Plan& plan, int32_t id, const Layout* layout) {
    const PlanTensor& tensor = plan.tensors[static_cast<size_t>(id)];
    std::string text = tensor.name;
    if (tensor.layer >= 0 && tensor.name != "workspace") text += fmt::format(".{}", tensor.layer);
    if (layout != nullptr) text += fmt::format("@{}", layout->offsets[static_cast<size_t>(id)]);
    return text;
}

void add_operands(const Plan& plan, const Step& step, const Layout* layout, std::string* reads, std::string* writes) {
    for (size_t slot = 0; slot < kNumSlots; ++slot) {
        const int32_t id = step.operands[slot];
        const Access use = access(step, static_cast<Slot>(slot));
        if (id < 0 || static_cast<Slot>(slot) == Slot::Workspace) continue;
        std::string name = operand_text(plan, id, layout);
        const PlanTensor& tensor = plan.tensor(id);
        const RowRange rows = rows_of(step, static_cast<Slot>(slot), tensor.rows, tensor.is_tile);
        if (rows.count != tensor.rows) name += fmt::format("[{}:{}]", rows.first, rows.first + rows.count);
        if (use.reads) *reads += fmt::format(" {}={}", kSlotNames[slot], name);
        if (use.writes) *writes += fmt::format(" {}{}={}", kSlotNames[slot], use.reads ? "+" : "", name);
    }
}

/// When a step runs, and whether it overwrites gradients of parameters.
std::string remarks(const Plan& plan, const Step& step) {
    std::string text;
    const bool depends = plan.shape.partly_scored && step.kind == StepKind::Compute && step.is_of_chunk();
    if (depends && step.first_token > 0) text += "  (if more rows count)";
    if (step.adds != Adds::Always && step.op != OpKind::LossSum) {
        text += step.adds == Adds::Never ? "  writes" : "  writes, later adds";
    }
    if (step.when == When::Pending) text += "  (pending update)";
    if (step.when == When::Flush) text += "  (flush)";
    if (step.when != When::Always && step.phase != Phase::Update) {
        text += step.when == When::First        ? "  (first micro-batch)"
                : step.when == When::AfterFirst ? "  (later micro-batches)"
                                                : "  (last micro-batch)";
    }
    return text;
}

}  // namespace

std::string print_steps(const Model& model, const Plan& plan, const Layout* layout) {
    const Simulation simulation = simulate(model, plan);
    std::string text;
    for (size_t i = 0; i < plan.steps.size(); ++i) {
        const Step& step = plan.steps[i];
        std::string reads, writes, marks;
        for (const Step& part : parts_of(step)) {
            add_operands(plan, part, layout, &reads, &writes);
            marks += remarks(plan, part);
        }
        if (layout != nullptr && step.host_offset >= 0) {
            (step.kind == StepKind::Fetch ? reads : writes) += fmt::format(" host@{}", step.host_offset);
        }
        if (step.phase == Phase::Update && step.is_copy_of_state()) {
            reads += fmt::format(" [{}:{}]", step.first_element, step.first_element + step.elements);
        }
        text += fmt::format("{:>5} {:<9} {:<38} {} ->{}{}  [{}]\n", i, name_of(step.phase), describe_step(model, step),
                            reads, writes, marks, format_bytes(simulation.live_bytes[i]));
    }
    return text;
}

std::string summarise_steps(const Plan& plan) {
    std::array<int, kNumPhases> count = {};
    int copies = 0, reductions = 0, gathers = 0, zeroed = 0, fused = 0, pending = 0, unpacked = 0;
    for (const Step& step : plan.steps) {
        if (step.when == When::Pending) {
            ++pending;
            continue;
        }
        const bool copies_state = step.is_copy() && step.phase == Phase::Update;
        if (step.is_operation() || (step.phase == Phase::Update && !copies_state))
            ++count[static_cast<size_t>(step.phase)];
        fused += step.parts.size() > 1 ? 1 : 0;
        unpacked += step.kind == StepKind::Unpack ? 1 : 0;
        copies += step.kind == StepKind::CopyOut || step.kind == StepKind::Fetch ? 1 : 0;
        reductions += step.kind == StepKind::Reduce ? 1 : 0;
        gathers += step.kind == StepKind::Gather && step.phase != Phase::Update ? 1 : 0;
        zeroed += step.kind == StepKind::ZeroGradients ? 1 : 0;
    }
    std::string apart;
    if (fused > 0) apart += fmt::format(", {} of them several operations in one", fused);
    if (unpacked > 0) apart += fmt::format(", {} unpacked", counted(unpacked, "weight"));
    const auto add_with_waits = [&](int steps, const char* one, const char* several) {
        if (steps > 0)
            apart += fmt::format(", {} and {}", counted(steps, one, several), noun(steps, "its wait", "their waits"));
    };
    add_with_waits(copies, "copy", "copies");
    add_with_waits(gathers, "gather", "gathers");
    add_with_waits(reductions, "reduction", "reductions");
    if (zeroed > 0) apart += fmt::format(", {} zeroed", counted(zeroed, "bucket"));
    if (count[4] > 0) apart += fmt::format("; {} of the update", count[4]);
    if (pending > 0) apart += fmt::format(", delayed: {} of a pending one in the forward", pending);
    return fmt::format("{} steps: {} forward, {} head, {} repeated, {} backward{}", plan.steps.size(), count[0],
                       count[1], count[2], count[3], apart);
}

}  // namespace llmc
