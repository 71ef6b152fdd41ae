#include "llmc/plan/verify.h"

#include "llmc/model/trainable.h"
#include "llmc/plan/fuse.h"
#include "llmc/plan/tiles.h"
#include "llmc/plan/unpack.h"
#include "llmc/plan/verify_communication.h"
#include "llmc/plan/verify_sequences.h"
#include "llmc/plan/verify_transfers.h"
#include "llmc/plan/verify_update.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <map>
#include <utility>

namespace llmc {
namespace {

std::string tensor_name(const PlanTensor& tensor) {
    return tensor.layer >= 0 ? fmt::format("{} of layer {}", tensor.name, tensor.layer) : tensor.name;
}

/// Which tensor owns each byte of the arena, as disjoint intervals begin -> (end, tensor). A write takes its interval
/// over; a read must find all of its interval owned by the tensor it names.
class Ownership {
  public:
    void write(int64_t begin, int64_t end, int32_t tensor) {
        cut(begin);
        cut(end);
        owners_.erase(owners_.lower_bound(begin), owners_.lower_bound(end));
        owners_[begin] = {end, tensor};
    }

    /// kNone if `tensor` owns the whole interval, else -2 (nobody wrote part of it) or the tensor that does.
    int32_t intruder(int64_t begin, int64_t end, int32_t tensor) const {
        auto it = owners_.upper_bound(begin);
        if (it == owners_.begin()) return kUnwritten;
        --it;
        int64_t covered = begin;
        for (; it != owners_.end() && it->first < end; ++it) {
            if (it->first > covered || it->second.end <= covered) return kUnwritten;
            if (it->second.tensor != tensor) return it->second.tensor;
            covered = it->second.end;
        }
        return covered >= end ? kNone : kUnwritten;
    }
    static constexpr int32_t kUnwritten = -2;

  private:
    struct Interval {
        int64_t end;
        int32_t tensor;
    };
    void cut(int64_t at) {
        auto it = owners_.lower_bound(at);
        if (it == owners_.begin()) return;
        --it;
        if (it->second.end <= at) return;
        owners_[at] = it->second;
        it->second.end = at;
    }
    std::map<int64_t, Interval> owners_;
};

/// Checks copies between the device and the host: what is under way, and what lies where in host memory.
class CopyChecker {
  public:
    explicit CopyChecker(const Plan& plan) : plan_(plan) {}

    /// What is wrong with the next step as far as copies go; empty if nothing.
    std::string fault_of(const Step& step) {
        switch (step.kind) {
            case StepKind::CopyOut:
                return step.is_copy_of_state() ? begin(step.kind, step.copied()) : copy_out(step, step.copied());
            case StepKind::Fetch:
                return step.is_copy_of_state() ? begin(step.kind, step.copied()) : fetch(step, step.copied());
            case StepKind::WaitCopyOut: return wait(StepKind::CopyOut, step.operand(Slot::In));
            case StepKind::WaitFetch: return wait(StepKind::Fetch, step.operand(Slot::Out));
            default: return uses(step);
        }
    }

    /// To be asked after the last step.
    std::string fault_of_end() const {
        return under_way_.empty() ? "" : fmt::format("ends while {} is being copied", name(under_way_.begin()->first));
    }

  private:
    struct Place {
        int64_t begin, end;
        int32_t tensor;
    };

    const PlanTensor& tensor(int32_t t) const { return plan_.tensors[static_cast<size_t>(t)]; }
    std::string name(int32_t t) const { return tensor_name(tensor(t)); }

    std::string uses(const Step& step) const {
        for (size_t slot = 0; slot < kNumSlots; ++slot) {
            if (step.operands[slot] < 0) continue;
            const auto copy = under_way_.find(storage_of(plan_, step.operands[slot]));
            if (copy == under_way_.end()) continue;
            if (copy->second == StepKind::Fetch)
                return fmt::format("uses {} before its fetch is over", name(copy->first));
            if (access(step, static_cast<Slot>(slot)).writes) {
                return fmt::format("writes {} before its copy out is over", name(copy->first));
            }
        }
        return "";
    }

    std::string copy_out(const Step& step, int32_t t) {
        const Place place = {step.host_offset, step.host_offset + tensor(t).bytes, t};
        if (place.begin < 0 || place.end > plan_.host_bytes) {
            return fmt::format("copies {} to {} .. {} of {} bytes", name(t), place.begin, place.end, plan_.host_bytes);
        }
        for (const Place& other : places_) {
            if (place.begin < other.end && other.begin < place.end) {
                return fmt::format("copies {} over {} in host memory", name(t), name(other.tensor));
            }
        }
        places_.push_back(place);
        return begin(StepKind::CopyOut, t);
    }

    std::string fetch(const Step& step, int32_t t) {
        const auto place = std::find_if(places_.begin(), places_.end(), [&](const Place& candidate) {
            return candidate.begin == step.host_offset && tensor(candidate.tensor).name == tensor(t).name &&
                   tensor(candidate.tensor).layer == tensor(t).layer &&
                   tensor(candidate.tensor).bytes == tensor(t).bytes;
        });
        if (place == places_.end()) return fmt::format("fetches {} from where it is not", name(t));
        if (under_way_.count(place->tensor) > 0) {
            return fmt::format("fetches {} before its copy out is over", name(t));
        }
        return begin(StepKind::Fetch, t);
    }

    std::string begin(StepKind kind, int32_t t) {
        const bool alone = under_way_.emplace(t, kind).second;
        return alone ? "" : fmt::format("copies {} while it is being copied", name(t));
    }

    std::string wait(StepKind kind, int32_t t) {
        const auto copy = under_way_.find(t);
        if (copy == under_way_.end() || copy->second != kind) {
            return fmt::format("waits for a copy of {} that has not begun", name(t));
        }
        under_way_.erase(copy);
        return "";
    }

    const Plan& plan_;
    std::map<int32_t, StepKind> under_way_;  ///< By tensor.
    std::vector<Place> places_;              ///< Each written once.
};

/// The classifier's chunks: one after the other over all tokens, each through all its steps; and their losses' sum.
class Chunks {
  public:
    Chunks(const Model& model, const Plan& plan) : plan_(plan), head_trains_(model.trains(model.head)) {
        const bool norm_trains = model.trains(model.lnf_weight) || model.trains(model.lnf_bias);
        wants_d_in_ = norm_trains || GradientPath(model).reaches(static_cast<int>(model.config.L));
    }

    /// What is wrong with the next step as far as chunks go; empty if nothing.
    std::string fault_of(const Step& step) {
        if (step.kind != StepKind::Compute) return "";
        if (step.op == OpKind::LossSum) return sum(step);
        if (!step.is_of_chunk() || plan_.logits_chunk_tokens == 0) return "";  // Generation has one row of logits.
        const int stage = stage_of(step);
        if (stage == 0) {
            if (stage_ != last_stage_) return "comes before the chunk before it is over";
            if (step.first_token != end_)
                return fmt::format("begins at token {} instead of {}", step.first_token, end_);
            if (step.tokens < 1 || step.tokens > plan_.logits_chunk_tokens) return "is about too many tokens, or none";
            first_ = end_, end_ += step.tokens;
        } else {
            if (stage != (stage_ == 1 && !head_trains_ ? 3 : stage_ + 1) || stage > last_stage_)
                return "comes at the wrong place among the steps of its chunk";
            if (step.first_token != first_ || step.tokens != end_ - first_) return "is about tokens of another chunk";
        }
        if (stage == 0) last_stage_ = 3;
        stage_ = stage;
        if (stage == 1) last_stage_ = step.pass == Pass::Forward ? 1 : wants_d_in_ ? 3 : 2;
        return "";
    }

    /// To be asked after the last step.
    std::string fault_of_end() const {
        if (plan_.logits_chunk_tokens == 0) return "";
        if (stage_ != last_stage_ || end_ != plan_.shape.N()) return "ends before the classifier has had all tokens";
        return summed_ ? "" : "never adds up the losses";
    }

  private:
    std::string sum(const Step& step) {
        if (std::exchange(summed_, true)) return "comes twice";
        const bool several = last_stage_ > 1 && !plan_.parallel.rank_invariant;
        return step.adds == (several ? Adds::AfterFirst : Adds::Never) ? "" : "adds where it has to overwrite";
    }

    static int stage_of(const Step& step) {
        if (step.op == OpKind::CrossEntropy) return 1;
        return step.pass == Pass::Forward ? 0 : step.pass == Pass::BackwardWeight ? 2 : 3;
    }

    const Plan& plan_;
    const bool head_trains_;
    bool wants_d_in_ = true;          ///< The gradient of the head's input.
    int64_t first_ = 0, end_ = 0;     ///< Tokens of the chunk at hand.
    int stage_ = 3, last_stage_ = 3;  ///< The chunk's last step so far, and the one after which it is over.
    bool summed_ = false;
};

/// The walk over the steps: what the arena holds, and what the other checks have to say.
class Walk {
  public:
    Walk(const Model& model, const Plan& plan, const Layout& layout)
        : model_(model),
          plan_(plan),
          layout_(layout),
          copies_(plan),
          chunks_(model, plan),
          tiles_(model, plan),
          sequences_(model, plan),
          communication_(model, plan),
          update_(model, plan),
          transfers_(model, plan),
          unpacking_(model, plan) {}

    std::string fault() {
        for (int32_t t = 0; t < static_cast<int32_t>(plan_.tensors.size()); ++t) {
            if (std::string fault = place(t); !fault.empty()) return fault;
        }
        for (size_t i = 0; i < plan_.steps.size(); ++i) {
            const std::string fault = fault_of(plan_.steps[i]);
            if (!fault.empty()) {
                return fmt::format("step {} ({}) {}", i, describe_step(model_, plan_.steps[i]), fault);
            }
        }
        if (const int step = left_apart(plan_); step >= 0) {
            return fmt::format("step {} ({}) is not one with the steps that it is one with in other plans", step,
                               describe_step(model_, plan_.steps[static_cast<size_t>(step)]));
        }
        for (const std::string& fault :
             {copies_.fault_of_end(), chunks_.fault_of_end(), tiles_.fault_of_end(), sequences_.fault_of_end(),
              communication_.fault_of_end(), update_.fault_of_end(), transfers_.fault_of_end()}) {
            if (!fault.empty()) return "the plan " + fault;
        }
        for (int32_t t = 0; t < static_cast<int32_t>(plan_.tensors.size()); ++t) {
            if (!plan_.tensor(t).output) continue;
            const std::string fault = overwritten(t, {0, plan_.tensor(t).rows});
            if (!fault.empty()) return "the caller " + fault;
        }
        return "";
    }

  private:
    std::string name(int32_t t) const { return tensor_name(plan_.tensor(t)); }
    int64_t begin(int32_t t) const { return layout_.offsets[static_cast<size_t>(t)]; }
    int64_t byte_of_row(int32_t t, int64_t row) const {
        return begin(t) + row * plan_.tensor(t).cols * size_of(plan_.tensor(t).dtype);
    }

    std::string place(int32_t t) {
        const int64_t end = begin(t) + plan_.tensor(t).bytes;
        if (begin(t) < 0 || end > layout_.arena_bytes || begin(t) % kPlanAlignment != 0) {
            return fmt::format("{} lies at {} .. {} in an arena of {} bytes", name(t), begin(t), end,
                               layout_.arena_bytes);
        }
        if (plan_.tensor(t).external) memory_.write(begin(t), byte_of_row(t, plan_.tensor(t).rows), t);
        return "";
    }

    std::string overwritten(int32_t t, const RowRange& rows) const {
        const int32_t intruder =
            memory_.intruder(byte_of_row(t, rows.first), byte_of_row(t, rows.first + rows.count), t);
        if (intruder == kNone) return "";
        if (intruder == Ownership::kUnwritten) return fmt::format("needs {} before it is written", name(t));
        return fmt::format("needs {}, which {} has overwritten", name(t), name(intruder));
    }

    std::string fault_of(const Step& step) {
        bool lacks_operands = false;
        if (step.kind == StepKind::Fused) {
            if (std::string fault = fault_of_fused(plan_, step); !fault.empty()) return fault;
            lacks_operands = !plan_.fusions[static_cast<size_t>(step.fusion)].stores_between;
        }
        for (const Step& part : parts_of(step)) {
            if (std::string fault = fault_of_part(part, lacks_operands); !fault.empty()) return fault;
        }
        return fault_of_survivors(step);
    }

    RowRange rows(const Step& step, int slot) const {
        const PlanTensor& tensor = plan_.tensor(step.operands[static_cast<size_t>(slot)]);
        return rows_of(step, static_cast<Slot>(slot), tensor.rows, tensor.is_tile);
    }

    std::string fault_of_part(const Step& step, bool lacks_operands) {
        for (const std::string& fault :
             {copies_.fault_of(step), chunks_.fault_of(step), tiles_.fault_of(step), sequences_.fault_of(step),
              communication_.fault_of(step), update_.fault_of(step, lacks_operands), transfers_.fault_of(step),
              unpacking_.fault_of(step)}) {
            if (!fault.empty()) return fault;
        }
        for (int slot = 0; slot < kNumSlots; ++slot) {
            if (!access(step, static_cast<Slot>(slot)).reads) continue;
            const std::string fault = overwritten(step.operands[static_cast<size_t>(slot)], rows(step, slot));
            if (!fault.empty()) return fault;
        }
        for (int slot = 0; slot < kNumSlots; ++slot) {
            const int32_t t = step.operands[static_cast<size_t>(slot)];
            if (!access(step, static_cast<Slot>(slot)).writes) continue;
            const RowRange written = rows(step, slot);
            memory_.write(byte_of_row(t, written.first), byte_of_row(t, written.first + written.count), t);
        }
        return "";
    }

    /// What a step reads and writes, in all its parts, must survive all its writes, unless it works in place.
    std::string fault_of_survivors(const Step& step) const {
        const auto replaced = [&](int32_t t) {
            const std::span<const Step> parts = parts_of(step);
            return std::any_of(parts.begin(), parts.end(), [&](const Step& part) {
                const auto replaces = [&](Slot slot) {
                    const int32_t by = part.operand(slot);
                    return by >= 0 && by != t && storage_of(plan_, by) == storage_of(plan_, t);
                };
                const bool replaces_residual = part.kind == StepKind::Compute && part.pass == Pass::Forward &&
                                               facts_of(part.op).out_replaces_residual &&
                                               t == part.operand(Slot::Residual);
                const bool may_go = t != part.operand(Slot::In) || facts_of(part.op).d_in_replaces_in;
                return (may_go && replaces(Slot::DIn)) || (replaces_residual && replaces(Slot::Out));
            });
        };
        for (const Step& part : parts_of(step)) {
            for (int slot = 0; slot < kNumSlots; ++slot) {
                const int32_t t = part.operands[static_cast<size_t>(slot)];
                if (t < 0 || replaced(t)) continue;
                const std::string fault = overwritten(t, rows(part, slot));
                if (!fault.empty()) return fault;
            }
        }
        return "";
    }

    const Model& model_;
    const Plan& plan_;
    const Layout& layout_;
    Ownership memory_;
    CopyChecker copies_;
    Chunks chunks_;
    TilesCheck tiles_;
    SequencesCheck sequences_;
    CommunicationCheck communication_;
    UpdateCheck update_;
    TransferCheck transfers_;
    UnpackCheck unpacking_;
};

}  // namespace

std::string find_fault(const Model& model, const Plan& plan, const Layout& layout) {
    return Walk(model, plan, layout).fault();
}

}  // namespace llmc
