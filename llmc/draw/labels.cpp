#include "llmc/draw/labels.h"

#include "llmc/base/units.h"
#include "llmc/model/trainable.h"
#include "llmc/plan/policy.h"

#include <spdlog/fmt/fmt.h>

namespace llmc {

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
