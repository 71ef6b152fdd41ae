#include "llmc/train/plan_output.h"

#include "llmc/plan/policy.h"

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

}  // namespace llmc
