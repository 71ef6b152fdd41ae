// The part of the verifier that knows gradients and the update (gradients.h, update.h): whether the first writer of
// every row of gradients overwrites and later ones add, whether the rest is zeroed, in which micro-batches steps run,
// the order of norm, optimiser, gather, and that no step works for frozen rows. Of a delayed update: that each bucket's
// comes before the first step that touches its parameters or overwrites its gradients, and all before the next norm;
// that a flush updates everything too; and that no other step touches what may not have come.
#pragma once

#include "llmc/plan/step.h"

#include <map>
#include <string>
#include <vector>

namespace llmc {

/// Follows a plan step by step.
class UpdateCheck {
  public:
    UpdateCheck(const Model& model, const Plan& plan);

    /// What is wrong with the next step as far as gradients and the update go; empty if nothing. `lacks_operands`: a
    /// part of a fused step, whose operands may be stored nowhere.
    std::string fault_of(const Step& step, bool lacks_operands = false);
    /// To be asked after the last step.
    std::string fault_of_end() const;

  private:
    /// How far the optimiser has come, by bucket.
    struct Progress {
        std::vector<bool> updated, gathered;
        std::vector<int64_t> elements;
        bool is_whole(int bucket) const {
            return updated[static_cast<size_t>(bucket)] && gathered[static_cast<size_t>(bucket)];
        }
    };
    Progress& progress_of(const Step& step) { return step.when == When::Pending ? pending_ : update_; }
    bool is_pending(int bucket) const { return plan_.delays_update() && !pending_.is_whole(bucket); }
    std::string too_early(const Step& step);
    std::string borrowed(const Step& step);
    std::string apply(const Step& step);
    std::string useless(const Step& step) const;
    std::string write(const Step& step);
    std::string zero(const Step& step);
    std::string update(const Step& step);
    std::string fold(const Step& step);
    int trained_buckets() const;
    bool all_written(int bucket) const;
    Adds first_adds() const;
    When when_of(const Step& step) const;
    const std::string& name_of(int parameter) const;

    const Model& model_;
    const Plan& plan_;
    std::vector<bool> written_;  ///< By parameter.
    std::vector<bool> zeroed_;   ///< By bucket, and the next ones.
    std::vector<bool> squared_;
    Progress update_, pending_;  ///< Pending: of the update before, in the forward.
    std::vector<bool> needs_zeroing_;
    std::map<int32_t, When> of_update_;  ///< Tensors of a delayed update, by when it runs.
    int folded_buckets_ = 0;
    bool trains_ = false, updating_ = false, sums_gathered_ = false, begun_ = false, folded_ = false;
};

}  // namespace llmc
