#include "llmc/comm/rendezvous.h"

#include "llmc/base/check.h"
#include "llmc/base/error.h"
#include "llmc/base/file.h"
#include "llmc/base/log.h"
#include "llmc/comm/address.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <optional>
#include <unistd.h>
#include <utility>

namespace llmc {
namespace {

constexpr int64_t kMostRanks = 1 << 16;
constexpr int64_t kLastPort = 65535;
constexpr const char* kSecretVariable = "LLMC_JOB_SECRET";

/// What to do where a launcher's variables are not enough: set them, or, where nobody has asked for ranks, do without.
std::string remedy_for(const std::string& init, const std::string& remedy) {
    return init == "auto" ? remedy + "; or train alone with --comm-init=none" : remedy;
}

int64_t integer_of(const Environment& environment, const std::string& name, int64_t least, int64_t most,
                   const std::string& remedy) {
    const std::optional<std::string> text = variable(environment, name);
    if (!text) fail_usage("--comm-init: the variable {} is not set; {}", name, remedy);
    const std::optional<int64_t> value = to_integer(*text);
    if (!value || *value < least || *value > most) {
        fail_usage("--comm-init: {}={}: must be a number from {} to {}; {}", name, one_line(*text), least, most,
                   remedy);
    }
    return *value;
}

void read_ranks(const Environment& environment, const Launcher& launcher, const std::string& init, World* world) {
    const std::string remedy =
        remedy_for(init, fmt::format("start with mpirun, srun or torchrun, or set {} and {} for every rank",
                                     launcher.rank, launcher.size));
    world->size = static_cast<int>(integer_of(environment, launcher.size, 1, kMostRanks, remedy));
    const std::string below = fmt::format("it counts from 0, below {}={}; {}", launcher.size, world->size, remedy);
    const bool is_set = variable(environment, launcher.rank).has_value();
    world->rank = static_cast<int>(integer_of(environment, launcher.rank, 0, world->size - 1, is_set ? below : remedy));
}

/// Two steps of one Slurm job are two runs. (Ranks by hand may be one run over several steps.)
std::string slurm_job(const Environment& environment, const Launcher& launcher) {
    const std::string job = variable(environment, "SLURM_JOB_ID").value_or("");
    const std::string restarts = variable(environment, "SLURM_RESTART_COUNT").value_or("0");
    const auto step = variable(environment, "SLURM_STEP_ID");
    const bool has_step = launcher.kind == Launcher::Kind::Slurm && step;
    return fmt::format("slurm-{}-{}{}", job, restarts, has_step ? "-" + *step : "");
}

std::string secret_of(const Environment& environment) {
    const std::string secret = variable(environment, kSecretVariable).value_or("");
    const std::string wrong = secret.empty() ? "" : wrong_with_secret(secret);
    if (!wrong.empty())
        fail_usage("{}: {}; take export {}={}", kSecretVariable, wrong, kSecretVariable, random_secret());
    return secret;
}

/// Whether the launcher counts as many ranks on this host as there are.
bool is_on_one_host(const Environment& environment, const Launcher& launcher) {
    const auto local_size = variable(environment, launcher.local_size);
    return local_size && local_size == variable(environment, launcher.size);
}

std::string job_of(const Environment& environment, const Launcher& launcher) {
    if (const auto job = variable(environment, "TRAIN_GPT_JOB")) return *job;
    const auto of_launcher = launcher.kind == Launcher::Kind::Mpi ? variable(environment, launcher.job) : std::nullopt;
    if (of_launcher) return fmt::format("{}-{}", launcher.name, *of_launcher);
    if (variable(environment, "SLURM_JOB_ID")) return slurm_job(environment, launcher);
    if (const auto job = variable(environment, "PMIX_NAMESPACE")) return "mpirun-" + *job;
    if (const auto job = variable(environment, "TORCHELASTIC_RUN_ID")) {
        const std::string restarts = variable(environment, "TORCHELASTIC_RESTART_COUNT").value_or("0");
        return fmt::format("torchrun-{}-{}", *job, restarts);
    }
    return "";
}

std::string master_host(const Environment& environment, const Launcher& launcher, const std::string& init) {
    const std::string remedy = "set it to the host of rank 0, for every rank";
    if (const auto host = variable(environment, "MASTER_ADDR")) {
        const std::string wrong = wrong_with_address(*host);
        if (!wrong.empty()) fail_usage("--comm-init: MASTER_ADDR={}: {}; {}", one_line(*host), wrong, remedy);
        return without_brackets(*host);
    }
    if (launcher.kind == Launcher::Kind::Slurm) {
        const char* name = variable(environment, "SLURM_STEP_NODELIST") ? "SLURM_STEP_NODELIST" : "SLURM_JOB_NODELIST";
        const std::string list = variable(environment, name).value_or("");
        const std::string host = first_slurm_host(list);
        if (!host.empty()) return host;
        fail_usage("--comm-init: {}={}: is no list of hosts; set MASTER_ADDR to the host of rank 0", name,
                   one_line(list));
    }
    if (is_on_one_host(environment, launcher)) return "127.0.0.1";
    fail_usage("--comm-init: the variable MASTER_ADDR is not set; {}", remedy_for(init, remedy));
}

/// A job's number, or one that its other name always gives.
int64_t number_of_job(const std::string& job) {
    if (const auto number = to_integer(job); number && *number >= 0) return *number;
    int64_t number = 0;
    for (const char c : job) number = (number * 31 + static_cast<unsigned char>(c)) % 1000003;
    return number;
}

int master_port(const Environment& environment, const Launcher& launcher, const std::string& init) {
    constexpr int64_t kFirst = 20000, kCount = 12000;  // Below those that systems give to outgoing connections.
    constexpr int64_t kStride = 1009;  // Steps of a job, and jobs with numbers that follow, do not meet.
    const std::string remedy = "set it to a free port of rank 0's host, the same for every rank";
    if (variable(environment, "MASTER_PORT")) {
        return static_cast<int>(integer_of(environment, "MASTER_PORT", 1, kLastPort, remedy));
    }
    const auto job = variable(environment, launcher.job);
    if (!job) fail_usage("--comm-init: the variable MASTER_PORT is not set; {}", remedy_for(init, remedy));
    const bool is_slurm = launcher.kind == Launcher::Kind::Slurm;
    const int64_t step = is_slurm ? number(environment, "SLURM_STEP_ID").value_or(0) : 0;
    return static_cast<int>(kFirst + (number_of_job(*job) % kCount + step % kCount * kStride) % kCount);
}

/// Whether what torchrun or a user has set is complete, and not just MPI's number of ranks again: then MPI's launcher
/// has started only what started this process.
bool is_inside_torchrun(const Environment& environment) {
    for (const char* name : {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}) {
        if (!variable(environment, name)) return false;
    }
    if (variable(environment, "WORLD_SIZE") == "1") return false;
    const Launcher outer = mpi_launcher_of(environment);
    const auto outer_size = variable(environment, outer.size);
    return outer_size ? outer_size != variable(environment, "WORLD_SIZE")
                      : variable(environment, outer.rank) != variable(environment, "RANK");
}

World::Way automatic_way(const Environment& environment, bool with_mpi) {
    if (with_mpi && has_mpi_launcher(environment) && !is_inside_torchrun(environment)) return World::Way::Mpi;
    const std::string sign = sure_sign_of_others(environment);
    if (sign.empty()) return World::Way::One;
    const Launcher launcher = launcher_of(environment);
    if (variable(environment, launcher.rank) || variable(environment, launcher.size)) return World::Way::Tcp;
    fail_usage(
        "--comm-init=auto: {}: this process is one of several; set RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT for "
        "each of them and use --comm-init=tcp, or train alone with --comm-init=none",
        sign);
}

/// Alone, unless what says so says something else as well.
void require_consistent(const Environment& environment, const std::string& init) {
    World ignored;
    const Launcher launcher = launcher_of(environment);
    const bool complete = variable(environment, launcher.rank) && variable(environment, launcher.size);
    if (init == "auto" && complete && launcher.kind != Launcher::Kind::Slurm) {
        read_ranks(environment, launcher, init, &ignored);
    }
}

// ---- Where rank 0 is, as text for MPI's broadcast or a file --------------------------------------------------------

constexpr std::string_view kPlaceTitle = "train_gpt: where rank 0 listens";
constexpr std::string_view kFromEnvironment = "environment";  ///< In place of a secret that all ranks have there.

struct Place {
    std::vector<std::string> hosts;
    int port = 0;
    std::string job, secret;
};

std::string to_text(const Place& place) {
    std::string text =
        fmt::format("{}\njob {}\nsecret {}\nport {}\n", kPlaceTitle, place.job, place.secret, place.port);
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

std::optional<Place> parse_place(const std::string& text) {
    size_t at = 0;
    if (!text.starts_with(kPlaceTitle) || !text.ends_with('\n')) return std::nullopt;
    Place place;
    place.job = line_after(text, "job", &at);
    place.secret = line_after(text, "secret", &at);
    place.port = static_cast<int>(to_integer(line_after(text, "port", &at)).value_or(0));
    for (std::string host = line_after(text, "host", &at); !host.empty(); host = line_after(text, "host", &at)) {
        place.hosts.push_back(host);
    }
    const bool is_whole = !place.hosts.empty() && !place.secret.empty() && place.port > 0 && place.port <= kLastPort;
    if (!is_whole) return std::nullopt;
    return place;
}

/// Where rank 0 is, with the secret: that of the environment where it is there, as it is then on every rank.
std::optional<RootPlace> root_place(const Place& place, const World& world, std::string* why) {
    const bool from_environment = place.secret == kFromEnvironment;
    if (from_environment != !world.secret.empty()) {
        *why = fmt::format("{} is set on {} alone", kSecretVariable, from_environment ? "rank 0" : "this rank");
        return std::nullopt;
    }
    return RootPlace{place.hosts, place.port, Secret(from_environment ? world.secret : place.secret, world.job)};
}

/// Where ranks come by a way that only rank 0 knows: wherever there is room, on all interfaces unless all ranks are on
/// this host, until all have come. The loopback last: other hosts have one of their own.
Place listen_anywhere(Meeting* meeting, const World& world) {
    const std::string loopback = "127.0.0.1";
    int error = 0;
    Place place;
    if (world.one_host) {
        meeting->listeners = listen_at({loopback}, 0, &error);
    } else {
        if (Socket socket = listen_on(0, &error)) meeting->listeners.push_back(std::move(socket));
        place.hosts = interface_addresses();
        place.hosts.push_back(meeting->host);
    }
    if (meeting->listeners.empty()) {
        fail("{}: rank 0 cannot listen on {}: {}", meeting->init, meeting->host, words_of(error));
    }
    place.hosts.push_back(loopback);
    place.port = port_of(meeting->listeners[0]);
    place.job = world.job;
    place.secret = world.secret.empty() ? random_secret() : std::string(kFromEnvironment);
    std::string ignored;
    meeting->secret = root_place(place, world, &ignored)->secret;
    return place;
}

/// On the interface that MASTER_ADDR names. A name may be this host's loopback here (as Debian has it for its own) and
/// another address elsewhere, and an address may be that of a router before this host: then on all.
std::vector<Socket> listen_for(const World& world, int* error) {
    std::vector<Socket> listeners = listen_at({world.host}, world.port, error);
    const bool is_in_use = listeners.empty() && *error == EADDRINUSE;
    const auto is_local = [](const Socket& socket) { return is_loopback(own_address(socket)); };
    const bool only_local = std::all_of(listeners.begin(), listeners.end(), is_local);
    if (is_in_use || !only_local || is_loopback(world.host)) return listeners;
    spdlog::debug("MASTER_ADDR={} is no interface of this host: rank 0 listens on all", world.host);
    listeners.clear();
    if (Socket socket = listen_on(world.port, error)) listeners.push_back(std::move(socket));
    return listeners;
}

// ---- The three ways ------------------------------------------------------------------------------------------------

void prepare_mpi(Meeting* meeting, const World& world, const Broadcast& broadcast) {
    meeting->init = "--comm-init=mpi";
    meeting->advice = "see that its host is reached by that address, without a firewall between";
    const std::string mine = meeting->rank == 0 ? to_text(listen_anywhere(meeting, world)) : "";
    const std::optional<Place> place = parse_place(broadcast(mine));
    if (!place) fail("--comm-init=mpi: what MPI brought from rank 0 is not where it listens");
    meeting->find_root = [place, world](std::string* why) { return root_place(*place, world, why); };
}

void prepare_tcp(Meeting* meeting, const World& world) {
    meeting->init = "--comm-init=tcp";
    meeting->advice = fmt::format(
        "see that rank 0 runs on {}, and that all ranks have the same MASTER_ADDR and "
        "MASTER_PORT",
        world.host);
    meeting->secret = Secret(world.secret, world.job);
    const RootPlace place = {{world.host}, world.port, meeting->secret};
    meeting->find_root = [place](std::string*) { return place; };
    if (meeting->rank != 0) return;
    int error = 0;
    meeting->listeners = listen_for(world, &error);
    if (!meeting->listeners.empty()) return;
    if (error == EADDRINUSE) {
        fail_usage("--comm-init=tcp: port {} is in use on {}; set MASTER_PORT to another", world.port, meeting->host);
    }
    fail_usage("--comm-init=tcp: rank 0 cannot listen on port {} of {}: {}; set MASTER_PORT to another", world.port,
               meeting->host, words_of(error));
}

std::optional<RootPlace> read_root_place(const World& world, std::string* why) {
    if (!path_exists(world.path)) {
        *why = "the file is missing";
        return std::nullopt;
    }
    std::optional<Place> place;
    try {
        place = parse_place(read_place_file(world.path));
    } catch (const Error& error) {
        *why = error.what();
        return std::nullopt;
    }
    if (place && place->job == world.job) return root_place(*place, world, why);
    *why =
        !place ? "the file has other content" : fmt::format("the file is of job '{}', not '{}'", place->job, world.job);
    return std::nullopt;
}

void prepare_file(Meeting* meeting, const World& world) {
    meeting->init = "--comm-init=file:" + world.path;
    meeting->advice = fmt::format(
        "the file '{}' is stale or missing: remove it, see that rank 0 runs and that all ranks "
        "see the same file, and start all of them again",
        world.path);
    meeting->find_root = [world](std::string* why) { return read_root_place(world, why); };
    if (meeting->rank != 0) return;
    const std::string text = to_text(listen_anywhere(meeting, world));
    try {
        meeting->place_file = std::make_unique<PlaceFile>(world.path, text);
    } catch (const Error& error) {
        fail_usage("{}: {}; choose a path that all ranks can write and read", meeting->init, error.what());
    }
}

}  // namespace

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
    if (world.way == World::Way::One) {
        require_consistent(environment, init);
        return world;
    }
    world.secret = secret_of(environment);
    const Launcher launcher = world.way == World::Way::Mpi ? mpi_launcher_of(environment) : launcher_of(environment);
    world.one_host = is_on_one_host(environment, launcher);
    if (world.way == World::Way::Mpi) return world;
    read_ranks(environment, launcher, init, &world);
    if (world.size == 1) return {};
    world.job = job_of(environment, launcher);
    if (world.job.find('\n') != std::string::npos) fail_usage("TRAIN_GPT_JOB: must be one line");
    if (world.way == World::Way::Tcp) {
        world.host = master_host(environment, launcher, init);
        world.port = master_port(environment, launcher, init);
    }
    return world;
}

void require_secret(const World& world, bool insecure) {
    const bool among_strangers = world.way == World::Way::Tcp && !is_loopback(world.host);
    if (!among_strangers || insecure || !world.secret.empty() || world.size == 1) return;
    fail_usage(
        "--comm-init=tcp: MASTER_ADDR={} is open to other hosts, and without a secret anybody there could join: for "
        "every rank the same, export {}={} (or, where all of the network is trusted, --comm-insecure)",
        world.host, kSecretVariable, random_secret());
}

std::string warning_of_strangers(const World& world, bool insecure) {
    const bool is_open = world.way == World::Way::Tcp && insecure && world.secret.empty() && !is_loopback(world.host);
    if (!is_open || world.rank != 0 || world.size == 1) return "";
    return fmt::format("--comm-insecure: who reaches {} can join this run, until all ranks have come",
                       with_port(world.host, world.port));
}

void require_company(const World& world, const Environment& environment) {
    if (world.way != World::Way::Mpi || world.size > 1) return;
    std::string sign = sure_sign_of_others(environment);
    if (sign.empty()) sign = sign_of_others(environment);
    if (sign.empty()) return;
    fail_usage(
        "--comm-init=mpi: {}: this process is one of several, but {} finds it alone: another MPI has started it; "
        "start it with the mpirun of {}, or use --comm-init=tcp with MASTER_ADDR and MASTER_PORT set, or train alone "
        "with --comm-init=none",
        sign, world.mpi, world.mpi);
}

std::string warning_of_others(const std::string& init, const World& world, const Environment& environment) {
    const std::string script = world.way == World::Way::Tcp ? sign_of_missing_srun(environment) : "";
    if (!script.empty()) {
        return fmt::format(
            "--comm-init={}: {}, but no task of srun's: start it with srun, or the others may never come", init,
            script);
    }
    if (init != "auto" || world.way != World::Way::One) return "";
    const std::string sign = sign_of_others(environment);
    if (sign.empty()) return "";
    return fmt::format(
        "--comm-init=auto: {}, and each of them trains alone; --comm-init=tcp makes them the ranks of one run "
        "(--comm-init=none: no warning)",
        sign);
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
    if (const auto name = variable(environment, "TRAIN_GPT_HOST_NAME")) return *name;
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
        case World::Way::Mpi: prepare_mpi(&meeting, world, broadcast); break;
        case World::Way::Tcp: prepare_tcp(&meeting, world); break;
        case World::Way::File: prepare_file(&meeting, world); break;
    }
    return meeting;
}

void call_off(const std::string& init, const Environment& environment, bool with_mpi, const Error& cause) noexcept {
    constexpr double kSeconds = 3;
    try {
        const World world = read_world(init, environment, with_mpi);
        if (world.way != World::Way::Tcp && world.way != World::Way::File) return;
        require_secret(world, /*insecure=*/false);  // Else nobody is told: strangers might be.
        Meeting meeting = prepare_meeting(world, host_name(environment));
        call_off(meeting, cause, kSeconds);
    } catch (const std::exception&) {  // The variables are no better than the command line.
    }
}

}  // namespace llmc
