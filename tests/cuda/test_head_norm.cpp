// RMSNorm of query and key heads against the CPU backend.
#include "tests/backend/head_norm_testing.h"
#include "tests/cuda/cuda_testing.h"

namespace llmc {
namespace {

TEST(CudaHeadNorm, IsAsGoodAsTheCpus) {
    for (const AttentionShape& shape : kHeadNormShapes)
        for (const DType dtype : kActivationTypes) {
            const HeadNormCase cpu(dtype, shape), truth(cpu);
            SCOPED_TRACE(cpu.name());
            run_on_cpu([&](Backend& b, auto on) { cpu.run(b, on); });
            run_on_cpu([&](Backend& b, auto on) { truth.run(b, on); });
            std::vector<std::byte> bits;
            cuda::for_each_seed([&] {
                const HeadNormCase ours(dtype, shape);
                run_on_cuda([&](Backend& b, auto on) { ours.run(b, on); });
                expect_as_good_as_cpu(ours.out, cpu.out, truth.out);
                expect_as_good_as_cpu(ours.rstd, cpu.rstd, truth.rstd);
                expect_as_good_as_cpu(ours.d_qkv, cpu.d_qkv, truth.d_qkv);
                expect_as_good_as_cpu(ours.d_q_weight, cpu.d_q_weight, truth.d_q_weight, 64);
                expect_as_good_as_cpu(ours.d_k_weight, cpu.d_k_weight, truth.d_k_weight, 64);
                if (bits.empty()) bits = ours.results();
                EXPECT_TRUE(ours.results() == bits);
            });
        }
}

TEST(CudaHeadNorm, InPlaceAndAddingGiveTheSameBits) {
    for (const DType dtype : kActivationTypes) {
        const AttentionShape shape = {2, 37, 4, 2, 8};
        const HeadNormCase apart(dtype, shape), in_place(dtype, shape), added(dtype, shape);
        run_on_cuda([&](Backend& b, auto on) { apart.run(b, on); });
        run_on_cuda([&](Backend& b, auto on) { in_place.run(b, on, true); });
        EXPECT_TRUE(in_place.d_out.bytes() == apart.d_qkv.bytes());
        EXPECT_TRUE(in_place.d_k_weight.bytes() == apart.d_k_weight.bytes());
        added.d_q_weight.set(Values(8, 3.0));
        added.d_k_weight.set(Values(8, 3.0));
        run_on_cuda([&](Backend& b, auto on) { added.run(b, on, false, true); });
        for (size_t d = 0; d < 8; ++d)
            EXPECT_EQ(added.d_k_weight.values()[d], static_cast<float>(3.0 + apart.d_k_weight.values()[d]));
    }
}

}  // namespace
}  // namespace llmc
