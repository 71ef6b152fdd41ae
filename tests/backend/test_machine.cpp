// Cores and memory of a machine, read from folders that look like /proc and /sys.
#include "llmc/backend/cpu/machine.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

namespace llmc::cpu {
namespace {

/// A folder of files that is removed again.
class FakeRoot {
  public:
    FakeRoot() : path_(std::filesystem::temp_directory_path() / ("llmc_machine_" + std::to_string(getpid()))) {
        write("proc/meminfo", "MemTotal:       16000 kB\nMemFree:         100 kB\nMemAvailable:    9000 kB\n");
    }
    ~FakeRoot() { std::filesystem::remove_all(path_); }
    void write(const std::string& file, const std::string& text) const {
        const std::filesystem::path path = path_ / file;
        std::filesystem::create_directories(path.parent_path());
        std::ofstream(path) << text;
    }
    std::string path() const { return path_.string(); }

  private:
    std::filesystem::path path_;
};

constexpr int64_t kKiB = 1024;

TEST(Machine, MemoryWithoutControlGroups) {
    const FakeRoot root;
    EXPECT_EQ(machine_memory(root.path()).total, 16000 * kKiB);
    EXPECT_EQ(machine_memory(root.path()).available, 9000 * kKiB);
    EXPECT_EQ(machine_memory("/no/such/folder").total, 0);
}

TEST(Machine, MemoryOfVersion2GroupsIsTheTightest) {
    const FakeRoot root;
    root.write("proc/self/cgroup", "0::/outer/inner\n");
    root.write("sys/fs/cgroup/outer/inner/memory.max", "max\n");
    root.write("sys/fs/cgroup/outer/memory.max", std::to_string(8000 * kKiB));
    root.write("sys/fs/cgroup/outer/memory.current", std::to_string(5000 * kKiB));
    root.write("sys/fs/cgroup/outer/memory.stat", "anon 1\ninactive_file " + std::to_string(1000 * kKiB) +
                                                      "\nactive_file " + std::to_string(500 * kKiB) + "\n");
    EXPECT_EQ(machine_memory(root.path()).total, 8000 * kKiB);
    EXPECT_EQ(machine_memory(root.path()).available, 4500 * kKiB);
}

// Inside a container the path is the host's, and the mount's root is the group.
TEST(Machine, MemoryOfVersion1GroupAtTheMount) {
    const FakeRoot root;
    root.write("proc/self/cgroup", "5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n0::/\n");
    root.write("sys/fs/cgroup/memory/memory.limit_in_bytes", std::to_string(4000 * kKiB));
    root.write("sys/fs/cgroup/memory/memory.usage_in_bytes", std::to_string(3000 * kKiB));
    root.write("sys/fs/cgroup/memory/memory.stat",
               "inactive_file 7\ntotal_inactive_file " + std::to_string(1000 * kKiB) + "\n");
    EXPECT_EQ(machine_memory(root.path()).total, 4000 * kKiB);
    EXPECT_EQ(machine_memory(root.path()).available, 2000 * kKiB);
    root.write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712");  // Version 1 for "no limit".
    EXPECT_EQ(machine_memory(root.path()).available, 9000 * kKiB);
}

// A group of much, which others have used up.
TEST(Machine, AvailableIsTheLeastOfAllParents) {
    const FakeRoot root;
    root.write("proc/self/cgroup", "0::/outer/inner\n");
    root.write("sys/fs/cgroup/outer/inner/memory.max", std::to_string(6000 * kKiB));
    root.write("sys/fs/cgroup/outer/inner/memory.current", std::to_string(100 * kKiB));
    root.write("sys/fs/cgroup/outer/memory.max", std::to_string(12000 * kKiB));
    root.write("sys/fs/cgroup/outer/memory.current", std::to_string(11000 * kKiB));
    MachineMemory memory = machine_memory(root.path());
    EXPECT_EQ(memory.total, 6000 * kKiB);
    EXPECT_EQ(memory.available, 1000 * kKiB);
    EXPECT_EQ(memory.limit, "/sys/fs/cgroup/outer/memory.max");
    root.write("sys/fs/cgroup/outer/memory.current", "0");
    memory = machine_memory(root.path());
    EXPECT_EQ(memory.available, 5900 * kKiB);
    EXPECT_EQ(memory.limit, "/sys/fs/cgroup/outer/inner/memory.max");
    // Above it a process is slowed down until it stands still.
    root.write("sys/fs/cgroup/outer/inner/memory.high", std::to_string(2000 * kKiB));
    memory = machine_memory(root.path());
    EXPECT_EQ(memory.total, 2000 * kKiB);
    EXPECT_EQ(memory.available, 1900 * kKiB);
}

TEST(Machine, StrictOvercommitIsALimit) {
    const FakeRoot root;
    root.write("proc/meminfo",
               "MemTotal: 16000 kB\nMemAvailable: 9000 kB\nCommitLimit: 8000 kB\nCommitted_AS: 5000 kB\n");
    root.write("proc/sys/vm/overcommit_memory", "0\n");
    EXPECT_EQ(machine_memory(root.path()).available, 9000 * kKiB);
    EXPECT_EQ(machine_memory(root.path()).limit, "");
    root.write("proc/sys/vm/overcommit_memory", "2\n");
    EXPECT_EQ(machine_memory(root.path()).available, 3000 * kKiB);
    EXPECT_NE(machine_memory(root.path()).limit, "");
}

// Processors 0 and 2 are one core, 1 and 3 another.
const char* const kTwoCores = "pack:1 core:2 pu:2(indexes=0,2,1,3)";

TEST(Machine, CoresNotHardwareThreads) {
    const Topology topology(kTwoCores);
    EXPECT_EQ(topology.processors(), (std::vector<int>{0, 1, 2, 3}));
    EXPECT_EQ(topology.cores_of({0, 1, 2, 3}), 2);
    EXPECT_EQ(topology.cores_of({1, 3}), 1);
    EXPECT_EQ(topology.cores_of({0, 1, 7}), 3);  // Nothing is known of processor 7.
    EXPECT_EQ(topology.cores_of({}), 1);
    EXPECT_EQ(Topology("no topology").cores_of({4, 5}), 2);
}

TEST(Machine, CoresWithinTheQuota) {
    const Topology topology("pack:1 core:4 pu:1");
    const FakeRoot root;
    root.write("proc/self/cgroup", "0::/job\n");
    root.write("sys/fs/cgroup/job/cpu.max", "max 100000\n");
    EXPECT_EQ(usable_cores({0, 1, 2, 3}, topology, root.path()), 4);
    root.write("sys/fs/cgroup/job/cpu.max", "150000 100000\n");
    EXPECT_EQ(usable_cores({0, 1, 2, 3}, topology, root.path()), 2);
    EXPECT_EQ(usable_cores({0, 1, 2, 3}, Topology(kTwoCores), root.path()), 2);
    root.write("sys/fs/cgroup/job/cpu.max", "10000 100000\n");
    EXPECT_EQ(usable_cores({0, 1, 2, 3}, topology, root.path()), 1);

    const FakeRoot version1;
    version1.write("proc/self/cgroup", "3:cpu,cpuacct:/\n");
    version1.write("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "300000\n");
    version1.write("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
    EXPECT_EQ(usable_cores({0, 1, 2, 3}, topology, version1.path()), 3);
}

TEST(Machine, ProcessorName) {
    EXPECT_EQ(processor_name(""), "CPU");
    EXPECT_EQ(processor_name("AMD EPYC 9454 48-Core Processor"), "AMD EPYC 9454 48-Core");
    EXPECT_EQ(processor_name("Intel(R) Xeon(R) CPU @ 2.20GHz"), "Intel Xeon @ 2.20GHz");
}

TEST(Machine, UnboundThreadsHaveAtLeastWhatThisOneHas) {
    std::vector<int> unbound;
    std::thread([&] { unbound = this_topology().unbind_this_thread(); }).join();
    EXPECT_GE(unbound.size(), allowed_processors().size());
}

TEST(Machine, ThisOne) {
    EXPECT_FALSE(allowed_processors().empty());
    EXPECT_GE(usable_cores(allowed_processors()), 1);
    EXPECT_GT(measured_flops_per_core(), 1e8);
    EXPECT_EQ(measured_flops_per_core(), measured_flops_per_core());
}

}  // namespace
}  // namespace llmc::cpu
