// The part of the verifier that knows ranks (communicate.h): what is gathered or reduced when, and whether the steps
// that read parameters and write gradients find those of their own bucket.
#pragma once

#include "llmc/plan/step.h"

#include <cstddef>
#include <deque>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace llmc {

/// Follows a plan step by step.
class CommunicationCheck {
  public:
    CommunicationCheck(const Model& model, const Plan& plan);

    /// What is wrong with the next step as far as communication goes; empty if nothing.
    std::string fault_of(const Step& step);
    /// To be asked after the last step.
    std::string fault_of_end() const;

  private:
    struct Gradients {
        int32_t tensor = kNone;  ///< Where they are not kept whole.
        bool written = false, reduced = false, complete = false, shared = false;
    };
    std::string name_of_bucket(int bucket) const;
    std::string touched(const Step& step) const;
    std::string compute(const Step& step);
    std::string write(const Step& step, int bucket);
    std::string join(const Step& step);
    std::string fold(const Step& step) const;
    std::string fetch(const Step& step);
    std::string reduce(const Step& step);
    std::string share(const Step& step);
    std::string gather(const Step& step);
    std::string wait(const Step& step, StepKind begun);
    bool holds(int32_t tensor, int64_t pieces, int bucket, Buffer buffer) const;
    const Partition& partition_of(Buffer buffer) const { return buffer == Buffer::Frozen ? frozen_ : partition_; }
    bool is_gathered(const Step& step, Buffer buffer) const;
    bool in_pieces(Buffer buffer) const { return plan_.places.in_pieces(buffer); }
    Gradients& gradients(int bucket) { return gradients_[static_cast<size_t>(bucket)]; }

    const Model& model_;
    const Plan& plan_;
    const Partition partition_, frozen_;
    std::vector<Gradients> gradients_;                    ///< By bucket.
    std::map<int32_t, std::pair<int, Buffer>> gathered_;  ///< Buckets by tensor, from the gather on.
    std::deque<Step> under_way_;                          ///< Reductions and gathers not waited for, by age.
};

}  // namespace llmc
