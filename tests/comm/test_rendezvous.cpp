#include "llmc/comm/rendezvous.h"
#include "tests/comm/comm_testing.h"
#include "tests/comm/environment_testing.h"
#include "tests/io/temp_dir.h"

namespace llmc {
namespace {

using Way = World::Way;

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
        const Environment other =
            with(kSlurm, {{"SLURM_JOB_ID", std::to_string(41234 + later)}, {"SLURM_STEP_ID", "0"}});
        EXPECT_NE(read_world("tcp", other, false).port, step("1").port);
    }
    EXPECT_TRUE(step("4000000000").port >= 20000 && step("4000000000").port < 32000);
    // Ranks that people number themselves may be one run over several steps.
    const auto by_hand = [](const char* id) {
        return read_world("tcp", with(kTorchrun, {{"SLURM_JOB_ID", "7"}, {"SLURM_STEP_ID", id}}), false).job;
    };
    EXPECT_EQ(by_hand("0"), by_hand("1"));
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

TEST(Rendezvous, StrangersNeedASecret) {
    const Environment elsewhere = kTorchrun, here = with(kTorchrun, {{"MASTER_ADDR", "127.0.0.1"}});
    const std::string secret = random_secret();
    const auto refused = [](const Environment& environment, bool insecure) -> std::string {
        try {
            require_secret(read_world("tcp", environment, false), insecure);
        } catch (const Error& error) {
            EXPECT_EQ(error.exit_code(), kExitBadUsage);
            return error.what();
        }
        return "";
    };
    const std::string error = refused(elsewhere, false);
    EXPECT_TRUE(has(error, {"MASTER_ADDR=node7", "--comm-insecure"}));
    // The advice works.
    const size_t at = error.find("export LLMC_JOB_SECRET=");
    ASSERT_NE(at, std::string::npos) << error;
    const std::string advised = error.substr(at + 23, error.find(' ', at + 23) - at - 23);
    EXPECT_EQ(refused(with(elsewhere, {{"LLMC_JOB_SECRET", advised}}), false), "");
    EXPECT_EQ(refused(with(elsewhere, {{"LLMC_JOB_SECRET", secret}}), false), "");
    EXPECT_EQ(refused(elsewhere, true), "");
    for (const char* host : {"127.0.0.1", "127.8.0.1", "::1", "[::1]", "localhost"}) {
        EXPECT_EQ(refused(with(kTorchrun, {{"MASTER_ADDR", host}}), false), "") << host;
    }
    for (const char* host : {"0.0.0.0", "10.0.0.1", "::", "localhost.example.org", "node.localhost"}) {
        EXPECT_TRUE(has(refused(with(kTorchrun, {{"MASTER_ADDR", host}}), false), {"LLMC_JOB_SECRET="})) << host;
    }
    const World world = read_world("tcp", with(elsewhere, {{"RANK", "0"}}), false);
    EXPECT_TRUE(has(warning_of_strangers(world, true), {"--comm-insecure", "node7:29500"}));
    EXPECT_EQ(warning_of_strangers(read_world("tcp", with(here, {{"RANK", "0"}}), false), true), "");
}

TEST(Rendezvous, WhatIsNoSecretIsNotRepeated) {
    for (const char* text : {"short", "has blanks in its middle", "has-a-line-end\n"}) {
        const std::string error = usage_error_of("tcp", with(kTorchrun, {{"LLMC_JOB_SECRET", text}}));
        EXPECT_TRUE(has(error, {"LLMC_JOB_SECRET: ", "export LLMC_JOB_SECRET="}));
        EXPECT_EQ(error.find(text), std::string::npos);
    }
    EXPECT_EQ(read_world("none", {{"LLMC_JOB_SECRET", "short"}}, false).way, Way::One);
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

std::vector<World> worlds_with_file(const std::string& path, int size, const std::string& job) {
    std::vector<World> worlds;
    for (int rank = 0; rank < size; ++rank) {
        worlds.push_back(world_of(Way::File, rank, size));
        worlds.back().path = path;
        worlds.back().job = job;
    }
    return worlds;
}

TEST(Rendezvous, Rank0ListensOnTheInterfaceInUseAlone) {
    World world = world_of(Way::Tcp, 0, 2);
    int error = 0;
    world.port = port_of(listen_on(0, &error));
    const Meeting meeting = prepare_meeting(world, "here");
    ASSERT_EQ(meeting.listeners.size(), 1u);
    EXPECT_EQ(own_address(meeting.listeners[0]), "127.0.0.1");
    World mpi = world_of(Way::Mpi, 0, 2);
    mpi.one_host = true;
    const Meeting over_mpi = prepare_meeting(mpi, "here", [](const std::string& text) { return text; });
    EXPECT_EQ(own_address(over_mpi.listeners.at(0)), "127.0.0.1");
}

TEST(Rendezvous, ASecretOnSomeRanksAloneIsSaid) {
    const TempDir folder;
    std::vector<World> worlds = worlds_with_file(folder / "place", 2, "");
    const auto error_with = [&](const std::string& of_root, const std::string& of_other) {
        worlds[0].secret = of_root;
        worlds[1].secret = of_other;
        const Meeting root = prepare_meeting(worlds[0], "here");
        Meeting other = prepare_meeting(worlds[1], "here");
        return error_of([&] { meet(other, 0.3); });
    };
    EXPECT_TRUE(has(error_with("", "a secret of its own"), {"LLMC_JOB_SECRET is set on this rank alone"}));
    EXPECT_TRUE(has(error_with("a secret of its own", ""), {"LLMC_JOB_SECRET is set on rank 0 alone"}));
}

TEST(Rendezvous, OthersCannotReadTheSecretInAFile) {
    const TempDir folder;
    const std::string path = folder / "place";
    const Meeting root = prepare_meeting(worlds_with_file(path, 2, "")[0], "here");
    EXPECT_TRUE(has(slurp(path), {"\nsecret "}));
    EXPECT_EQ(std::filesystem::status(path).permissions(), std::filesystem::perms(0600));
}

TEST(Rendezvous, AUsedPortIsNamed) {
    int ignored = 0;
    const Socket other = listen_on(0, &ignored);
    World world = world_of(Way::Tcp, 0, 2);
    world.port = port_of(other);
    const std::string error = error_of([&] { prepare_meeting(world, "here"); });
    EXPECT_EQ(error, fmt::format("--comm-init=tcp: port {} is in use on here; set MASTER_PORT to another", world.port));
}

/// As a rank 0 leaves it.
void lay_place(const TempDir& folder, const std::string& content) {
    std::filesystem::permissions(folder.write("place", content), std::filesystem::perms(0600));
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
        lay_place(folder, stale);
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
    lay_place(folder, "something else\n");
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
    lay_place(folder, stale);
    EXPECT_TRUE(has(error(), {"(connection refused)", "remove it"}));
}

TEST(Rendezvous, AFileThatCannotBeWrittenIsNamed) {
    const World world = worlds_with_file("/nowhere/place", 2, "")[0];
    EXPECT_TRUE(has(error_of([&] { prepare_meeting(world, "here"); }), {"--comm-init=file:/nowhere/place", "choose"}));
}

}  // namespace
}  // namespace llmc
