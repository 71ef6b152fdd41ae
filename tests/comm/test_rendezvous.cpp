#include "llmc/comm/rendezvous.h"
#include "tests/comm/comm_testing.h"
#include "tests/io/temp_dir.h"

namespace llmc {
namespace {

using Way = World::Way;

const Environment kTorchrun = {{"RANK", "2"}, {"WORLD_SIZE", "4"}, {"MASTER_ADDR", "node7"}, {"MASTER_PORT", "29500"}};
const Environment kMpirun = {{"OMPI_COMM_WORLD_RANK", "1"},
                             {"OMPI_COMM_WORLD_SIZE", "2"},
                             {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"},
                             {"PMIX_NAMESPACE", "3000000007"}};
const Environment kSlurm = {
    {"SLURM_PROCID", "3"}, {"SLURM_NTASKS", "8"}, {"SLURM_JOB_NODELIST", "node[03-07,9]"}, {"SLURM_JOB_ID", "41234"}};

Environment with(Environment environment, const Environment& changes) {
    for (const auto& [name, value] : changes) environment[name] = value;
    return environment;
}

/// The message for a wrong environment, which ends the program with exit code 2.
std::string usage_error_of(const std::string& init, const Environment& environment, bool with_mpi = false) {
    try {
        read_world(init, environment, with_mpi);
    } catch (const Error& error) {
        EXPECT_EQ(error.exit_code(), kExitBadUsage);
        EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
        return error.what();
    }
    ADD_FAILURE() << "no error";
    return "";
}

TEST(Rendezvous, ReadsTorchrunsVariables) {
    for (const char* init : {"auto", "tcp"}) {
        const World world = read_world(init, kTorchrun, true);
        EXPECT_EQ(world.way, Way::Tcp);
        EXPECT_EQ(world.rank, 2);
        EXPECT_EQ(world.size, 4);
        EXPECT_EQ(world.host, "node7");
        EXPECT_EQ(world.port, 29500);
    }
}

TEST(Rendezvous, ReadsSlurmsVariables) {
    const World world = read_world("tcp", kSlurm, true);
    EXPECT_EQ(world.way, Way::Tcp);
    EXPECT_EQ(world.rank, 3);
    EXPECT_EQ(world.size, 8);
    EXPECT_EQ(world.host, "node03");
    EXPECT_EQ(world.port, 20000 + 41234 % 12000);
    const Environment step = with(kSlurm, {{"SLURM_STEP_NODELIST", "node05"}, {"MASTER_PORT", "7000"}});
    EXPECT_EQ(read_world("tcp", with(kSlurm, {{"SLURM_STEP_NUM_TASKS", "4"}}), true).size, 4);
    EXPECT_EQ(read_world("tcp", step, true).host, "node05");
    EXPECT_EQ(read_world("tcp", step, true).port, 7000);
    EXPECT_EQ(read_world("tcp", with(step, {{"MASTER_ADDR", "10.0.0.1"}}), true).host, "10.0.0.1");
}

TEST(Rendezvous, ReadsMpirunsVariablesWithoutMpi) {
    for (const char* init : {"auto", "tcp"}) {
        // Also inside a Slurm job, whose variables are those of the script.
        const World world = read_world(init, with(kSlurm, kMpirun), false);
        EXPECT_EQ(world.way, Way::Tcp);
        EXPECT_EQ(world.rank, 1);
        EXPECT_EQ(world.size, 2);
        EXPECT_EQ(world.host, "127.0.0.1");
        EXPECT_EQ(world.port, 20000 + 7);
    }
    const World other = read_world("tcp", with(kMpirun, {{"PMIX_NAMESPACE", "prterun-host-71@1"}}), false);
    EXPECT_TRUE(other.port >= 20000 && other.port < 32000) << other.port;
    EXPECT_TRUE(has(usage_error_of("tcp", with(kMpirun, {{"OMPI_COMM_WORLD_LOCAL_SIZE", "1"}})), {"MASTER_ADDR"}));
}

TEST(Rendezvous, AutoChooses) {
    EXPECT_EQ(read_world("auto", {}, true).way, Way::One);
    EXPECT_EQ(read_world("auto", kMpirun, true).way, Way::Mpi);
    EXPECT_EQ(read_world("auto", {{"PMI_SIZE", "2"}}, true).way, Way::Mpi);
    EXPECT_EQ(read_world("auto", {{"PMIX_RANK", "0"}}, true).way, Way::Mpi);
    const Environment one = with(kMpirun, {{"OMPI_COMM_WORLD_SIZE", "1"}, {"OMPI_COMM_WORLD_RANK", "0"}});
    EXPECT_EQ(read_world("auto", one, false).way, Way::One);
    EXPECT_EQ(read_world("auto", with(kTorchrun, {{"WORLD_SIZE", "1"}, {"RANK", "0"}}), true).way, Way::One);
    // A script of a Slurm job that was given eight tasks, but not started with srun.
    EXPECT_EQ(read_world("auto", with(kSlurm, {{"SLURM_PROCID", "0"}}), true).way, Way::One);
    // RANK alone is some other program's.
    EXPECT_EQ(read_world("auto", {{"RANK", "3"}}, true).way, Way::One);
}

TEST(Rendezvous, StepsOfAJobAreRunsOfTheirOwn) {
    const auto step = [](const char* id) { return read_world("tcp", with(kSlurm, {{"SLURM_STEP_ID", id}}), false); };
    EXPECT_EQ(step("0").port, 20000 + 41234 % 12000);
    EXPECT_NE(step("0").port, step("1").port);
    EXPECT_NE(step("0").job, step("1").job);
    EXPECT_EQ(step("1").port, step("1").port);
    // A step of one job is not in the way of the next jobs' first steps.
    for (int later = 1; later < 100; ++later) {
        const Environment other = with(kSlurm, {{"SLURM_JOB_ID", std::to_string(41234 + later)}, {"SLURM_STEP_ID", "0"}});
        EXPECT_NE(read_world("tcp", other, false).port, step("1").port);
    }
    EXPECT_TRUE(step("4000000000").port >= 20000 && step("4000000000").port < 32000);
    // Ranks that people number themselves may be one run over several steps.
    const auto by_hand = [](const char* id) {
        return read_world("tcp", with(kTorchrun, {{"SLURM_JOB_ID", "7"}, {"SLURM_STEP_ID", id}}), false).job;
    };
    EXPECT_EQ(by_hand("0"), by_hand("1"));
}

TEST(Rendezvous, ReadsOtherLaunchersVariables) {
    const auto expect_second_of_two = [](const char* rank, const char* size, const char* local_size) {
        const Environment two = {{rank, "1"}, {size, "2"}, {local_size, "2"}, {"MASTER_PORT", "7000"}};
        for (const char* init : {"auto", "tcp"}) {
            const World world = read_world(init, two, false);
            EXPECT_EQ(world.way, Way::Tcp) << size;
            EXPECT_EQ(world.rank, 1) << size;
            EXPECT_EQ(world.size, 2) << size;
            EXPECT_EQ(world.host, "127.0.0.1") << size;
        }
        EXPECT_EQ(read_world("auto", two, true).way, Way::Mpi) << size;
        EXPECT_EQ(read_world("none", two, true).way, Way::One) << size;
        Environment lonely = {{rank, "0"}, {size, "1"}};
        EXPECT_EQ(read_world("auto", lonely, false).way, Way::One) << size;
        // On several hosts somebody must say where rank 0 is.
        EXPECT_TRUE(has(usage_error_of("auto", with(two, {{local_size, "1"}})), {"MASTER_ADDR", "--comm-init=none"}));
        EXPECT_TRUE(has(usage_error_of("auto", with(two, {{"MASTER_PORT", ""}})), {"MASTER_PORT", "--comm-init=none"}));
        EXPECT_TRUE(has(usage_error_of("auto", with(two, {{rank, "2"}})), {std::string(rank) + "=2", size}));
        EXPECT_TRUE(has(usage_error_of("auto", with(two, {{size, "two"}})), {std::string(size) + "=two"}));
    };
    expect_second_of_two("PMI_RANK", "PMI_SIZE", "MPI_LOCALNRANKS");
    expect_second_of_two("MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_LOCAL_SIZE");
    expect_second_of_two("JSM_NAMESPACE_RANK", "JSM_NAMESPACE_SIZE", "JSM_NAMESPACE_LOCAL_SIZE");
    expect_second_of_two("PALS_RANKID", "PALS_NRANKS", "PALS_LOCAL_SIZE");
    // Slurm's own variables are the better ones of a task that srun gave PMI's as well.
    const Environment pmi2 = with(kSlurm, {{"SLURM_STEP_ID", "0"}, {"PMI_RANK", "3"}, {"PMI_SIZE", "8"}});
    EXPECT_EQ(read_world("tcp", pmi2, true).host, "node03");
}

TEST(Rendezvous, WhatMpiDoesNotFindIsAnError) {
    const auto error = [](const Environment& environment) -> std::string {
        World world;
        world.way = Way::Mpi;
        world.mpi = "Some MPI 1.2";
        try {
            require_company(world, environment);
        } catch (const Error& found) {
            EXPECT_EQ(found.exit_code(), kExitBadUsage);
            return found.what();
        }
        return "";
    };
    for (const char* name : {"PMI_SIZE", "PMI_RANK", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_RANK", "FLUX_JOB_SIZE",
                             "PALS_RANKID", "JSM_NAMESPACE_SIZE", "PMIX_RANK", "ALPS_APP_PE", "WORLD_SIZE"}) {
        EXPECT_TRUE(has(error({{name, "3"}}), {std::string(name) + "=3", "Some MPI 1.2", "--comm-init=tcp", "none"}));
    }
    const Environment step = with(kSlurm, {{"SLURM_STEP_ID", "0"}, {"PMIX_RANK", "3"}});
    EXPECT_TRUE(has(error(step), {"8 tasks", "--comm-init=tcp"}));
    EXPECT_EQ(error({}), "");
    EXPECT_EQ(error({{"PMIX_RANK", "0"}}), "");
    EXPECT_EQ(error({{"PMI_RANK", "0"}, {"PMI_SIZE", "1"}}), "");
    // mpirun -np 1 inside of something else.
    EXPECT_EQ(error(with(step, {{"OMPI_COMM_WORLD_SIZE", "1"}, {"OMPI_COMM_WORLD_RANK", "0"}})), "");
    EXPECT_EQ(error(with(kSlurm, {{"SLURM_PROCID", "0"}})), "");
}

TEST(Rendezvous, OneOfSeveralIsNeverAloneUnsaid) {
    // Incomplete: refused, with what is missing and with what is to be done for one alone.
    const auto refused = [](const Environment& environment, const std::string& name) {
        for (const bool with_mpi : {false, true}) {
            EXPECT_TRUE(has(usage_error_of("auto", environment, with_mpi), {name, "--comm-init=none"})) << name;
        }
        EXPECT_EQ(read_world("none", environment, true).way, Way::One);
    };
    refused({{"RANK", "1"}, {"WORLD_SIZE", "2"}}, "MASTER_ADDR");
    refused({{"RANK", "1"}, {"WORLD_SIZE", "2"}, {"MASTER_ADDR", "here"}}, "MASTER_PORT");
    refused({{"WORLD_SIZE", "2"}, {"MASTER_ADDR", "here"}, {"MASTER_PORT", "7000"}}, "RANK");
    refused({{"RANK", "3"}, {"WORLD_SIZE", "1"}}, "RANK=3");
    refused({{"RANK", "x"}, {"WORLD_SIZE", "2"}}, "RANK=x");
    refused({{"RANK", "0"}, {"WORLD_SIZE", "0"}}, "WORLD_SIZE=0");
    refused({{"RANK", "0"}, {"WORLD_SIZE", "-2"}}, "WORLD_SIZE=-2");
    refused({{"LOCAL_RANK", "0"}, {"LOCAL_WORLD_SIZE", "2"}}, "LOCAL_WORLD_SIZE=2");
    EXPECT_TRUE(has(usage_error_of("auto", {{"PMIX_RANK", "1"}}, false), {"PMIX_RANK=1", "--comm-init=none"}));

    // torchrun in a process of mpirun's.
    const Environment inside = with(kTorchrun, {{"OMPI_COMM_WORLD_RANK", "0"}, {"OMPI_COMM_WORLD_SIZE", "1"}});
    EXPECT_EQ(read_world("auto", inside, true).way, Way::Tcp);
    EXPECT_EQ(read_world("auto", with(kTorchrun, {{"PMIX_RANK", "0"}}), true).way, Way::Tcp);
    // The same ranks in other words are MPI's.
    const Environment same = with(kTorchrun, {{"OMPI_COMM_WORLD_RANK", "2"}, {"OMPI_COMM_WORLD_SIZE", "4"}});
    EXPECT_EQ(read_world("auto", same, true).way, Way::Mpi);
}

TEST(Rendezvous, WhoMayBeOneOfSeveralIsWarned) {
    const auto warning = [](const std::string& init, const Environment& environment) {
        return warning_of_others(init, read_world(init, environment, false), environment);
    };
    const Environment first = with(kSlurm, {{"SLURM_PROCID", "0"}});
    const Environment by_step = with(first, {{"SLURM_STEP_NUM_TASKS", "8"}}),
                      by_job = with(first, {{"SLURM_STEP_ID", "0"}}),
                      pmix = with(by_job, {{"SLURM_PROCID", "2"}, {"PMIX_RANK", "2"}});
    for (const Environment& environment : {by_step, by_job, kSlurm, pmix}) {
        EXPECT_TRUE(has(warning("auto", environment), {"8 tasks", "trains alone", "--comm-init=tcp"}));
        EXPECT_EQ(warning("none", environment), "");
        EXPECT_EQ(warning("auto", with(environment, {{"WORLD_SIZE", "1"}, {"RANK", "0"}})), "");
    }
    EXPECT_EQ(warning("auto", with(by_job, {{"SLURM_STEP_NUM_TASKS", "1"}})), "");
    EXPECT_EQ(warning("auto", first), "");  // The script of a job.
    EXPECT_EQ(warning("auto", {}), "");
    EXPECT_TRUE(has(warning("auto", {{"LOCAL_RANK", "0"}}), {"LOCAL_RANK=0", "WORLD_SIZE is not set"}));
    EXPECT_TRUE(has(warning("auto", {{"RANK", "3"}}), {"RANK=3", "WORLD_SIZE is not set"}));
    EXPECT_EQ(warning("auto", {{"RANK", "gold"}}), "");
    const Environment blaunch = {{"LSF_PM_TASKID", "1"}, {"LSB_DJOB_NUMPROC", "4"}};
    EXPECT_TRUE(has(warning("auto", blaunch), {"LSB_DJOB_NUMPROC=4", "blaunch"}));
    EXPECT_EQ(warning("auto", {{"LSB_JOBID", "8"}, {"LSB_DJOB_NUMPROC", "4"}}), "");  // The script of a job.
    EXPECT_TRUE(has(warning("auto", {{"PBS_TASKNUM", "2"}}), {"PBS_TASKNUM=2"}));
    EXPECT_EQ(warning("auto", {{"PBS_TASKNUM", "1"}}), "");
}

TEST(Rendezvous, AddressesThatCanNeverWorkAreRefused) {
    const auto error = [](const std::string& address) {
        return usage_error_of("tcp", with(kTorchrun, {{"MASTER_ADDR", address}}));
    };
    for (const char* address :
         {"tcp://node7", "http://10.0.0.1:80/", "node7:29500", "10.0.0.1:29500", "[::1]:29500", "node 7", " node7",
          "node7 ", "node7,node8", "node7/", "user@node7", "256.0.0.1", "1.2.3.4.5", "a..b", ".a", "-a", "[::1", "::g",
          "1:2:3", "[node7]", "224.0.0.1", "255.255.255.255", "ff02::1", "n\u00f6de", "node7\n", ":", "[]", "*"}) {
        EXPECT_TRUE(has(error(address), {"MASTER_ADDR=", "set it to the host of rank 0"})) << address;
    }
    EXPECT_TRUE(has(error("node7:29500"), {"MASTER_ADDR=node7:29500", "MASTER_PORT=29500"}));
    EXPECT_TRUE(has(error("tcp://node7"), {"tcp://node7", "URL"}));
    const auto host = [](const std::string& address) {
        return read_world("tcp", with(kTorchrun, {{"MASTER_ADDR", address}}), false).host;
    };
    for (const char* address : {"node7", "node7.cluster.local", "node7.", "a_b-1", "127.0.0.1", "127.1", "::1",
                                "fe80::1%eth0", "::ffff:10.0.0.1", "7", "0.0.0.0"}) {
        EXPECT_EQ(host(address), address);
    }
    EXPECT_EQ(host("[::1]"), "::1");
}

TEST(Rendezvous, OneRankNeedsNothing) {
    EXPECT_EQ(read_world("none", kTorchrun, true).way, Way::One);
    const World world = read_world("tcp", {{"RANK", "0"}, {"WORLD_SIZE", "1"}}, false);
    EXPECT_EQ(world.way, Way::One);
    EXPECT_EQ(world.size, 1);
}

TEST(Rendezvous, MissingVariablesAreNamed) {
    EXPECT_TRUE(has(usage_error_of("tcp", {}), {"WORLD_SIZE", "is not set", "mpirun, srun or torchrun"}));
    EXPECT_TRUE(has(usage_error_of("tcp", {{"RANK", "0"}}), {"the variable WORLD_SIZE is not set"}));
    EXPECT_TRUE(has(usage_error_of("tcp", {{"WORLD_SIZE", "2"}}), {"the variable RANK is not set"}));
    EXPECT_TRUE(has(usage_error_of("tcp", {{"SLURM_PROCID", "0"}}), {"the variable SLURM_NTASKS is not set"}));
    EXPECT_TRUE(has(usage_error_of("tcp", with(kTorchrun, {{"MASTER_ADDR", ""}})), {"MASTER_ADDR is not set"}));
    EXPECT_TRUE(has(usage_error_of("tcp", with(kTorchrun, {{"MASTER_PORT", ""}})), {"MASTER_PORT is not set"}));
    EXPECT_TRUE(has(usage_error_of("file:/tmp/x", {}), {"WORLD_SIZE", "is not set"}));
}

TEST(Rendezvous, MalformedVariablesAreNamedWithTheirValue) {
    const auto error = [](const Environment& changes) { return usage_error_of("tcp", with(kTorchrun, changes)); };
    EXPECT_TRUE(has(error({{"RANK", "x"}}), {"RANK=x"}));
    EXPECT_TRUE(has(error({{"RANK", "-1"}}), {"RANK=-1"}));
    EXPECT_TRUE(has(error({{"RANK", "4"}}), {"RANK=4", "from 0 to 3", "WORLD_SIZE=4"}));
    EXPECT_TRUE(has(error({{"WORLD_SIZE", "0"}}), {"WORLD_SIZE=0"}));
    EXPECT_TRUE(has(error({{"WORLD_SIZE", "4 "}}), {"WORLD_SIZE=4 "}));
    EXPECT_TRUE(has(error({{"MASTER_PORT", "70000"}}), {"MASTER_PORT=70000", "65535"}));
    EXPECT_TRUE(has(error({{"MASTER_PORT", "http"}}), {"MASTER_PORT=http"}));
    const Environment bad_list = with(kSlurm, {{"SLURM_JOB_NODELIST", "node["}});
    EXPECT_TRUE(has(usage_error_of("tcp", bad_list), {"SLURM_JOB_NODELIST=node[", "MASTER_ADDR"}));
    EXPECT_TRUE(has(usage_error_of("auto", with(kTorchrun, {{"WORLD_SIZE", "many"}})), {"WORLD_SIZE=many"}));
}

TEST(Rendezvous, UnknownWaysAreRefused) {
    for (const char* init : {"", "udp", "file:", "file", "MPI"}) {
        EXPECT_TRUE(has(usage_error_of(init, {}), {"--comm-init=", "choose auto, mpi, tcp, file:PATH or none"}));
    }
}

TEST(Rendezvous, AJobHasANameOfItsOwn) {
    const auto job = [](const Environment& more) { return read_world("tcp", with(kTorchrun, more), false).job; };
    EXPECT_EQ(job({}), "");
    const std::string slurm = job({{"SLURM_JOB_ID", "7"}});
    EXPECT_NE(slurm, "");
    EXPECT_NE(job({{"SLURM_JOB_ID", "7"}, {"SLURM_RESTART_COUNT", "1"}}), slurm);
    EXPECT_EQ(job({{"SLURM_JOB_ID", "7"}, {"TRAIN_GPT_JOB", "sweep 3"}}), "sweep 3");
    EXPECT_NE(job({{"TORCHELASTIC_RUN_ID", "a"}}), job({{"TORCHELASTIC_RUN_ID", "b"}}));
    EXPECT_NE(job({{"PMIX_NAMESPACE", "1"}}), "");
    const auto of_mpirun = [](const char* space) {
        return read_world("tcp", with(with(kMpirun, {{"PMIX_NAMESPACE", space}}), {{"SLURM_JOB_ID", "7"}}), false).job;
    };
    EXPECT_NE(of_mpirun("1"), of_mpirun("2"));
}

TEST(Rendezvous, FindsTheFirstHostOfASlurmList) {
    EXPECT_EQ(first_slurm_host("node[03-07,9],login1"), "node03");
    EXPECT_EQ(first_slurm_host("a"), "a");
    EXPECT_EQ(first_slurm_host("a,b[1-2]"), "a");
    EXPECT_EQ(first_slurm_host("n[12,3-5]-ib0"), "n12-ib0");
    EXPECT_EQ(first_slurm_host("rack[1-2]node[01-04]"), "rack1node01");
    for (const char* list : {"", "n[", "n[]", "n[x]", "n[-3]", "two words"}) EXPECT_EQ(first_slurm_host(list), "");
}

TEST(Rendezvous, TheHostsNameCanBeGiven) {
    EXPECT_EQ(host_name({{"TRAIN_GPT_HOST_NAME", "blue"}}), "blue");
    EXPECT_NE(host_name({}), "");
}

// ---- Meetings ------------------------------------------------------------------------------------------------------

World world_of(Way way, int rank, int size) {
    World world;
    world.way = way;
    world.rank = rank;
    world.size = size;
    world.host = "127.0.0.1";
    return world;
}

/// Whether the ranks of these worlds find each other.
void expect_to_meet(const std::vector<World>& worlds, const Broadcast& broadcast = {}) {
    std::vector<Meeting> meetings;
    for (const World& world : worlds) meetings.push_back(prepare_meeting(world, "here", broadcast));
    const auto endings = run_ranks(std::move(meetings), kPatient, [](Control& control) {
        EXPECT_EQ(control.broadcast(control.rank() == 0 ? "found" : ""), "found");
        control.finish();
    });
    for (const Ending& ending : endings) EXPECT_EQ(ending.error, "");
}

TEST(Rendezvous, RanksMeetByAddressAndPort) {
    int error = 0;
    const int port = port_of(listen_on(0, &error));  // Closed again: free.
    std::vector<World> worlds;
    for (int rank = 0; rank < 3; ++rank) {
        worlds.push_back(world_of(Way::Tcp, rank, 3));
        worlds.back().port = port;
    }
    expect_to_meet(worlds);
}

TEST(Rendezvous, RanksMeetByIpv6) {
    int error = 0;
    const Socket listener = listen_on(0, &error);
    std::string why;
    if (!connect_to("::1", port_of(listener), kPatient, &why)) GTEST_SKIP() << "no IPv6 here: " << why;
    for (const char* host : {"::1", "localhost", "127.0.0.1"}) {
        const int port = port_of(listen_on(0, &error));
        std::vector<World> worlds;
        for (int rank = 0; rank < 3; ++rank) {
            worlds.push_back(world_of(Way::Tcp, rank, 3));
            worlds.back().host = host;
            worlds.back().port = port;
        }
        expect_to_meet(worlds);
    }
}

TEST(Rendezvous, RanksMeetByMpisBroadcast) {
    std::string text;
    expect_to_meet({world_of(Way::Mpi, 0, 2), world_of(Way::Mpi, 1, 2)}, [&](const std::string& of_root) {
        if (!of_root.empty()) text = of_root;
        return text;
    });
}

TEST(Rendezvous, AUsedPortIsNamed) {
    int ignored = 0;
    const Socket other = listen_on(0, &ignored);
    World world = world_of(Way::Tcp, 0, 2);
    world.port = port_of(other);
    const std::string error = error_of([&] { prepare_meeting(world, "here"); });
    EXPECT_EQ(error, fmt::format("--comm-init=tcp: port {} is in use on here; set MASTER_PORT to another", world.port));
}

std::vector<World> worlds_with_file(const std::string& path, int size, const std::string& job) {
    std::vector<World> worlds;
    for (int rank = 0; rank < size; ++rank) {
        worlds.push_back(world_of(Way::File, rank, size));
        worlds.back().path = path;
        worlds.back().job = job;
    }
    return worlds;
}

TEST(Rendezvous, RanksMeetByAFileThatIsGoneAfterwards) {
    const TempDir folder;
    expect_to_meet(worlds_with_file(folder / "place", 3, "slurm-7-0"));
    EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST(Rendezvous, AStaleFileIsReplaced) {
    const TempDir folder;
    // What an earlier run left when it was killed, as this job's and as another one's; nobody listens there any more.
    for (const char* job : {"slurm-7-0", "slurm-6-0"}) {
        std::string stale;
        {
            const Meeting earlier = prepare_meeting(worlds_with_file(folder / "place", 2, job)[0], "here");
            stale = slurp(folder / "place");
        }
        std::vector<World> worlds = worlds_with_file(folder / "place", 2, "slurm-7-0");
        folder.write("place", stale);
        // The other rank reads the stale file first.
        Meeting second = prepare_meeting(worlds[1], "here");
        std::string why;
        const auto place = second.find_root(&why);
        EXPECT_EQ(place.has_value(), std::string(job) == "slurm-7-0");
        expect_to_meet(worlds);
    }
}

TEST(Rendezvous, AFileThatStaysStaleIsNamed) {
    const TempDir folder;
    const std::vector<World> worlds = worlds_with_file(folder / "place", 2, "slurm-7-0");
    const auto error = [&] {
        Meeting meeting = prepare_meeting(worlds[1], "here");
        return error_of([&] { meet(meeting, 0.3); });
    };
    EXPECT_TRUE(has(error(), {"rank 1: no answer from rank 0 within 0.3 s (the file is missing)", folder / "place",
                              "is stale or missing"}));
    folder.write("place", "something else\n");
    EXPECT_TRUE(has(error(), {"(the file has other content)"}));
    std::string stale;
    {
        const Meeting other = prepare_meeting(worlds_with_file(folder / "place", 2, "slurm-6-0")[0], "here");
        EXPECT_TRUE(has(error(), {"(the file is of job 'slurm-6-0', not 'slurm-7-0')"}));
    }
    {
        const Meeting earlier = prepare_meeting(worlds[0], "here");
        stale = slurp(folder / "place");
    }
    folder.write("place", stale);
    EXPECT_TRUE(has(error(), {"(connection refused)", "remove it"}));
}

TEST(Rendezvous, AFileThatCannotBeWrittenIsNamed) {
    const World world = worlds_with_file("/nowhere/place", 2, "")[0];
    EXPECT_TRUE(has(error_of([&] { prepare_meeting(world, "here"); }), {"--comm-init=file:/nowhere/place", "choose"}));
}

}  // namespace
}  // namespace llmc
