#include "llmc/train/options_levels.h"

#include "llmc/plan/policy.h"

#include <sstream>

namespace llmc {

std::vector<std::string> wanted_policies(const Options& options) {
    std::vector<std::string> wanted;
    if (!options.was_given(kLevelOption)) {
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

std::vector<std::string> levels_to_fit(const Options& options) {
    std::vector<std::string> levels = wanted_policies(options);
    if (!options.was_given(kLevelOption)) levels.push_back("auto");
    return levels;
}

}  // namespace llmc
