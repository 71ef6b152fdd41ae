#include "llmc/train/plan_output.h"

#include "llmc/base/units.h"
#include "llmc/model/trainable.h"
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

std::string level_label(const std::string& policy) {
    const std::string level = policy == "auto" ? "" : find_policy(policy).level;
    return fmt::format("{:1} {}", level, policy);
}

std::string model_line(const Model& model) {
    return fmt::format("{}: {}; {} parameters{}\n", model.config.name, describe(model.config),
                       format_count(model.parameter_count()),
                       model.has_frozen() ? "; trains " + describe_trainable(model) : "");
}

}  // namespace llmc
