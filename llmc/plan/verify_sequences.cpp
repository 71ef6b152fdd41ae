#include "llmc/plan/verify_sequences.h"

#include <utility>

namespace llmc {

bool SequencesCheck::needs_documents(const Step& step) const {
    if (step.op == OpKind::Attention || step.rope) return true;
    if (step.op != OpKind::Embedding) return false;
    return step.pass == Pass::Forward ? model_.wpe != kNone : model_.trains(model_.wpe);
}

std::string SequencesCheck::fault_of_documents(const Step& step) {
    const int32_t told = step.operand(Slot::Documents);
    const bool wanted = plan_.shape.packed && needs_documents(step);
    if (wanted != (told >= 0)) {
        return wanted ? "is not told where documents begin" : "is told where documents begin, and does not care";
    }
    if (told < 0) return "";
    if (documents_ == kNone) documents_ = told;
    if (!plan_.tensor(told).external || told != documents_) return "is told something else than where documents begin";
    return "";
}

/// Masks are drawn in training, and there by one tensor.
std::string SequencesCheck::fault_of_mask_rows(const Step& step) {
    const int32_t told = step.operand(Slot::MaskRows);
    const bool wanted = plan_.trains() && model_.drops(step.op);
    if (wanted != (told >= 0)) {
        return wanted ? "is not told what masks are drawn by" : "is told what masks are drawn by, and drops nothing";
    }
    if (told < 0) return "";
    if (mask_rows_ == kNone) mask_rows_ = told;
    if (!plan_.tensor(told).external || told != mask_rows_)
        return "is told something else than what masks are drawn by";
    return "";
}

std::string SequencesCheck::gather(const Step& step) {
    if (std::exchange(rows_, step.operand(Slot::Rows)) != kNone) return "comes twice";
    if (rows_ < 0 || !plan_.tensor(rows_).external) return "is not told which rows count";
    scored_ = step.operand(Slot::Out);
    return "";
}

std::string SequencesCheck::scatter(const Step& step) {
    const int32_t places = step.operand(Slot::Rows);
    if (std::exchange(scattered_, true)) return "comes twice";
    if (places < 0 || places == rows_ || !plan_.tensor(places).external) return "is not told where rows belong";
    return step.operand(Slot::DOut) == d_scored_ ? "" : "has another gradient than the head's";
}

/// A chunk of the head, which other rows than those that count have no place in.
std::string SequencesCheck::chunk(const Step& step) {
    if (step.op == OpKind::CrossEntropy || scored_ == kNone) return "";
    if (step.pass == Pass::BackwardInput) d_scored_ = step.operand(Slot::DIn);
    return step.pass != Pass::BackwardInput && step.operand(Slot::In) != scored_ ? "has not the rows that count" : "";
}

std::string SequencesCheck::fault_of(const Step& step) {
    if (step.kind != StepKind::Compute) return "";
    if (std::string fault = fault_of_documents(step); !fault.empty()) return fault;
    if (std::string fault = fault_of_mask_rows(step); !fault.empty()) return fault;
    if (step.op == OpKind::ScoredRows) {
        if (!plan_.shape.partly_scored) return "has no place where all rows count";
        return step.pass == Pass::Forward ? gather(step) : scatter(step);
    }
    if (!step.is_of_chunk() || !plan_.shape.partly_scored) return "";
    return rows_ == kNone ? "comes before the rows that count are gathered" : chunk(step);
}

std::string SequencesCheck::fault_of_end() const {
    if (!plan_.shape.partly_scored) return "";
    if (rows_ == kNone) return "never gathers the rows that count";
    return d_scored_ != kNone && !scattered_ ? "never brings the gradients of the rows that count back" : "";
}

}  // namespace llmc
