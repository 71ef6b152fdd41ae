// What the verifier (verify.h) checks of packed sequences, of masks and of scored rows: every step that goes by
// positions or attends is told where documents begin, every step that drops what its masks are drawn by, and the head
// has the rows that count, and no others, which go back to where they came from.
#pragma once

#include "llmc/model/model.h"
#include "llmc/plan/step.h"

#include <string>

namespace llmc {

class SequencesCheck {
  public:
    SequencesCheck(const Model& model, const Plan& plan) : model_(model), plan_(plan) {}

    /// What is wrong with the next step as far as sequences go; empty if nothing.
    std::string fault_of(const Step& step);
    /// To be asked after the last step.
    std::string fault_of_end() const;

  private:
    bool needs_documents(const Step& step) const;
    std::string fault_of_documents(const Step& step);
    std::string fault_of_mask_rows(const Step& step);
    std::string gather(const Step& step);
    std::string scatter(const Step& step);
    std::string chunk(const Step& step);

    const Model& model_;
    const Plan& plan_;
    int32_t documents_ = kNone;  ///< The tensor that the first step was told.
    int32_t mask_rows_ = kNone;  ///< The same.
    int32_t rows_ = kNone;       ///< Of the gather ...
    int32_t scored_ = kNone;     ///< ... and what it wrote.
    int32_t d_scored_ = kNone;   ///< Its gradient.
    bool scattered_ = false;
};

}  // namespace llmc
