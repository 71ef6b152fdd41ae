#include "llmc/comm/rendezvous.h"

#include "llmc/base/check.h"
#include "llmc/base/error.h"
#include "llmc/base/file.h"

#include <array>
#include <cerrno>
#include <optional>
#include <random>
#include <unistd.h>
#include <utility>

namespace llmc {
namespace {

std::optional<std::string> find(const Environment& environment, const std::string& name) {
    const auto entry = environment.find(name);
    if (entry == environment.end() || entry->second.empty()) return std::nullopt;
    return entry->second;
}

std::string value_or(const Environment& environment, const std::string& name, const std::string& otherwise) {
    return find(environment, name).value_or(otherwise);
}

bool has_all(const Environment& environment, std::initializer_list<const char*> names) {
    for (const char* name : names) {
        if (!find(environment, name)) return false;
    }
    return true;
}

int64_t integer_of(const Environment& environment, const std::string& name, int64_t least, int64_t most,
                   const std::string& remedy) {
    const std::optional<std::string> text = find(environment, name);
    if (!text) fail_usage("--comm-init: the variable {} is not set; {}", name, remedy);
    const std::optional<int64_t> value = to_integer(*text);
    if (!value || *value < least || *value > most) {
        fail_usage("--comm-init: {}={}: must be a number from {} to {}; {}", name, *text, least, most, remedy);
    }
    return *value;
}

/// Who has set rank and size. mpirun before Slurm: it may run inside a Slurm job, whose variables are then those of the
/// job's first process.
struct Launcher {
    const char* rank;
    const char* size;
};
constexpr Launcher kByHand = {"RANK", "WORLD_SIZE"};
constexpr Launcher kMpirun = {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"};
constexpr Launcher kSlurm = {"SLURM_PROCID", "SLURM_NTASKS"};
constexpr int64_t kMostRanks = 1 << 16;

const Launcher& launcher_of(const Environment& environment) {
    for (const Launcher* launcher : {&kByHand, &kMpirun, &kSlurm}) {
        if (find(environment, launcher->rank) || find(environment, launcher->size)) return *launcher;
    }
    return kByHand;
}

void read_ranks(const Environment& environment, const Launcher& launcher, World* world) {
    const std::string remedy = fmt::format("start with mpirun, srun or torchrun, or set {} and {} for every rank",
                                           launcher.rank, launcher.size);
    world->size = static_cast<int>(integer_of(environment, launcher.size, 1, kMostRanks, remedy));
    const std::string below = fmt::format("it counts from 0, below {}={}; {}", launcher.size, world->size, remedy);
    const bool is_set = find(environment, launcher.rank).has_value();
    world->rank = static_cast<int>(integer_of(environment, launcher.rank, 0, world->size - 1, is_set ? below : remedy));
}

std::string job_of(const Environment& environment) {
    if (const auto job = find(environment, "TRAIN_GPT_JOB")) return *job;
    if (const auto job = find(environment, "SLURM_JOB_ID")) {
        return fmt::format("slurm-{}-{}", *job, value_or(environment, "SLURM_RESTART_COUNT", "0"));
    }
    if (const auto job = find(environment, "PMIX_NAMESPACE")) return "mpirun-" + *job;
    if (const auto job = find(environment, "TORCHELASTIC_RUN_ID")) {
        return fmt::format("torchrun-{}-{}", *job, value_or(environment, "TORCHELASTIC_RESTART_COUNT", "0"));
    }
    return "";
}

std::string master_host(const Environment& environment, const Launcher& launcher) {
    if (const auto host = find(environment, "MASTER_ADDR")) return *host;
    if (&launcher == &kSlurm) {
        const char* name = find(environment, "SLURM_STEP_NODELIST") ? "SLURM_STEP_NODELIST" : "SLURM_JOB_NODELIST";
        const std::string list = value_or(environment, name, "");
        const std::string host = first_slurm_host(list);
        if (!host.empty()) return host;
        fail_usage("--comm-init: {}={}: is no list of hosts; set MASTER_ADDR to the host of rank 0", name, list);
    }
    const auto local_size = find(environment, "OMPI_COMM_WORLD_LOCAL_SIZE");
    if (&launcher == &kMpirun && local_size == find(environment, kMpirun.size)) return "127.0.0.1";
    fail_usage("--comm-init: the variable MASTER_ADDR is not set; set it to the host of rank 0, for every rank");
}

/// A job's number, or one that its other name always gives.
int64_t number_of_job(const std::string& job) {
    if (const auto number = to_integer(job); number && *number >= 0) return *number;
    int64_t number = 0;
    for (const char c : job) number = (number * 31 + static_cast<unsigned char>(c)) % 1000003;
    return number;
}

int master_port(const Environment& environment, const Launcher& launcher) {
    constexpr int64_t kFirst = 20000, kCount = 12000;  // Below those that systems give to outgoing connections.
    constexpr int64_t kLast = 65535;
    const std::string remedy = "set it to a free port of rank 0's host, the same for every rank";
    if (find(environment, "MASTER_PORT")) {
        return static_cast<int>(integer_of(environment, "MASTER_PORT", 1, kLast, remedy));
    }
    const char* name = &launcher == &kSlurm ? "SLURM_JOB_ID" : &launcher == &kMpirun ? "PMIX_NAMESPACE" : "";
    const std::string job = value_or(environment, name, "");
    if (job.empty()) fail_usage("--comm-init: the variable MASTER_PORT is not set; {}", remedy);
    return static_cast<int>(kFirst + number_of_job(job) % kCount);
}

World::Way automatic_way(const Environment& environment, bool with_mpi) {
    if (with_mpi) {
        for (const char* name : {kMpirun.size, "PMI_SIZE", "PMIX_RANK"}) {
            if (find(environment, name)) return World::Way::Mpi;
        }
    }
    const bool torchrun = has_all(environment, {kByHand.rank, kByHand.size, "MASTER_ADDR", "MASTER_PORT"});
    if (torchrun && find(environment, kByHand.size) != "1") return World::Way::Tcp;
    if (!with_mpi && value_or(environment, kMpirun.size, "1") != "1") return World::Way::Tcp;
    return World::Way::One;
}

// ---- Where rank 0 is, as text for MPI's broadcast or a file --------------------------------------------------------

constexpr std::string_view kPlaceTitle = "train_gpt: where rank 0 listens";

std::string to_text(const RootPlace& place, const std::string& job) {
    std::string text = fmt::format("{}\njob {}\ntoken {}\nport {}\n", kPlaceTitle, job, place.token, place.port);
    for (const std::string& host : place.hosts) text += fmt::format("host {}\n", host);
    return text;
}

/// The rest of the first line that begins with a word; "" if none does.
std::string line_after(const std::string& text, const std::string& word, size_t* from) {
    const size_t begin = text.find("\n" + word + " ", *from);
    if (begin == std::string::npos) return "";
    const size_t value = begin + word.size() + 2, end = text.find('\n', value);
    *from = end;
    return text.substr(value, end - value);
}

std::optional<RootPlace> parse_place(const std::string& text, std::string* job) {
    size_t at = 0;
    if (!text.starts_with(kPlaceTitle) || !text.ends_with('\n')) return std::nullopt;
    *job = line_after(text, "job", &at);
    RootPlace place;
    place.token = line_after(text, "token", &at);
    place.port = static_cast<int>(to_integer(line_after(text, "port", &at)).value_or(0));
    for (std::string host = line_after(text, "host", &at); !host.empty(); host = line_after(text, "host", &at)) {
        place.hosts.push_back(host);
    }
    if (place.hosts.empty() || place.port <= 0) return std::nullopt;
    return place;
}

std::string random_token() {
    std::random_device random;
    std::string token;
    for (int i = 0; i < 4; ++i) token += fmt::format("{:08x}", random());
    return token;
}

/// Listens wherever there is room, and says where. The loopback last: other hosts have one of their own.
RootPlace listen_anywhere(Meeting* meeting) {
    int error = 0;
    meeting->listener = listen_on(0, &error);
    if (!meeting->listener) {
        fail("{}: rank 0 cannot listen on {}: {}", meeting->init, meeting->host, words_of(error));
    }
    meeting->token = random_token();
    RootPlace place = {interface_addresses(), port_of(meeting->listener), meeting->token};
    place.hosts.push_back(meeting->host);
    place.hosts.emplace_back("127.0.0.1");
    return place;
}

// ---- The three ways ------------------------------------------------------------------------------------------------

void prepare_mpi(Meeting* meeting, const Broadcast& broadcast) {
    meeting->init = "--comm-init=mpi";
    meeting->advice = "see that its host is reached by that address, without a firewall between";
    const std::string mine = meeting->rank == 0 ? to_text(listen_anywhere(meeting), "") : "";
    std::string job;
    const std::optional<RootPlace> place = parse_place(broadcast(mine), &job);
    CHECK(place.has_value());
    meeting->find_root = [place](std::string*) { return place; };
}

void prepare_tcp(Meeting* meeting, const World& world) {
    meeting->init = "--comm-init=tcp";
    meeting->advice = fmt::format(
        "see that rank 0 runs on {}, and that all ranks have the same MASTER_ADDR and "
        "MASTER_PORT",
        world.host);
    meeting->token = world.job;
    meeting->find_root = [world](std::string*) { return RootPlace{{world.host}, world.port, world.job}; };
    if (meeting->rank != 0) return;
    int error = 0;
    meeting->listener = listen_on(world.port, &error);
    if (meeting->listener) return;
    if (error == EADDRINUSE) {
        fail_usage("--comm-init=tcp: port {} is in use on {}; set MASTER_PORT to another", world.port, meeting->host);
    }
    fail_usage("--comm-init=tcp: rank 0 cannot listen on port {} of {}: {}; set MASTER_PORT to another", world.port,
               meeting->host, words_of(error));
}

std::optional<RootPlace> read_place_file(const std::string& path, const std::string& job, std::string* why) {
    if (!path_exists(path)) {
        *why = "the file is missing";
        return std::nullopt;
    }
    std::optional<RootPlace> place;
    std::string its_job;
    try {
        place = parse_place(read_text(path), &its_job);
    } catch (const Error& error) {
        *why = error.what();
        return std::nullopt;
    }
    if (place && its_job == job) return place;
    *why = !place ? "the file has other content" : fmt::format("the file is of job '{}', not '{}'", its_job, job);
    return std::nullopt;
}

void prepare_file(Meeting* meeting, const World& world) {
    meeting->init = "--comm-init=file:" + world.path;
    meeting->advice = fmt::format(
        "the file '{}' is stale or missing: remove it, see that rank 0 runs and that all ranks "
        "see the same file, and start all of them again",
        world.path);
    meeting->find_root = [world](std::string* why) { return read_place_file(world.path, world.job, why); };
    if (meeting->rank != 0) return;
    const std::string text = to_text(listen_anywhere(meeting), world.job);
    try {
        meeting->place_file = std::make_unique<PlaceFile>(world.path, text);
    } catch (const Error& error) {
        fail_usage("{}: {}; choose a path that all ranks can write and read", meeting->init, error.what());
    }
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

World read_world(const std::string& init, const Environment& environment, bool with_mpi) {
    constexpr std::string_view kFile = "file:";
    World world;
    if (init == "auto") {
        world.way = automatic_way(environment, with_mpi);
    } else if (init == "mpi") {
        world.way = World::Way::Mpi;
    } else if (init == "tcp") {
        world.way = World::Way::Tcp;
    } else if (init.starts_with(kFile) && init.size() > kFile.size()) {
        world.way = World::Way::File;
        world.path = init.substr(kFile.size());
    } else if (init != "none") {
        fail_usage("--comm-init={}: choose auto, mpi, tcp, file:PATH or none", init);
    }
    if (world.way == World::Way::One || world.way == World::Way::Mpi) return world;
    const Launcher& launcher = launcher_of(environment);
    read_ranks(environment, launcher, &world);
    if (world.size == 1) return {};
    world.job = job_of(environment);
    if (world.job.find('\n') != std::string::npos) fail_usage("TRAIN_GPT_JOB: must be one line");
    if (world.way == World::Way::Tcp) {
        world.host = master_host(environment, launcher);
        world.port = master_port(environment, launcher);
    }
    return world;
}

std::string warning_of_lone_tasks(const std::string& init, const World& world, const Environment& environment) {
    if (init != "auto" || world.way != World::Way::One) return "";
    for (const char* name : {kByHand.size, kMpirun.size, "PMI_SIZE", "PMIX_RANK"}) {
        if (find(environment, name)) return "";
    }
    // A script of a job has SLURM_NTASKS as well, but is one process.
    const bool in_step = has_all(environment, {kSlurm.rank, "SLURM_STEP_ID"});
    const std::string of_job = in_step ? value_or(environment, kSlurm.size, "1") : "1";
    const int64_t tasks = to_integer(value_or(environment, "SLURM_STEP_NUM_TASKS", of_job)).value_or(1);
    if (tasks <= 1 || value_or(environment, kSlurm.rank, "0") != "0") return "";
    return fmt::format(
        "--comm-init=auto: srun has started {} tasks, and each of them trains alone; use "
        "--comm-init=tcp to make them the ranks of one run",
        tasks);
}

std::string first_slurm_host(const std::string& list) {
    std::string host;
    for (size_t i = 0; i < list.size() && list[i] != ','; ++i) {
        if (list[i] != '[') {
            host += list[i];
            continue;
        }
        const size_t close = list.find(']', i);
        if (close == std::string::npos) return "";
        const std::string first = list.substr(i + 1, list.find_first_of(",-]", i) - i - 1);
        if (!to_integer(first)) return "";
        host += first;
        i = close;
    }
    return host.find_first_of(" ]") == std::string::npos ? host : "";
}

std::string host_name(const Environment& environment) {
    if (const auto name = find(environment, "TRAIN_GPT_HOST_NAME")) return *name;
    std::array<char, 256> name = {};
    if (gethostname(name.data(), name.size() - 1) != 0) return "localhost";
    return name.data();
}

Meeting prepare_meeting(const World& world, const std::string& host, const Broadcast& broadcast) {
    Meeting meeting;
    meeting.rank = world.rank;
    meeting.size = world.size;
    meeting.host = host;
    switch (world.way) {
        case World::Way::One: break;
        case World::Way::Mpi: prepare_mpi(&meeting, broadcast); break;
        case World::Way::Tcp: prepare_tcp(&meeting, world); break;
        case World::Way::File: prepare_file(&meeting, world); break;
    }
    return meeting;
}

}  // namespace llmc
