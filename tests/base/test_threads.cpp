// How many threads there can be, and what the environment says about them.
#include "llmc/base/threads.h"

#include "tests/sanitizers.h"

#include <gtest/gtest.h>
#include <omp.h>

#include <cstdlib>
#include <string>

namespace llmc {
namespace {

/// An environment variable for as long as it lives.
class Variable {
  public:
    Variable(const char* name, const char* value) : name_(name) {
        const char* before = std::getenv(name);
        if (before != nullptr) before_ = before;
        setenv(name, value, 1);
    }
    ~Variable() { before_ ? setenv(name_, before_->c_str(), 1) : unsetenv(name_); }
    Variable(const Variable&) = delete;
    Variable& operator=(const Variable&) = delete;

  private:
    const char* name_;
    std::optional<std::string> before_;
};

TEST(Threads, ByEnvironment) {
    struct Case {
        const char* text;
        int threads;  // 0: none
    };
    const int all = omp_get_num_procs();
    for (const Case& one : {Case{"1", 1},
                            {" 1", 1},
                            {"1,2", 1},
                            {"1 ", 1},
                            {"100000", all},
                            {"100000,1", all},
                            {"", 0},
                            {"0", 0},
                            {"-1", 0},
                            {"many", 0},
                            {"4x", 0},
                            {"99999999999", 0}}) {
        const Variable variable("OMP_NUM_THREADS", one.text);
        EXPECT_EQ(threads_by_environment().value_or(0), one.threads) << one.text;
    }
}

TEST(Threads, StackSize) {
    struct Case {
        const char* text;
        int64_t bytes;  // 0: none
    };
    for (const Case& one : {Case{"2000", 2000 * 1024},
                            {"3b", 3},
                            {"16k", 16384},
                            {"8M", 8 << 20},
                            {"1 G ", 1 << 30},
                            {"", 0},
                            {"0", 0},
                            {"8X", 0},
                            {"8MB", 0},
                            {"99999999999999G", INT64_MAX}}) {
        const Variable variable("OMP_STACKSIZE", one.text), other("GOMP_STACKSIZE", "");
        EXPECT_EQ(omp_stack_bytes().value_or(0), one.bytes) << one.text;
    }
}

TEST(Threads, Possible) {
    EXPECT_EQ(possible_threads(1), 1);
    EXPECT_EQ(possible_threads(3), threads_there_are(3));
    EXPECT_TRUE(can_start_thread(0));
    EXPECT_TRUE(can_start_thread(1 << 20));
    EXPECT_FALSE(can_start_thread(1));
    EXPECT_FALSE(can_start_thread(int64_t{1} << 60));
}

}  // namespace
}  // namespace llmc
