#include "llmc/plan/relaxation.h"

#include "llmc/plan/simulate.h"

#include <algorithm>
#include <limits>
#include <utility>
#include <vector>

namespace llmc {
namespace {

/// A tensor that survives the forward, and what bringing it back takes.
struct Survivor {
    int64_t bytes = 0;
    double seconds = 0;
};

class Relaxation {
  public:
    Relaxation(Plan plan, const OpTimes& times, bool inputs_may_leave)
        : plan_(std::move(plan)),
          times_(times),
          inputs_may_leave_(inputs_may_leave),
          lives_(lifetimes(plan_)),
          survivors_(plan_.tensors.size()),
          survives_(plan_.tensors.size(), false) {
        find_survivors();
        for (const Step& step : plan_.steps) {
            if (step.phase == Phase::Forward && step.layer >= 0) charge(step);
        }
    }

    double seconds(int64_t budget) const {
        std::vector<Survivor> items;
        int64_t bytes = fixed_bytes();
        for (size_t i = 0; i < survivors_.size(); ++i) {
            if (!survives_[i]) continue;
            items.push_back(survivors_[i]);
            bytes += survivors_[i].bytes;
        }
        std::sort(items.begin(), items.end(), [](const Survivor& a, const Survivor& b) {
            return a.seconds * static_cast<double>(b.bytes) < b.seconds * static_cast<double>(a.bytes);
        });
        double seconds = operation_seconds();
        for (const Survivor& item : items) {
            if (bytes <= budget) break;
            const double share = std::min(1.0, static_cast<double>(bytes - budget) / static_cast<double>(item.bytes));
            seconds += share * item.seconds;
            bytes -= item.bytes;
        }
        return bytes <= budget ? std::max(seconds, busiest_link()) : std::numeric_limits<double>::infinity();
    }

  private:
    size_t storage(int32_t tensor) const { return static_cast<size_t>(storage_of(plan_, tensor)); }

    double operation_seconds() const {
        double seconds = 0;
        for (const Step& step : plan_.steps) {
            if (runs(step, only_turn(plan_))) seconds += step_seconds(times_, step);
        }
        return seconds;
    }

    /// Seconds that the link to the host is busy one way or the other, or the one between ranks: nothing that is
    /// repeated saves any.
    double busiest_link() const {
        double in = 0, out = 0, ranks = 0;
        for (const Step& step : plan_.steps) {
            if (!runs(step, only_turn(plan_))) continue;
            const double copies = static_cast<double>(copied_bytes(plan_, step)) / times_.host_bandwidth;
            if (step.kind == StepKind::Fetch) in += copies;
            if (step.kind == StepKind::CopyOut) out += copies;
            const bool sends =
                step.kind == StepKind::Reduce || step.kind == StepKind::Share || step.kind == StepKind::Gather;
            if (sends) ranks += transfer_seconds(times_, plan_, step);
        }
        return std::max({in, out, ranks});
    }

    /// What a layer's forward writes and a layer's backward reads.
    void find_survivors() {
        std::vector<bool> written(plan_.tensors.size(), false);
        for (const Step& step : plan_.steps) {
            for (const Step& part : parts_of(step)) {
                const bool is_read = part.phase == Phase::Backward && part.layer >= 0;
                const bool is_written = part.phase == Phase::Forward && part.layer >= 0 && part.row >= 0;
                for (int slot = 0; slot < kNumSlots; ++slot) {
                    const int32_t tensor = part.operand(static_cast<Slot>(slot));
                    if (tensor < 0) continue;
                    const Access used = access(part, static_cast<Slot>(slot));
                    if (is_written && used.writes) written[storage(tensor)] = true;
                    if (is_read && used.reads && written[storage(tensor)]) survives_[storage(tensor)] = true;
                }
            }
        }
        for (size_t i = 0; i < survivors_.size(); ++i) {
            const PlanTensor& tensor = plan_.tensors[i];
            const bool is_activation =
                tensor.consumer == Consumer::Boundaries || tensor.consumer == Consumer::LayerInternals;
            survives_[i] = survives_[i] && is_activation && !(inputs_may_leave_ && is_input(tensor));
            survivors_[i].bytes = tensor.bytes;
        }
    }

    static bool is_input(const PlanTensor& tensor) { return tensor.consumer == Consumer::Boundaries; }

    /// The time of a forward operation, to those of its outputs that survive.
    void charge(const Step& step) {
        const double whole = step_seconds(times_, step);
        double apart = 0;
        for (const Step& part : parts_of(step)) apart += step_seconds(times_, part);
        const double less = apart > 0 ? std::min(1.0, whole / apart) : 0;  // Of operations that run as one.
        for (const Step& part : parts_of(step)) {
            if (!part.is_operation()) continue;
            std::vector<size_t> outputs;
            double bytes = 0;
            for (int slot = 0; slot < kNumSlots; ++slot) {
                const int32_t tensor = part.operand(static_cast<Slot>(slot));
                if (tensor < 0 || !access(part, static_cast<Slot>(slot)).writes) continue;
                if (!survives_[storage(tensor)]) continue;
                outputs.push_back(storage(tensor));
                bytes += static_cast<double>(survivors_[storage(tensor)].bytes);
            }
            for (const size_t output : outputs) {
                Survivor& survivor = survivors_[output];
                survivor.seconds += less * step_seconds(times_, part) * static_cast<double>(survivor.bytes) / bytes;
            }
        }
    }

    /// Most that is there at an operation of the head besides: what every plan has then.
    int64_t fixed_bytes() const {
        int64_t most = 0;
        for (int i = 0; i < static_cast<int>(plan_.steps.size()); ++i) {
            const Step& step = plan_.steps[static_cast<size_t>(i)];
            if (!step.is_operation() || step.phase != Phase::Head) continue;
            int64_t bytes = 0;
            for (size_t tensor = 0; tensor < plan_.tensors.size(); ++tensor) {
                const Lifetime& life = lives_[tensor];
                if (life.first > i || life.last < i || survives_[tensor]) continue;
                if (is_of_every_plan(plan_.tensors[tensor])) bytes += plan_.tensors[tensor].bytes;
            }
            most = std::max(most, bytes);
        }
        return most;
    }

    bool is_of_every_plan(const PlanTensor& tensor) const {
        switch (tensor.consumer) {
            case Consumer::Inputs:
            case Consumer::HeadActivations:
            case Consumer::Gradients:
            case Consumer::Logits:
            case Consumer::Workspace: return true;
            case Consumer::Boundaries: return !inputs_may_leave_;
            default: return false;
        }
    }

    const Plan plan_;
    const OpTimes& times_;
    const bool inputs_may_leave_;
    const std::vector<Lifetime> lives_;
    std::vector<Survivor> survivors_;  ///< By storage.
    std::vector<bool> survives_;
};

}  // namespace

double relaxed_seconds(const Model& model, const PlanRequest& request, const OpTimes& times,
                       const SearchBudget& budget) {
    PlanRequest on_device = request;
    on_device.places[Buffer::Boundaries].memory = Memory::Device;
    const bool may_leave = budget.host_bytes > 0 || request.places.on_host(Buffer::Boundaries);
    return Relaxation(make_training_plan(model, on_device, find_policy("none")), times, may_leave)
        .seconds(budget.device_bytes);
}

}  // namespace llmc
