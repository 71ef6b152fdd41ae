#include "llmc/train/binding.h"

#include "llmc/backend/make_backend.h"
#include "llmc/comm/launcher.h"

#include <spdlog/fmt/fmt.h>

namespace llmc {
namespace {

/// "1 of the 2 cores of host"; "" where the ranks of this host have all that they could have.
std::string idle_cores(const std::vector<std::string>& places, const std::string& host,
                       const Environment& environment) {
    std::string processors;
    for (const std::string& place : places) {
        if (!place.starts_with(host + " ")) continue;
        processors += (processors.empty() ? "" : ",") + place.substr(host.size() + 1);
    }
    const Binding binding = binding_of(processors);
    if (binding.cores >= binding.cores_if_unbound) return "";
    // A batch system may keep to itself what it has not given to the job, without a control group that does.
    const int64_t given = number(environment, "SLURM_CPUS_ON_NODE").value_or(binding.processors + 1);
    if (binding.processors >= given) return "";
    return fmt::format("{} of the {} cores of {}", binding.cores, binding.cores_if_unbound, host);
}

}  // namespace

std::string place_of_rank(const Comm& comm) { return comm.host() + " " + allowed_processors(); }

std::string warning_of_binding(const std::vector<std::string>& places, Comm& comm) {
    const Environment environment = process_environment();
    const std::optional<Launcher> launcher = launcher_that_binds(environment);
    const std::string mine = launcher ? idle_cores(places, comm.host(), environment) : "";
    const std::vector<std::string> all = comm.all_gather(mine);
    if (!comm.is_root() || !launcher) return "";
    for (const std::string& idle : all) {
        if (idle.empty()) continue;
        return fmt::format("{} has bound {} to {}; to use all of them: {}", launcher->name,
                           comm.size() == 1 ? "this process" : "the ranks of a host", idle, launcher->unbind);
    }
    return "";
}

}  // namespace llmc
