#include "llmc/plan/delay_update.h"

#include "llmc/plan/communicate.h"
#include "llmc/plan/simulate.h"
#include "llmc/plan/update.h"

#include <algorithm>
#include <utility>

namespace llmc {
namespace {

class PendingUpdate {
  public:
    PendingUpdate(const Model& model, Plan plan)
        : model_(model),
          plan_(std::move(plan)),
          end_(static_cast<int>(plan_.steps.size())),
          uses_(first_uses(model, plan_)),
          update_(update_parts(model, &plan_, When::Pending, plan_.update_ahead)) {}

    Plan insert() {
        const std::vector<int> before = spread(limits());
        const std::vector<Step> steps = std::exchange(plan_.steps, {});
        size_t next = 0;
        for (int i = 0; i <= end_; ++i) {
            for (; next < before.size() && before[next] <= i; ++next) append(update_.parts[next]);
            for (size_t bucket = 0; bucket < uses_.size(); ++bucket) {
                const Step& wait = update_.waits[bucket];
                if (uses_[bucket] == i && wait.bucket >= 0) plan_.steps.push_back(wait);
            }
            if (i < end_) plan_.steps.push_back(steps[static_cast<size_t>(i)]);
        }
        return std::move(plan_);
    }

  private:
    void append(const std::vector<Step>& steps) { plan_.steps.insert(plan_.steps.end(), steps.begin(), steps.end()); }

    /// By part, the step that it must come before. A bucket that is gathered is updated before the first use of the one
    /// before it, so that it travels beside that; what comes after the last bucket's, before its gradients are made.
    std::vector<int> limits() const {
        std::vector<int> result(update_.parts.size(), after_last_use());
        int use_before = kNone;
        for (size_t bucket = 0; bucket < uses_.size(); ++bucket) {
            const int with = update_.complete_with[bucket];
            if (with < 0) continue;
            const bool travels = update_.waits[bucket].bucket >= 0 && use_before != kNone;
            const int use = travels ? use_before : uses_[bucket];
            use_before = uses_[bucket];
            for (int part = 0; part <= with; ++part) {
                int& limit = result[static_cast<size_t>(part)];
                limit = std::min(limit, use);
            }
        }
        return result;
    }

    int after_last_use() const {
        const int last = *std::max_element(uses_.begin(), uses_.end());
        int step = std::min(last, end_);
        while (step < end_ && plan_.steps[static_cast<size_t>(step)].pass == Pass::Forward) ++step;
        return step;
    }

    /// Parts with one limit are spread evenly, by FLOPs, over the steps from the limit before on.
    std::vector<int> spread(const std::vector<int>& limits) const {
        std::vector<int> result = limits;
        int begin = 0;
        for (size_t first = 0, last = 0; first < limits.size(); begin = limits[first], first = last) {
            while (last < limits.size() && limits[last] == limits[first]) ++last;
            double all = 0, done = 0;
            for (int i = begin; i < limits[first]; ++i) all += flops(i);
            size_t part = first;
            for (int i = begin; i < limits[first]; ++i) {
                done += flops(i);
                const auto share = [&] {
                    return static_cast<double>(part - first + 1) / static_cast<double>(last - first);
                };
                for (; part < last && done >= share() * all; ++part) result[part] = i + 1;
            }
        }
        return result;
    }
    double flops(int step) const { return step_flops(model_, plan_, plan_.steps[static_cast<size_t>(step)]); }

    const Model& model_;
    Plan plan_;
    const int end_;
    const std::vector<int> uses_;
    const UpdateParts update_;
};

}  // namespace

std::vector<int> first_uses(const Model& model, const Plan& plan) {
    std::vector<int> uses(plan.partition.buckets.size(), static_cast<int>(plan.steps.size()));
    for (int i = static_cast<int>(plan.steps.size()) - 1; i >= 0; --i) {
        const Step& step = plan.steps[static_cast<size_t>(i)];
        const bool is_frozen = (step.is_copy() || step.is_communication()) && step.buffer == Buffer::Frozen;
        const bool computes = reads_parameters(step) || writes_gradients(model, step);
        const int bucket = computes ? bucket_of(model, plan.partition, step) : is_frozen ? kNone : step.bucket;
        if (bucket >= 0) uses[static_cast<size_t>(bucket)] = i;
    }
    return uses;
}

Plan with_pending_update(const Model& model, Plan plan) { return PendingUpdate(model, std::move(plan)).insert(); }

}  // namespace llmc
