// Unpacking: rows that operations read in another format than they are stored in (stored_row.h) come into a tensor of
// the plan right before, in the forward, its repeats and the backward alike: matrices in NF4, a base in fp32 or bf16
// beside activations of the other type, what trains in fp32 beside adapters in bf16. Chunks of the classifier, which
// all read the same row, share one tensor.
#pragma once

#include "llmc/plan/step.h"

namespace llmc {

/// The plan with the steps that its operations need; the same plan where all rows are read as they are stored.
Plan with_unpacking(const Model& model, Plan plan);

/// What of a row an Unpack step reads and writes, in bytes.
int64_t unpacked_bytes(const Model& model, const Places& places, int row);

/// Follows a plan step by step: whether operations read what has been unpacked of their own rows, and nothing else.
class UnpackCheck {
  public:
    UnpackCheck(const Model& model, const Plan& plan) : model_(model), plan_(plan) {}

    /// What is wrong with the next step as far as unpacking goes; empty if nothing.
    std::string fault_of(const Step& step);

  private:
    std::string unpack(const Step& step);

    const Model& model_;
    const Plan& plan_;
    std::vector<int> rows_;  ///< By tensor, the row that it holds; kNone if none.
};

}  // namespace llmc
