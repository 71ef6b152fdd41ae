#include "llmc/comm/launcher.h"

#include "llmc/comm/rendezvous.h"
#include "tests/comm/comm_testing.h"
#include "tests/comm/environment_testing.h"
#include "tests/io/temp_dir.h"

namespace llmc {
namespace {

using Way = World::Way;

TEST(Launcher, ReadsOtherLaunchersVariables) {
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

TEST(Launcher, WhatMpiDoesNotFindIsAnError) {
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
                             "PALS_RANKID", "JSM_NAMESPACE_SIZE", "PMIX_RANK", "MPI_LOCALNRANKS", "MPI_LOCALRANKID",
                             "PMI_ID", "MP_PROCS", "ALPS_APP_PE", "WORLD_SIZE"}) {
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

TEST(Launcher, OneOfSeveralIsNeverAloneUnsaid) {
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

TEST(Launcher, WhoMayBeOneOfSeveralIsWarned) {
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
    // The script of a job as rank 0 of tasks that nobody starts.
    const Environment named = with(first, {{"MASTER_ADDR", "node03"}});
    EXPECT_TRUE(has(warning("tcp", named), {"SLURM_NTASKS=8", "srun"}));
    EXPECT_EQ(warning("tcp", with(named, {{"SLURM_STEP_ID", "0"}})), "");
    EXPECT_EQ(warning("tcp", kTorchrun), "");
}

TEST(Launcher, AddressesThatCanNeverWorkAreRefused) {
    const auto error = [](const std::string& address) {
        return usage_error_of("tcp", with(kTorchrun, {{"MASTER_ADDR", address}}));
    };
    for (const char* address : {"tcp://node7", "http://10.0.0.1:80/",
                                "node7:29500", "10.0.0.1:29500",
                                "[::1]:29500", "node 7",
                                " node7",      "node7 ",
                                "node7,node8", "node7/",
                                "user@node7",  "256.0.0.1",
                                "1.2.3.4.5",   "a..b",
                                ".a",          "-a",
                                "[::1",        "::g",
                                "1:2:3",       "[node7]",
                                "224.0.0.1",   "255.255.255.255",
                                "ff02::1",     "n\u00f6de",
                                "node7\n",     ":",
                                "[]",          "*"}) {
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

}  // namespace
}  // namespace llmc
