#include "llmc/train/plan_output.h"

#include "llmc/base/units.h"
#include "llmc/draw/timeline.h"
#include "llmc/plan/policy.h"

#include <spdlog/fmt/fmt.h>

#include <sstream>

namespace llmc {

std::vector<std::string> wanted_policies(const Options& options) {
    std::vector<std::string> wanted;
    if (!options.was_given("recompute")) {
        for (const PolicyRow& row : policies()) wanted.push_back(row.name);
        return wanted;
    }
    std::istringstream names(options.recompute);
    for (std::string name; std::getline(names, name, ',');) {
        wanted.push_back(name == "auto" ? name : find_policy(name).name);
    }
    if (wanted.empty()) find_policy(options.recompute);
    return wanted;
}

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
