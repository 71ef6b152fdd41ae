// The backward of an activation and a weight gradient as one operation, against the two by themselves: bit for bit,
// where the backend says that it has their bits.
#include "tests/backend/backend_testing.h"

#include <gtest/gtest.h>

namespace llmc {
namespace {

struct Sizes {
    int64_t N, OC, IC;
};
constexpr Sizes kSizes[] = {{1, 2, 3}, {64, 16, 8}, {65, 48, 40}, {130, 300, 17}, {333, 514, 100}};
constexpr ActivationFunction kFunctions[] = {ActivationFunction::Gelu, ActivationFunction::GeluExact,
                                             ActivationFunction::Swiglu};

/// What goes in, and what comes out.
struct Call {
    Call(ActivationFunction activation, DType dtype, const Sizes& sizes)
        : activation(activation),
          columns(activation == ActivationFunction::Swiglu ? sizes.OC / 2 : sizes.OC),
          pre(random_buffer(dtype, sizes.N, sizes.OC, 2, 1)),
          d_act(random_buffer(dtype, sizes.N, columns, 1, 2)),
          x(random_buffer(dtype, sizes.N, sizes.IC, 1, 3)),
          d_pre(dtype, sizes.N, sizes.OC),
          d_weight(random_buffer(DType::F32, sizes.OC, sizes.IC, 1, 4)),
          d_bias(random_buffer(DType::F32, sizes.OC, 1, 1, 5)) {}

    void separately(Backend& backend, bool adds) {
        switch (activation) {
            case ActivationFunction::Gelu: backend.gelu_backward(d_pre, d_act, pre); break;
            case ActivationFunction::GeluExact: backend.gelu_exact_backward(d_pre, d_act, pre); break;
            case ActivationFunction::Swiglu: backend.swiglu_backward(d_pre, d_act, pre); break;
        }
        const Tensor weight = d_weight, rows = x;
        const TestBuffer workspace =
            workspace_buffer(backend.matmul_workspace(pre.dtype(), rows.shape[0], weight.shape[0], weight.shape[1]));
        backend.matmul_backward_weight(d_weight, d_bias, adds, d_pre, x, workspace);
        EXPECT_TRUE(workspace.intact());
    }

    FusionQuery query() const {
        const Tensor weight = d_weight, rows = x;
        return {Fusion::ActivationAndWeightGradient,
                activation,
                pre.dtype(),
                rows.shape[0],
                weight.shape[0],
                weight.shape[1]};
    }

    void as_one(Backend& backend, bool adds, bool in_place = false) {
        const TestBuffer workspace = workspace_buffer(backend.fuses(query()).workspace_bytes);
        backend.activation_and_weight_gradient(
            {activation, in_place ? d_act : d_pre, d_act, pre, d_weight, d_bias, adds, x, workspace});
        EXPECT_TRUE(workspace.intact() && d_pre.intact() && d_weight.intact() && d_bias.intact());
    }

    ActivationFunction activation;
    int64_t columns;
    TestBuffer pre, d_act, x, d_pre, d_weight, d_bias;
};

TEST(ActivationAndWeightGradient, HasTheBitsOfItsOperations) {
    for (const int threads : {1, 3}) {
        cpu::CpuBackend backend(threads);
        for (const ActivationFunction activation : kFunctions) {
            for (const Sizes& sizes : kSizes) {
                for (const bool adds : {false, true}) {
                    SCOPED_TRACE(fmt::format("{} threads, {}: {} x {} x {}, {}", threads, static_cast<int>(activation),
                                             sizes.N, sizes.OC, sizes.IC, adds));
                    Call separate(activation, DType::F32, sizes), fused(activation, DType::F32, sizes);
                    ASSERT_TRUE(backend.fuses(fused.query()).same_bits);
                    separate.separately(backend, adds);
                    fused.as_one(backend, adds);
                    EXPECT_TRUE(separate.d_pre.bytes() == fused.d_pre.bytes());
                    EXPECT_TRUE(separate.d_weight.bytes() == fused.d_weight.bytes());
                    EXPECT_TRUE(separate.d_bias.bytes() == fused.d_bias.bytes());
                }
            }
        }
    }
}

TEST(ActivationAndWeightGradient, MayReplaceTheGradientItReads) {
    cpu::CpuBackend backend(2);
    for (const ActivationFunction activation : {ActivationFunction::Gelu, ActivationFunction::GeluExact}) {
        Call apart(activation, DType::F32, {65, 48, 40}), in_place(activation, DType::F32, {65, 48, 40});
        apart.as_one(backend, false);
        in_place.as_one(backend, false, /*in_place=*/true);
        EXPECT_TRUE(apart.d_pre.bytes() == in_place.d_act.bytes());
        EXPECT_TRUE(apart.d_weight.bytes() == in_place.d_weight.bytes());
        EXPECT_TRUE(apart.d_bias.bytes() == in_place.d_bias.bytes());
    }
}

TEST(ActivationAndWeightGradient, LeavesOutWhatIsNotWanted) {
    cpu::CpuBackend backend(2);
    Call all(ActivationFunction::Gelu, DType::F32, {65, 48, 40}),
        some(ActivationFunction::Gelu, DType::F32, {65, 48, 40});
    all.as_one(backend, false);
    const TestBuffer workspace = workspace_buffer(backend.fuses(some.query()).workspace_bytes);
    backend.activation_and_weight_gradient(
        {some.activation, some.d_pre, some.d_act, some.pre, some.d_weight, {}, false, some.x, workspace});
    EXPECT_TRUE(all.d_weight.bytes() == some.d_weight.bytes());
    backend.activation_and_weight_gradient(
        {some.activation, some.d_pre, some.d_act, some.pre, {}, some.d_bias, false, some.x, workspace});
    EXPECT_TRUE(all.d_bias.bytes() == some.d_bias.bytes());
}

TEST(ActivationAndWeightGradient, ThreadCountDoesNotMatter) {
    for (const ActivationFunction activation : kFunctions) {
        expect_same_bits_at_every_thread_count([&](Backend& backend) {
            Call call(activation, DType::F32, {700, 514, 130});
            call.as_one(backend, true);
            return joined({&call.d_pre, &call.d_weight, &call.d_bias});
        });
    }
}

/// Whether two steps are one decides nothing on the CPU but time: where it saves none, they are not.
TEST(ActivationAndWeightGradient, IsStatedByTypeAndNeverByThreads) {
    for (const int threads : {1, 2, 3}) {
        const cpu::CpuBackend backend(threads);
        for (const ActivationFunction activation : kFunctions) {
            for (const Sizes& sizes : kSizes) {
                FusionQuery query = {
                    Fusion::ActivationAndWeightGradient, activation, DType::F32, sizes.N, sizes.OC, sizes.IC};
                EXPECT_TRUE(backend.fuses(query).fuses);
                query.dtype = DType::BF16;
                EXPECT_FALSE(backend.fuses(query).fuses);
            }
        }
    }
}

}  // namespace
}  // namespace llmc
