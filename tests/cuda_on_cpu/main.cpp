// main() of cuda_tests: every test starts with the seed of the environment, and fails if a report is left over.
#include "dev/cuda_on_cpu/control.h"

#include <gtest/gtest.h>

namespace {

class Reports : public testing::EmptyTestEventListener {
    void OnTestStart(const testing::TestInfo&) override {
        cuda_on_cpu::clear_report();
        cuda_on_cpu::set_machine({});
        cuda_on_cpu::set_seed(cuda_on_cpu::seed_from_environment());
    }
    void OnTestEnd(const testing::TestInfo&) override {
        if (!cuda_on_cpu::last_report().empty()) ADD_FAILURE() << cuda_on_cpu::last_report();
        cuda_on_cpu::set_quiet(false);
        cuda_on_cpu::clear_report();
    }
};

}  // namespace

int main(int argc, char** argv) {
    testing::InitGoogleTest(&argc, argv);
    testing::UnitTest::GetInstance()->listeners().Append(new Reports);
    return RUN_ALL_TESTS();
}
