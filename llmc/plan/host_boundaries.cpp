#include "llmc/plan/host_boundaries.h"

#include <algorithm>
#include <utility>

namespace llmc {
namespace {

/// Steps [first, last]; none at all if last < first.
struct StepRange {
    int first = 0, last = -1;
};

class BoundaryMoves {
  public:
    BoundaryMoves(const Model& model, Plan plan) : layers_(static_cast<int>(model.config.L)), plan_(std::move(plan)) {
        before_.resize(plan_.steps.size());
        after_.resize(plan_.steps.size());
        find_layers();
        find_uses();
    }

    Plan move(const std::vector<bool>& chosen) {
        constexpr int kOnDevice = 2;
        for (int layer = 0; layer < layers_; ++layer) {
            const bool wanted = chosen.empty() ? layer < layers_ - kOnDevice : chosen[static_cast<size_t>(layer)];
            if (wanted) move_input(layer);
        }
        plan_.places[Buffer::Boundaries].memory = plan_.host_bytes > 0 ? Memory::Host : Memory::Device;
        std::vector<Step> steps;
        steps.reserve(plan_.steps.size() + 4 * inputs_.size());
        for (size_t i = 0; i < plan_.steps.size(); ++i) {
            steps.insert(steps.end(), before_[i].begin(), before_[i].end());
            steps.push_back(std::move(plan_.steps[i]));
            steps.insert(steps.end(), after_[i].begin(), after_[i].end());
        }
        plan_.steps = std::move(steps);
        return std::move(plan_);
    }

  private:
    static bool is_after_forward(const Step& step) {
        return step.phase == Phase::Recompute || step.phase == Phase::Backward;
    }

    /// Of a layer's backward: from the end of the backward of the layer above, with what is brought back for it.
    void find_layers() {
        forward_.resize(static_cast<size_t>(layers_));
        backward_.resize(static_cast<size_t>(layers_));
        int begin = static_cast<int>(plan_.steps.size());
        for (int i = 0; i < static_cast<int>(plan_.steps.size()); ++i) {
            const Step& step = plan_.steps[static_cast<size_t>(i)];
            if (is_after_forward(step)) begin = std::min(begin, i);
            if (step.row < 0 || step.phase == Phase::Recompute) continue;
            StepRange& range = (is_after_forward(step) ? backward_ : forward_)[static_cast<size_t>(step.layer)];
            if (range.last < range.first) range.first = i;
            range.last = i;
        }
        for (int layer = layers_ - 1; layer >= 0; --layer) {
            StepRange& range = backward_[static_cast<size_t>(layer)];
            if (range.last < range.first) break;  // Neither it nor one below has a backward.
            range.first = begin;
            begin = range.last + 1;
        }
    }

    /// Of every layer's input, before it is brought back by another tensor.
    void find_uses() {
        inputs_.assign(static_cast<size_t>(layers_), -1);
        uses_.resize(static_cast<size_t>(layers_));
        for (size_t i = 0; i < plan_.tensors.size(); ++i) {
            const PlanTensor& tensor = plan_.tensors[i];
            if (tensor.consumer != Consumer::Boundaries || tensor.layer < 0 || tensor.layer >= layers_) continue;
            int32_t& input = inputs_[static_cast<size_t>(tensor.layer)];
            if (input < 0) input = static_cast<int32_t>(i);
        }
        for (int i = 0; i < static_cast<int>(plan_.steps.size()); ++i) {
            const Step& step = plan_.steps[static_cast<size_t>(i)];
            if (!is_after_forward(step)) continue;
            for (const int32_t operand : step.operands) {
                if (operand < 0 || plan_.tensor(operand).consumer != Consumer::Boundaries) continue;
                const auto layer = static_cast<size_t>(plan_.tensor(operand).layer);
                if (layer < inputs_.size() && inputs_[layer] == operand) uses_[layer].push_back(i);
            }
        }
    }

    /// The layer in whose backward a step stands; -1: in none.
    int layer_at(int step) const {
        for (int layer = 0; layer < layers_; ++layer) {
            const StepRange& range = backward_[static_cast<size_t>(layer)];
            if (range.first <= step && step <= range.last) return layer;
        }
        return -1;
    }

    void move_input(int layer) {
        const int32_t here = inputs_[static_cast<size_t>(layer)];
        const std::vector<int>& uses = uses_[static_cast<size_t>(layer)];
        const int asked = uses.empty() ? -1 : layer_at(uses.front());
        if (asked < 0 || asked + 1 >= layers_) return;

        const auto back = static_cast<int32_t>(plan_.tensors.size());
        for (const int i : uses) {
            auto& operands = plan_.steps[static_cast<size_t>(i)].operands;
            std::replace(operands.begin(), operands.end(), here, back);
        }
        PlanTensor copy = plan_.tensor(here);
        copy.alias = -1;  // An adapter writes the input in the place of what it adds to; this has its own.
        plan_.tensors.push_back(copy);
        const StepRange &out = forward_[static_cast<size_t>(layer)], &next = forward_[static_cast<size_t>(layer) + 1];
        const StepRange& above = backward_[static_cast<size_t>(asked) + 1];
        before_[static_cast<size_t>(out.first)].push_back(copy_step(StepKind::CopyOut, layer, here));
        after_[static_cast<size_t>(next.last)].push_back(copy_step(StepKind::WaitCopyOut, layer, here));
        before_[static_cast<size_t>(above.first)].push_back(copy_step(StepKind::Fetch, layer, back));
        after_[static_cast<size_t>(above.last)].push_back(copy_step(StepKind::WaitFetch, layer, back));
        plan_.host_bytes += copy.bytes;
    }

    Step copy_step(StepKind kind, int layer, int32_t tensor) const {
        Step step;
        step.kind = kind, step.layer = static_cast<int16_t>(layer);
        const bool out = kind == StepKind::CopyOut || kind == StepKind::WaitCopyOut;
        step.phase = out ? Phase::Forward : Phase::Backward;
        step.operand(out ? Slot::In : Slot::Out) = tensor;
        const bool begins = kind == StepKind::CopyOut || kind == StepKind::Fetch;
        if (begins) step.host_offset = plan_.host_bytes;
        return step;
    }

    const int layers_;
    Plan plan_;
    std::vector<StepRange> forward_, backward_;      ///< By layer.
    std::vector<int32_t> inputs_;                    ///< By layer, as the forward has it ...
    std::vector<std::vector<int>> uses_;             ///< ... and the steps after the forward that it is an operand of.
    std::vector<std::vector<Step>> before_, after_;  ///< By step, what is put in.
};

}  // namespace

Plan with_boundaries_on_host(const Model& model, Plan plan, const std::vector<bool>& chosen) {
    return BoundaryMoves(model, std::move(plan)).move(chosen);
}

}  // namespace llmc
