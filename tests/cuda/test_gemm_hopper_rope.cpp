// Products whose heads come out rotated, against the product and the kernel that rotates it.
#include "llmc/backend/cuda/gemm_hopper.h"
#include "llmc/backend/cuda/hopper_rope.h"
#include "tests/cuda/cuda_testing.h"

#include <spdlog/fmt/fmt.h>

namespace llmc {
namespace {

__nv_bfloat16* bf16_data(const Tensor& tensor) { return static_cast<__nv_bfloat16*>(tensor.data); }

struct HeadsCase {
    int64_t T, NH, NKV, HD, rows, first_row = 0, first_position = 0;
    bool has_bias = false, is_packed = false, on_device = false;
    int64_t columns() const { return (NH + 2 * NKV) * HD; }
};
/// One row; heads and sequences that tiles do not end with; rows that begin and end in the middle of a sequence, more
/// than two of them; documents; positions behind others.
constexpr HeadsCase kHeads[] = {
    {.T = 1, .NH = 1, .NKV = 1, .HD = 64, .rows = 1},
    {.T = 70, .NH = 5, .NKV = 1, .HD = 64, .rows = 140, .has_bias = true},
    {.T = 50, .NH = 3, .NKV = 1, .HD = 128, .rows = 130, .first_row = 127, .has_bias = true},
    {.T = 90, .NH = 2, .NKV = 2, .HD = 128, .rows = 180, .is_packed = true},
    {.T = 64, .NH = 4, .NKV = 2, .HD = 64, .rows = 150, .first_row = 40, .has_bias = true, .is_packed = true},
    {.T = 33, .NH = 2, .NKV = 1, .HD = 64, .rows = 33, .first_position = 9, .on_device = true},
};

struct Heads {
    explicit Heads(const HeadsCase& heads)
        : of(heads),
          x(random_buffer(DType::BF16, of.rows, kIC, 0.5, 1)),
          weight(random_buffer(DType::BF16, of.columns(), kIC, 0.5, 2)),
          bias(random_buffer(DType::BF16, 1, of.columns(), 0.5, 3)),
          table(random_buffer(DType::F32, of.first_position + of.T, of.HD, 1, 4)),
          documents(begins(of)),
          more(std::vector<int32_t>{static_cast<int32_t>(of.first_position)}) {
        Values values = x.values();  // Rows of zeros, as padding has them: turned they are 0 or -0.
        for (int64_t i = 0; i < of.rows * kIC; ++i)
            if (i / kIC % 3 == 1) values[static_cast<size_t>(i)] = 0;
        x.set(values);
    }
    static std::vector<int32_t> begins(const HeadsCase& heads) {
        constexpr int64_t kLength = 13;
        std::vector<int32_t> all;
        for (int64_t n = 0; n < heads.rows; ++n)
            all.push_back(static_cast<int32_t>((heads.first_row + n) % heads.T / kLength * kLength));
        return all;
    }
    template <typename On>
    RopeRows rows(On on) const {
        const AttentionShape shape = {.B = 0,
                                      .T = of.T,
                                      .NH = of.NH,
                                      .NKV = of.NKV,
                                      .HD = of.HD,
                                      .documents = of.is_packed ? on(documents) : Tensor()};
        return {on(table), shape, of.on_device ? FirstPosition(on(more)) : FirstPosition(of.first_position),
                of.first_row};
    }
    static constexpr int64_t kIC = 72;
    HeadsCase of;
    TestBuffer x, weight, bias, table, documents, more;
};

TestBuffer rotated(const Heads& heads, bool together, int multiprocessors = 8) {
    TestBuffer out(DType::BF16, heads.of.rows, heads.of.columns());
    run_on_cuda([&](Backend& b, auto on) {
        const RopeRows rows = heads.rows(on);
        const cuda::HopperProduct product = {.out = on(out).data,
                                             .activated = nullptr,
                                             .left = bf16_data(on(heads.x)),
                                             .right = bf16_data(on(heads.weight)),
                                             .bias = heads.of.has_bias ? bf16_data(on(heads.bias)) : nullptr,
                                             .residual = nullptr,
                                             .pre = nullptr,
                                             .rows = static_cast<int>(heads.of.rows),
                                             .columns = static_cast<int>(heads.of.columns()),
                                             .depth = static_cast<int>(Heads::kIC),
                                             .rope = cuda::hopper_rope(rows)};
        b.synchronize();
        cuda::gemm_hopper(product, cuda::HopperKind::Forward, together ? cuda::Applied::Rope : cuda::Applied::Nothing,
                          multiprocessors, static_cast<cudaStream_t>(b.stream()));
        if (!together) b.rope_rows(on(out), rows, /*inverse=*/false);
    });
    EXPECT_TRUE(out.intact());
    return out;
}

TEST(CudaHopperRope, TurnsHeadsAsTheirOwnKernelDoes) {
    if (const std::string why = cuda_backend().why_no_hopper(); !why.empty()) GTEST_SKIP() << why;
    for (const HeadsCase& each : kHeads) {
        SCOPED_TRACE(fmt::format("T={} NH={} NKV={} HD={}", each.T, each.NH, each.NKV, each.HD));
        ASSERT_TRUE(cuda::hopper_gemm_rotates(each.HD, each.HD));
        const Heads heads(each);
        const std::vector<std::byte> expected = rotated(heads, /*together=*/false).bytes();
        cuda::for_each_seed([&] {
            for (const int multiprocessors : {2, 3})
                EXPECT_TRUE(rotated(heads, /*together=*/true, multiprocessors).bytes() == expected) << multiprocessors;
        });
    }
}

TEST(CudaHopperRope, IsOfWholeHeadsThatTilesHold) {
    EXPECT_FALSE(cuda::hopper_gemm_rotates(64, 32));
    EXPECT_FALSE(cuda::hopper_gemm_rotates(96, 96));
    EXPECT_FALSE(cuda::hopper_gemm_rotates(32, 32));
}

/// Whichever forms the product, and whatever heads there are.
TEST(CudaMatmulAndRope, HasTheBitsOfBothInTurn) {
    HeadsCase cases[] = {kHeads[1], kHeads[4], kHeads[4]};
    cases[2].HD = 48;
    for (const HeadsCase& each : cases) {
        const Heads heads(each);
        const TestBuffer separate(DType::BF16, each.rows, each.columns()),
            together(DType::BF16, each.rows, each.columns());
        const TestBuffer workspace =
            workspace_buffer(cuda_backend().matmul_workspace(DType::BF16, each.rows, each.columns(), Heads::kIC));
        run_on_cuda([&](Backend& b, auto on) {
            const RopeRows rows = heads.rows(on);
            b.matmul_forward(on(separate), on(heads.x), on(heads.weight), on(heads.bias), {}, on(workspace));
            b.rope_rows(on(separate), rows, /*inverse=*/false);
            b.matmul_and_rope(on(together), on(heads.x), on(heads.weight), on(heads.bias), on(workspace), rows);
        });
        EXPECT_TRUE(together.bytes() == separate.bytes() && together.intact()) << each.HD;
    }
}

}  // namespace
}  // namespace llmc
