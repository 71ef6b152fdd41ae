#include "llmc/plan/unpack.h"

#include "llmc/plan/add_tensor.h"
#include "llmc/plan/communicate.h"
#include "llmc/plan/stored_row.h"

#include <spdlog/fmt/fmt.h>

#include <array>
#include <string>
#include <utility>
#include <vector>

namespace llmc {
namespace {

constexpr std::array<Slot, 2> kRowSlots = {Slot::Weight, Slot::Bias};  ///< In the order of parameters_of().

/// Whether an operation reads a row that has to be unpacked for it.
bool needs_unpacked(const Model& model, const Places& places, const Step& step, int row) {
    return row != kNone && step.kind == StepKind::Compute && reads_parameters(step) && is_unpacked(model, places, row);
}

class Unpacking {
  public:
    Unpacking(const Model& model, Plan plan) : model_(model), plan_(std::move(plan)) {}

    Plan insert() {
        for (Step& step : std::exchange(plan_.steps, {})) {
            const std::array<int, 2> rows = parameters_of(model_, step);
            for (size_t i = 0; i < rows.size(); ++i) {
                if (needs_unpacked(model_, plan_.places, step, rows[i])) {
                    step.operand(kRowSlots[i]) = unpacked(step, rows[i]);
                }
            }
            plan_.steps.push_back(std::move(step));
        }
        return std::move(plan_);
    }

  private:
    int32_t unpacked(const Step& reader, int row) {
        if (reader.is_of_chunk() && head_ != kNone) return head_;
        const ParameterRow& parameter = model_.parameters[static_cast<size_t>(row)];
        const std::string name = parameter.name.substr(parameter.name.rfind('.') + 1);
        const int32_t tensor = add_tensor(&plan_, name, reader.layer, read_type(model_, plan_.places, row),
                                          parameter.rows, parameter.cols, Consumer::UnpackedWeights);
        Step step;
        step.kind = StepKind::Unpack, step.phase = reader.phase, step.layer = reader.layer;
        step.parameter = row;
        step.elements = unpacked_bytes(model_, plan_.places, row);
        step.operand(Slot::Out) = tensor;
        plan_.steps.push_back(step);
        if (reader.is_of_chunk()) head_ = tensor;
        return tensor;
    }

    const Model& model_;
    Plan plan_;
    int32_t head_ = kNone;  ///< What the classifier's chunks share.
};

}  // namespace

int64_t unpacked_bytes(const Model& model, const Places& places, int row) {
    const ParameterRow& parameter = model.parameters[static_cast<size_t>(row)];
    return stored_bytes(parameter, stored_format(model, places, row)) +
           parameter.count() * size_of(read_type(model, places, row));
}

Plan with_unpacking(const Model& model, Plan plan) {
    bool any = false;
    for (int row = 0; row < static_cast<int>(model.parameters.size()); ++row) {
        any = any || is_unpacked(model, plan.places, row);
    }
    return any ? Unpacking(model, std::move(plan)).insert() : plan;
}

std::string UnpackCheck::unpack(const Step& step) {
    const bool is_row = step.parameter >= 0 && step.parameter < static_cast<int>(model_.parameters.size());
    if (!is_row || !is_unpacked(model_, plan_.places, step.parameter)) return "unpacks what is read as it is stored";
    const ParameterRow& row = model_.parameters[static_cast<size_t>(step.parameter)];
    const int32_t out = step.operand(Slot::Out);
    if (out < 0) return "unpacks a row into nothing";
    const PlanTensor& tensor = plan_.tensor(out);
    const bool fits = tensor.rows == row.rows && tensor.cols == row.cols &&
                      tensor.dtype == read_type(model_, plan_.places, step.parameter);
    if (!fits) return fmt::format("unpacks {} into a tensor of another shape or type", row.name);
    if (step.elements != unpacked_bytes(model_, plan_.places, step.parameter)) return "is priced for another row";
    rows_.resize(plan_.tensors.size(), kNone);
    rows_[static_cast<size_t>(out)] = step.parameter;
    return "";
}

std::string UnpackCheck::fault_of(const Step& step) {
    if (step.kind == StepKind::Unpack) return unpack(step);
    if (step.kind != StepKind::Compute) return "";
    const std::array<int, 2> rows = parameters_of(model_, step);
    for (size_t i = 0; i < rows.size(); ++i) {
        const int32_t tensor = step.operand(kRowSlots[i]);
        const bool needs = needs_unpacked(model_, plan_.places, step, rows[i]);
        if (!needs && tensor >= 0) return "has an unpacked row, and needs none";
        if (!needs) continue;
        const bool has =
            tensor >= 0 && static_cast<size_t>(tensor) < rows_.size() && rows_[static_cast<size_t>(tensor)] == rows[i];
        if (!has) {
            return fmt::format("reads {}, which has not been unpacked",
                               model_.parameters[static_cast<size_t>(rows[i])].name);
        }
    }
    return "";
}

}  // namespace llmc
