#include "llmc/base/median.h"

#include <gtest/gtest.h>

namespace llmc {
namespace {

TEST(Median, IsTheMiddleValueOrTheUpperOfTwo) {
    EXPECT_EQ(median({7}), 7);
    EXPECT_EQ(median({9, 1, 5}), 5);
    EXPECT_EQ(median({4, 1, 3, 2}), 3);
    EXPECT_EQ(median({2, 2, 1e9}), 2);
}

}  // namespace
}  // namespace llmc
