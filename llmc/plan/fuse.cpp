#include "llmc/plan/fuse.h"

#include "llmc/base/check.h"
#include "llmc/plan/add_tensor.h"
#include "llmc/plan/communicate.h"
#include "llmc/plan/simulate.h"

#include <algorithm>
#include <span>
#include <utility>

namespace llmc {
namespace {

using Steps = std::vector<Step>;

/// A bias's gradient beside a frozen weight is no product, and so another operation.
bool is_part(const Step& step, const FusedPart& part) {
    return step.kind == StepKind::Compute && step.op == part.op && step.pass == part.pass && step.row == part.row &&
           !step.is_only_bias();
}

/// Whether a step reads a tensor that another writes.
bool follows_from(const Step& step, const Step& earlier) {
    for (int in = 0; in < kNumSlots; ++in) {
        if (!access(step, static_cast<Slot>(in)).reads) continue;
        for (int out = 0; out < kNumSlots; ++out) {
            const bool writes = access(earlier, static_cast<Slot>(out)).writes;
            if (writes && step.operands[static_cast<size_t>(in)] == earlier.operands[static_cast<size_t>(out)])
                return true;
        }
    }
    return false;
}

/// May stand between two parts of a run, since not every plan has it.
bool is_between(const Step& step, Phase phase) {
    return !step.is_operation() || (step.phase == Phase::Recompute && phase != Phase::Recompute);
}

bool may_fuse(const FusedRun& run) {
    return run.same_bits || std::none_of(run.parts.begin(), run.parts.end(),
                                         [](const FusedPart& part) { return part.pass == Pass::Forward; });
}

/// Indices of the steps that are the run, if it begins at `first`; empty if it does not.
std::vector<size_t> find_parts(std::span<const Step> steps, size_t first, const FusedRun& run) {
    if (!may_fuse(run) || !is_part(steps[first], run.parts.front())) return {};
    std::vector<size_t> found = {first};
    for (size_t i = first + 1; i < steps.size() && found.size() < run.parts.size(); ++i) {
        const Step &step = steps[i], &before = steps[found.back()];
        if (is_between(step, before.phase)) continue;
        const bool beside = step.phase == before.phase && step.layer == before.layer &&
                            step.first_token == before.first_token && step.tokens == before.tokens;
        if (!beside || !is_part(step, run.parts[found.size()]) || !follows_from(step, before)) return {};
        found.push_back(i);
    }
    return found.size() == run.parts.size() ? found : std::vector<size_t>{};
}

struct FoundRun {
    int run = -1;
    std::vector<size_t> parts;
};

FoundRun find_run(std::span<const Step> steps, size_t first, const std::vector<FusedRun>& runs) {
    for (size_t run = 0; run < runs.size(); ++run) {
        std::vector<size_t> parts = find_parts(steps, first, runs[run]);
        if (!parts.empty()) return {static_cast<int>(run), std::move(parts)};
    }
    return {};
}

class FusionPass {
  public:
    FusionPass(const Model& model, Plan plan, const std::vector<FusedRun>& runs)
        : model_(model), plan_(std::move(plan)) {
        plan_.fusions = runs;
    }

    Plan run() {
        for (const Step& step : plan_.steps) count_uses(step, &uses_);
        do plan_.steps = fused(std::exchange(plan_.steps, {}));
        while (left_apart(plan_) >= 0);  // What was moved may stand beside the rest of its own run now.
        remove_untouched();
        return std::move(plan_);
    }

  private:
    /// What stands between the parts of a run may hold runs of its own.
    Steps fused(const Steps& steps) {
        Steps result;
        for (size_t i = 0; i < steps.size();) {
            const FoundRun found = find_run(steps, i, plan_.fusions);
            if (found.run < 0) {
                result.push_back(steps[i++]);
                continue;
            }
            const auto [ahead, behind] = divide(steps, found.parts);
            append(&result, fused(ahead));
            result.push_back(merged(steps, found));
            append(&result, fused(behind));
            i = found.parts.back() + 1;
        }
        return result;
    }

    static void append(Steps* steps, const Steps& more) { steps->insert(steps->end(), more.begin(), more.end()); }

    /// What stands between the parts: that which can go ahead of the first, and the rest, which goes behind the last.
    std::pair<Steps, Steps> divide(const Steps& steps, const std::vector<size_t>& parts) const {
        Steps ahead, behind, passed = {steps[parts.front()]};
        for (size_t i = parts.front() + 1, part = 1; i <= parts.back(); ++i) {
            const bool keeps_place = std::any_of(passed.begin(), passed.end(),
                                                 [&](const Step& earlier) { return must_follow(steps[i], earlier); });
            if (i == parts[part]) {
                const bool is_free = std::none_of(behind.begin(), behind.end(),
                                                  [&](const Step& moved) { return must_follow(steps[i], moved); });
                CHECK(is_free, "a run that cannot be one step", describe_step(model_, steps[i]));
                passed.push_back(steps[i]);
                ++part;
            } else if (keeps_place) {
                behind.push_back(steps[i]);
                passed.push_back(steps[i]);
            } else {
                ahead.push_back(steps[i]);
            }
        }
        return {std::move(ahead), std::move(behind)};
    }

    /// Whether the order of two steps must stay.
    bool must_follow(const Step& step, const Step& earlier) const {
        if (step.is_communication() && earlier.is_communication()) return true;
        return share_storage(step, earlier) || share_gradients(step, earlier) || share_gradients(earlier, step);
    }

    bool share_storage(const Step& a, const Step& b) const {
        for (int i = 0; i < kNumSlots; ++i) {
            const int32_t of_a = a.operands[static_cast<size_t>(i)];
            for (int j = 0; of_a >= 0 && j < kNumSlots; ++j) {
                const int32_t of_b = b.operands[static_cast<size_t>(j)];
                if (of_b < 0 || storage_of(plan_, of_a) != storage_of(plan_, of_b)) continue;
                if (access(a, static_cast<Slot>(i)).writes || access(b, static_cast<Slot>(j)).writes) return true;
            }
        }
        return false;
    }

    /// Whether `of_bucket` is about the gradients that an operation writes; those that are kept are no operands.
    bool share_gradients(const Step& of_bucket, const Step& operation) const {
        const bool gathers = of_bucket.kind == StepKind::Gather || of_bucket.kind == StepKind::WaitGather;
        if (!of_bucket.is_of_bucket() || gathers || operation.kind != StepKind::Compute) return false;
        if (!facts_of(operation.op, operation.pass).writes_gradients) return false;
        return of_bucket.bucket < 0 || of_bucket.bucket == bucket_of(model_, plan_.partition, operation);
    }

    Step merged(const Steps& steps, const FoundRun& found) {
        const FusedRun& run = plan_.fusions[static_cast<size_t>(found.run)];
        const Step& first = steps[found.parts.front()];
        Step step;
        step.kind = StepKind::Fused;
        step.op = first.op, step.pass = first.pass, step.phase = first.phase;
        step.layer = first.layer, step.row = first.row;
        step.first_token = first.first_token, step.tokens = first.tokens;
        step.fusion = static_cast<int16_t>(found.run);
        for (const size_t i : found.parts) {
            step.parts.push_back(steps[i]);
            step.parts.back().share = run.parts[step.parts.size() - 1].share;
            step.parts.back().operand(Slot::Workspace) = kNone;
        }
        if (run.workspace_bytes > 0) {
            step.parts.front().operand(Slot::Workspace) = new_workspace(step.layer, run.workspace_bytes);
        }
        if (!run.stores_between) drop_between(&step);
        return step;
    }

    int32_t new_workspace(int layer, int64_t bytes) {
        uses_.push_back(0);
        return add_tensor(&plan_, "workspace", layer, DType::U8, bytes, 1, Consumer::Workspace);
    }

    static void count_uses(const Step& step, std::vector<int>* uses) {
        for (const Step& part : parts_of(step)) {
            for (const int32_t tensor : part.operands) {
                if (tensor < 0) continue;
                if (uses->size() <= static_cast<size_t>(tensor)) uses->resize(static_cast<size_t>(tensor) + 1, 0);
                ++(*uses)[static_cast<size_t>(tensor)];
            }
        }
    }

    /// Operands that one part writes and later ones read, and no other step touches.
    void drop_between(Step* step) const {
        std::vector<int> inside(plan_.tensors.size(), 0);
        count_uses(*step, &inside);
        for (size_t part = 1; part < step->parts.size(); ++part) {
            for (int slot = 0; slot < kNumSlots; ++slot) {
                const int32_t tensor = step->parts[part].operands[static_cast<size_t>(slot)];
                if (tensor < 0 || !access(step->parts[part], static_cast<Slot>(slot)).reads) continue;
                const auto index = static_cast<size_t>(tensor);
                const bool only_here = inside[index] >= 2 && inside[index] == uses_[index];
                if (!only_here || plan_.tensors[index].external || plan_.tensors[index].output) continue;
                for (Step& each : step->parts) {
                    std::replace(each.operands.begin(), each.operands.end(), tensor, int32_t{kNone});
                }
            }
        }
    }

    /// Workspaces of parts, and what drop_between() left without use. What worked in place of such a tensor has its own
    /// storage then.
    void remove_untouched() {
        std::vector<int> uses(plan_.tensors.size(), 0);
        for (const Step& step : plan_.steps) count_uses(step, &uses);
        std::vector<int32_t> number(plan_.tensors.size(), kNone);
        std::vector<PlanTensor> kept;
        for (size_t i = 0; i < plan_.tensors.size(); ++i) {
            PlanTensor& tensor = plan_.tensors[i];
            if (uses[i] == 0 && !tensor.external && !tensor.output) continue;
            while (tensor.alias >= 0 && number[static_cast<size_t>(tensor.alias)] < 0)
                tensor.alias = plan_.tensors[static_cast<size_t>(tensor.alias)].alias;
            if (tensor.alias >= 0) tensor.alias = number[static_cast<size_t>(tensor.alias)];
            number[i] = static_cast<int32_t>(kept.size());
            kept.push_back(tensor);
        }
        plan_.tensors = std::move(kept);
        const auto renumber = [&](Step& step) {
            for (int32_t& operand : step.operands) operand = operand < 0 ? kNone : number[static_cast<size_t>(operand)];
        };
        for (Step& step : plan_.steps) {
            renumber(step);
            for (Step& part : step.parts) renumber(part);
        }
    }

    const Model& model_;
    Plan plan_;
    std::vector<int> uses_;  ///< By tensor, how many operands of all steps it is.
};

}  // namespace

Plan with_fusion(const Model& model, Plan plan, const std::vector<FusedRun>& runs) {
    if (runs.empty()) return plan;
    return FusionPass(model, std::move(plan), runs).run();
}

std::string fault_of_fused(const Plan& plan, const Step& step) {
    if (step.fusion < 0 || step.fusion >= static_cast<int>(plan.fusions.size()))
        return "is no run that may be one step";
    const FusedRun& run = plan.fusions[static_cast<size_t>(step.fusion)];
    if (!may_fuse(run)) return "has not the bits of its separate steps, which a repeat may need";
    if (step.parts.size() != run.parts.size()) return "has not the parts of its run";
    int64_t workspace = 0;
    for (size_t i = 0; i < step.parts.size(); ++i) {
        const Step& part = step.parts[i];
        if (!is_part(part, run.parts[i])) return "has not the parts of its run";
        if (part.layer != step.layer || part.phase != step.phase) return "has parts of several layers or phases";
        if (part.operand(Slot::Workspace) >= 0) workspace += plan.tensor(part.operand(Slot::Workspace)).bytes;
    }
    return workspace < run.workspace_bytes ? "has not the workspace that its run needs" : "";
}

int left_apart(const Plan& plan) {
    for (size_t i = 0; i < plan.steps.size() && !plan.fusions.empty(); ++i) {
        if (find_run(plan.steps, i, plan.fusions).run >= 0) return static_cast<int>(i);
    }
    return -1;
}

std::vector<std::string> fused_names(const Model& model, const Plan& plan) {
    std::vector<std::string> names;
    for (Step step : plan.steps) {
        if (step.kind != StepKind::Fused) continue;
        step.layer = -1;
        std::string name = describe_step(model, step);
        if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(std::move(name));
    }
    return names;
}

}  // namespace llmc
