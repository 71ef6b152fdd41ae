// Variables as launchers set them, for tests of what they mean.
#pragma once

#include "llmc/base/error.h"
#include "llmc/comm/rendezvous.h"

#include <gtest/gtest.h>

#include <string>

namespace llmc {

inline const Environment kTorchrun = {
    {"RANK", "2"}, {"WORLD_SIZE", "4"}, {"MASTER_ADDR", "node7"}, {"MASTER_PORT", "29500"}};
inline const Environment kMpirun = {{"OMPI_COMM_WORLD_RANK", "1"},
                                    {"OMPI_COMM_WORLD_SIZE", "2"},
                                    {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"},
                                    {"PMIX_NAMESPACE", "3000000007"}};
inline const Environment kSlurm = {
    {"SLURM_PROCID", "3"}, {"SLURM_NTASKS", "8"}, {"SLURM_JOB_NODELIST", "node[03-07,9]"}, {"SLURM_JOB_ID", "41234"}};

inline Environment with(Environment environment, const Environment& changes) {
    for (const auto& [name, value] : changes) environment[name] = value;
    return environment;
}

/// The message for a wrong environment, which ends the program with exit code 2.
inline std::string usage_error_of(const std::string& init, const Environment& environment, bool with_mpi = false) {
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

}  // namespace llmc
