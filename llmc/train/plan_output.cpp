#include "llmc/train/plan_output.h"

#include "llmc/base/units.h"
#include "llmc/draw/timeline.h"

#include <spdlog/fmt/fmt.h>

namespace llmc {

std::string timeline_picture(const Model& model, const PlannedMemory& memory) {
    const Plan& plan = memory.plan;
    const std::string title =
        fmt::format("{}, --recompute={}: memory over one micro-batch", model.config.name, plan.policy);
    const std::string subtitle =
        fmt::format("{} x {} tokens, {}; parameters, gradients and optimiser take {} besides, all the time",
                    plan.shape.B, plan.shape.T, name_of(plan.dtype), format_bytes(memory.state.total()));
    return draw_timeline(model, plan, memory.layout, title, subtitle);
}

}  // namespace llmc
