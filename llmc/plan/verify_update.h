// The part of the verifier that knows gradients and the update (gradients.h, update.h): whether the first writer of
// every row of gradients overwrites and later ones add, whether the rest is zeroed, in which micro-batches steps run,
// the order of norm, optimiser, gather, and that no step works for frozen rows.
#pragma once

#include "llmc/plan/step.h"

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
    std::vector<bool> zeroed_;   ///< By bucket, and the next four.
    std::vector<bool> squared_, updated_, gathered_;
    std::vector<int64_t> updated_elements_;  ///< By bucket, so far.
    std::vector<bool> needs_zeroing_;
    int folded_buckets_ = 0;
    bool trains_ = false, updating_ = false, sums_gathered_ = false, begun_ = false, folded_ = false;
};

}  // namespace llmc
