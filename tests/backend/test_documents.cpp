// Documents that share a sequence on the CPU: the bits of each alone, wherever it begins.
#include "tests/backend/documents_testing.h"

namespace llmc {
namespace {

/// Runs on so many threads.
auto runner(int threads) {
    return [threads](const auto& operation) {
        cpu::CpuBackend backend(threads);
        operation(backend, [](const TestBuffer& buffer) { return buffer.tensor(); });
    };
}

const DocumentsCase kCases[] = {
    {{{5, 3, 1, 7}}, 2, 2, 8},
    {{{13}, {6, 7}}, 3, 3, 16},
    {{{100, 93, 7}, {200}}, 4, 2, 32},
    {{{192, 192, 16}, {1, 399}}, 2, 1, 16},
    {{{450, 350}}, 1, 1, 24},
    {{{97, 300, 3}}, 4, 2, 16, 12},
    {{{500, 200}, {350, 350}}, 2, 1, 8, 193},
    {{std::vector<int64_t>(40, 5)}, 2, 2, 5},
};

TEST(Documents, AttentionGivesTheBitsOfEachAlone) {
    for (const int threads : {1, 3}) {
        for (const DType dtype : kActivationTypes) {
            for (const DocumentsCase& c : kCases) expect_attention_as_alone(runner(threads), dtype, c);
        }
    }
}

TEST(Documents, OthersAreNotLookedAt) {
    for (const DType dtype : kActivationTypes) {
        for (size_t which = 0; which < 3; ++which) expect_others_unread(runner(2), dtype, kCases[2], which);
    }
}

TEST(Documents, PositionsBeginAnew) {
    for (const DType dtype : kActivationTypes) {
        for (const DocumentsCase& c : kCases) {
            expect_rope_as_alone(runner(2), dtype, c);
            for (const int64_t C : {8, 33}) expect_embedding_by_position(runner(2), dtype, c, C);
        }
    }
}

/// A sequence that is one document is what it is without being told so.
TEST(Documents, OneIsTheSequence) {
    const DocumentsCase c = {{{210}, {210}}, 4, 2, 16};
    const AttentionInputs x(DType::F32, c.shape());
    const TestBuffer starts(c.starts());
    const AttentionResults told(runner(2), c.shape(), x.qkv, x.d_out, &starts);
    const AttentionResults untold(runner(2), c.shape(), x.qkv, x.d_out, nullptr);
    EXPECT_TRUE(told.out.bytes() == untold.out.bytes());
    EXPECT_TRUE(told.lse.bytes() == untold.lse.bytes());
    EXPECT_TRUE(told.d_qkv.bytes() == untold.d_qkv.bytes());
}

TEST(Rows, AreGathered) {
    for (const DType dtype : kActivationTypes) {
        for (const int64_t C : {1, 5, 64}) expect_rows_gathered(runner(1), dtype, C);
    }
}

}  // namespace
}  // namespace llmc
