#include "llmc/comm/launcher.h"

#include "llmc/base/printable.h"
#include "llmc/comm/link.h"

#include <spdlog/fmt/fmt.h>

#include <unistd.h>
#include <vector>

namespace llmc {
namespace {

using Kind = Launcher::Kind;

/// Slurm's number of tasks is that of the step, or of the job where the step has none.
Launcher slurm(const Environment& environment) {
    const std::string of_step = "SLURM_STEP_NUM_TASKS";
    return {Kind::Slurm,
            "srun",
            "SLURM_PROCID",
            variable(environment, of_step) ? of_step : "SLURM_NTASKS",
            "",
            "SLURM_JOB_ID",
            "srun --cpu-bind=none, or give each task more cores with srun --cpus-per-task"};
}

const Launcher& by_hand() {
    static const Launcher launcher = {Kind::ByHand, "torchrun", "RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "", ""};
    return launcher;
}

/// Innermost first. PALS, Flux and JSM bring PMI's variables along, too.
const std::vector<Launcher>& mpi_launchers() {
    static const std::vector<Launcher> launchers = {
        {Kind::Mpi, "mpirun", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE",
         "PMIX_NAMESPACE", "mpirun --bind-to none"},
        {Kind::Mpi, "mpirun_rsh", "MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_LOCAL_SIZE", "",
         "MV2_ENABLE_AFFINITY=0"},
        {Kind::Mpi, "jsrun", "JSM_NAMESPACE_RANK", "JSM_NAMESPACE_SIZE", "JSM_NAMESPACE_LOCAL_SIZE", "",
         "jsrun --bind none"},
        {Kind::Mpi, "mpiexec", "PALS_RANKID", "PALS_NRANKS", "PALS_LOCAL_SIZE", "PALS_APID", "mpiexec --cpu-bind none"},
        {Kind::Mpi, "flux run", "FLUX_TASK_RANK", "FLUX_JOB_SIZE", "", "FLUX_JOB_ID", "flux run -o cpu-affinity=off"},
        {Kind::Mpi, "mpiexec", "PMI_RANK", "PMI_SIZE", "MPI_LOCALNRANKS", "",
         "mpiexec -bind-to none (Intel MPI: I_MPI_PIN=0)"},
        {Kind::Mpi, "poe", "MP_CHILD", "MP_PROCS", "", "", ""},
        {Kind::Mpi, "horovodrun", "HOROVOD_RANK", "HOROVOD_SIZE", "HOROVOD_LOCAL_SIZE", "", ""},
    };
    return launchers;
}

/// Variables that number processes without telling how many there are.
struct Counter {
    const char* rank;
    int64_t first;
    const char* launcher;
    bool is_sure;  ///< Those who count so start processes that belong together.
};
constexpr Counter kCounters[] = {{"PMIX_RANK", 0, "a launcher with PMIx", true},
                                 {"PMI_ID", 0, "mpiexec", true},
                                 {"MPI_LOCALRANKID", 0, "mpiexec", true},
                                 {"PMI_LOCAL_RANK", 0, "mpiexec", true},
                                 {"PALS_LOCAL_RANKID", 0, "mpiexec", true},
                                 {"OMPI_COMM_WORLD_LOCAL_RANK", 0, "mpirun", true},
                                 {"MV2_COMM_WORLD_LOCAL_RANK", 0, "mpirun_rsh", true},
                                 {"JSM_NAMESPACE_LOCAL_RANK", 0, "jsrun", true},
                                 {"FLUX_TASK_LOCAL_ID", 0, "flux run", true},
                                 {"ALPS_APP_PE", 0, "aprun", true},
                                 {"LSF_PM_TASKID", 1, "LSF's blaunch", false},
                                 {"PBS_TASKNUM", 1, "pbsdsh", false}};

bool is_set(const Environment& environment, const Launcher& launcher) {
    return variable(environment, launcher.rank) || variable(environment, launcher.size);
}

bool is_complete(const Environment& environment, const Launcher& launcher) {
    return variable(environment, launcher.rank) && variable(environment, launcher.size);
}

/// "NAME=value" of a variable that is there.
std::string shown(const Environment& environment, const std::string& name) {
    return fmt::format("{}={}", name, one_line(environment.at(name)));
}

/// A count other than one; what is no number is refused where it is read.
bool is_several(const Environment& environment, const std::string& name) {
    return variable(environment, name).value_or("1") != "1";
}

/// The tasks of the step that this process is one of; 1 in a batch script, which has the job's variables.
int64_t slurm_tasks(const Environment& environment) {
    const bool is_task = variable(environment, "SLURM_STEP_ID") || variable(environment, "SLURM_STEP_NUM_TASKS") ||
                         number(environment, "SLURM_PROCID").value_or(0) > 0;
    if (!is_task || !variable(environment, "SLURM_PROCID")) return 1;
    return number(environment, slurm(environment).size).value_or(1);
}

std::string sign_of_slurm(const Environment& environment) {
    const int64_t tasks = slurm_tasks(environment);
    if (tasks <= 1) return "";
    return fmt::format("{}, SLURM_PROCID={}: srun has started {} tasks", shown(environment, slurm(environment).size),
                       environment.at("SLURM_PROCID"), tasks);
}

std::string sign_of_counters(const Environment& environment, bool is_sure) {
    for (const Counter& counter : kCounters) {
        if (counter.is_sure != is_sure || number(environment, counter.rank).value_or(0) <= counter.first) continue;
        return fmt::format("{}: {} has started several processes", shown(environment, counter.rank), counter.launcher);
    }
    // blaunch numbers from 1, and the job knows how many it may start.
    if (!is_sure && variable(environment, "LSF_PM_TASKID") && is_several(environment, "LSB_DJOB_NUMPROC")) {
        return fmt::format("LSF_PM_TASKID={}, {}: LSF's blaunch has started several processes",
                           environment.at("LSF_PM_TASKID"), shown(environment, "LSB_DJOB_NUMPROC"));
    }
    return "";
}

}  // namespace

Environment process_environment() {
    Environment environment;
    for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry) {
        const std::string text = *entry;
        const size_t equals = text.find('=');
        if (equals != std::string::npos) environment.emplace(text.substr(0, equals), text.substr(equals + 1));
    }
    return environment;
}

std::optional<std::string> variable(const Environment& environment, const std::string& name) {
    const auto entry = environment.find(name);
    if (entry == environment.end() || entry->second.empty()) return std::nullopt;
    return entry->second;
}

std::optional<int64_t> number(const Environment& environment, const std::string& name) {
    const std::optional<std::string> text = variable(environment, name);
    return text ? to_integer(*text) : std::nullopt;
}

std::string one_line(const std::string& value) {
    std::string line;
    for (const char c : printable(value)) line += c == '\n' ? "\\n" : std::string(1, c);
    return line;
}

Launcher launcher_of(const Environment& environment) {
    const bool hand = is_set(environment, by_hand());
    if (hand && number(environment, by_hand().size) != 1) return by_hand();
    const Launcher of_slurm = slurm(environment);
    for (const Launcher& launcher : mpi_launchers()) {
        if (!is_complete(environment, launcher)) continue;
        if (hand && !is_several(environment, launcher.size)) continue;
        // srun --mpi=pmi2 sets both, and Slurm's variables tell more.
        const bool same = is_complete(environment, of_slurm) && slurm_tasks(environment) > 1 &&
                          environment.at(launcher.rank) == environment.at(of_slurm.rank) &&
                          environment.at(launcher.size) == environment.at(of_slurm.size);
        return same ? of_slurm : launcher;
    }
    if (!hand && is_set(environment, of_slurm)) return of_slurm;
    return by_hand();
}

Launcher mpi_launcher_of(const Environment& environment) {
    for (const Launcher& launcher : mpi_launchers()) {
        if (is_set(environment, launcher)) return launcher;
    }
    return {Kind::Mpi, "", "PMIX_RANK", "", "", "", ""};
}

bool has_mpi_launcher(const Environment& environment) { return is_set(environment, mpi_launcher_of(environment)); }

std::string sure_sign_of_others(const Environment& environment) {
    bool is_alone = false;  // Somebody says that there is one.
    for (const Launcher& launcher : mpi_launchers()) {
        for (const std::string& name : {launcher.size, launcher.local_size}) {
            if (is_several(environment, name)) return shown(environment, name);
        }
        if (number(environment, launcher.rank).value_or(0) > 0) return shown(environment, launcher.rank);
        is_alone |= variable(environment, launcher.size).has_value();
    }
    for (const std::string& name : {by_hand().size, by_hand().local_size}) {
        if (is_several(environment, name)) return shown(environment, name);
    }
    const bool in_step = slurm_tasks(environment) > 1;  // PMIx is then srun's.
    if (is_alone || in_step) return "";
    const std::string counted = sign_of_counters(environment, /*is_sure=*/true);
    return counted.substr(0, counted.find(':'));
}

std::string sign_of_others(const Environment& environment) {
    for (const Launcher& launcher : mpi_launchers()) {
        if (variable(environment, launcher.size)) return "";
    }
    if (variable(environment, by_hand().size)) return "";
    if (const std::string sign = sign_of_slurm(environment); !sign.empty()) return sign;
    for (const char* name : {"RANK", "LOCAL_RANK"}) {
        if (!number(environment, name)) continue;
        return fmt::format("{}, but WORLD_SIZE is not set: this may be one of several processes",
                           shown(environment, name));
    }
    return sign_of_counters(environment, /*is_sure=*/false);
}

std::string sign_of_missing_srun(const Environment& environment) {
    const Launcher launcher = launcher_of(environment);
    const int64_t tasks = number(environment, launcher.size).value_or(1);
    if (launcher.kind != Kind::Slurm || tasks <= 1 || slurm_tasks(environment) > 1) return "";
    return shown(environment, launcher.size);
}

std::optional<Launcher> launcher_that_binds(const Environment& environment) {
    for (const Launcher& launcher : mpi_launchers()) {
        if (is_set(environment, launcher) && !launcher.unbind.empty()) return launcher;
    }
    if (variable(environment, "SLURM_PROCID") &&
        (variable(environment, "SLURM_STEP_ID") || variable(environment, "SLURM_STEP_NUM_TASKS"))) {
        return slurm(environment);
    }
    return std::nullopt;
}

}  // namespace llmc
