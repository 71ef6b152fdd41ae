#include "llmc/plan/verify.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <map>

namespace llmc {
namespace {

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

}  // namespace

std::string find_fault(const Model& model, const Plan& plan, const Layout& layout) {
    Ownership memory;
    const auto begin = [&](int32_t t) { return layout.offsets[static_cast<size_t>(t)]; };
    const auto end = [&](int32_t t) { return begin(t) + plan.tensors[static_cast<size_t>(t)].bytes; };
    const auto name = [&](int32_t t) {
        const PlanTensor& tensor = plan.tensors[static_cast<size_t>(t)];
        return tensor.layer >= 0 ? fmt::format("{} of layer {}", tensor.name, tensor.layer) : tensor.name;
    };
    for (int32_t t = 0; t < static_cast<int32_t>(plan.tensors.size()); ++t) {
        if (begin(t) < 0 || end(t) > layout.arena_bytes || begin(t) % kPlanAlignment != 0) {
            return fmt::format("{} lies at {} .. {} in an arena of {} bytes", name(t), begin(t), end(t),
                               layout.arena_bytes);
        }
        if (plan.tensors[static_cast<size_t>(t)].external) memory.write(begin(t), end(t), t);
    }
    const auto check_intact = [&](int32_t t, const auto& who) -> std::string {
        const int32_t intruder = memory.intruder(begin(t), end(t), t);
        if (intruder == kNone) return "";
        if (intruder == Ownership::kUnwritten) return fmt::format("{} needs {} before it is written", who(), name(t));
        return fmt::format("{} needs {}, which {} has overwritten", who(), name(t), name(intruder));
    };
    for (size_t i = 0; i < plan.steps.size(); ++i) {
        const Step& step = plan.steps[i];
        const auto this_step = [&] { return fmt::format("step {} ({})", i, describe_step(model, step)); };
        for (int slot = 0; slot < kNumSlots; ++slot) {
            if (!access(step, static_cast<Slot>(slot)).reads) continue;
            const std::string fault = check_intact(step.operands[static_cast<size_t>(slot)], this_step);
            if (!fault.empty()) return fault;
        }
        for (int slot = 0; slot < kNumSlots; ++slot) {
            const int32_t t = step.operands[static_cast<size_t>(slot)];
            if (access(step, static_cast<Slot>(slot)).writes) memory.write(begin(t), end(t), t);
        }
        // What a step reads and writes must survive all its writes, unless it works in place.
        for (int slot = 0; slot < kNumSlots; ++slot) {
            const int32_t t = step.operands[static_cast<size_t>(slot)];
            if (t < 0) continue;
            const int32_t d_in = step.operand(Slot::DIn);
            const bool in_place = d_in >= 0 && d_in != t && storage_of(plan, d_in) == storage_of(plan, t);
            if (in_place) continue;
            const std::string fault = check_intact(t, this_step);
            if (!fault.empty()) return fault;
        }
    }
    for (int32_t t = 0; t < static_cast<int32_t>(plan.tensors.size()); ++t) {
        if (!plan.tensors[static_cast<size_t>(t)].output) continue;
        const std::string fault = check_intact(t, [] { return "the caller"; });
        if (!fault.empty()) return fault;
    }
    return "";
}

}  // namespace llmc
