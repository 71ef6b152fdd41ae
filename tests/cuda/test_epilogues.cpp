// Products that take along what comes after them: GELU's derivative of an input gradient, the sums of a bias's gradient
// with its weight's. Against the separate operations and exact sums; and in whole models, the same bits whatever the
// policy and the tiles.
#include "llmc/plan/policy.h"
#include "llmc/run/fusion.h"
#include "tests/cuda/cuda_testing.h"
#include "tests/run/tiles_cases.h"

#ifdef LLMC_CUDA_ON_CPU
#include "dev/cuda_on_cpu/control.h"
#endif

namespace llmc {
namespace {

struct Shape {
    int64_t N, OC, IC;
};
constexpr Shape kShapes[] = {{37, 48, 104}, {64, 128, 64}, {300, 100, 72}, {1, 8, 16}};

FusionQuery query_of(Fusion fusion, const Shape& s) {
    return {fusion, ActivationFunction::Gelu, DType::BF16, s.N, s.OC, s.IC};
}

/// Of a card's library that has no algorithm there is nothing to test.
bool is_fused(const FusionQuery& query) {
    const bool fuses = cuda_backend().fuses(query).fuses;
#ifdef LLMC_CUDA_ON_CPU
    EXPECT_TRUE(fuses);
#endif
    return fuses;
}

// ---- the operations -----------------------------------------------------------------------------------------------

struct Gradients {
    explicit Gradients(const Shape& s, double start)
        : weight(DType::F32, s.OC, s.IC, Values(static_cast<size_t>(s.OC * s.IC), start)),
          bias(DType::F32, s.OC, 1, Values(static_cast<size_t>(s.OC), start)) {}
    TestBuffer weight, bias;
};

TEST(CudaEpilogues, BiasGradientComesWithItsWeights) {
    for (const Shape& s : kShapes) {
        SCOPED_TRACE(fmt::format("N={} OC={} IC={}", s.N, s.OC, s.IC));
        const FusionQuery query = query_of(Fusion::WeightAndBiasGradient, s);
        if (!is_fused(query)) continue;
        const TestBuffer d_out = random_buffer(DType::BF16, s.N, s.OC, 1, 1),
                         x = random_buffer(DType::BF16, s.N, s.IC, 1, 2);
        const TestBuffer workspace = workspace_buffer(cuda_backend().fuses(query).workspace_bytes);
        const TestBuffer of_separate = workspace_buffer(cuda_backend().matmul_workspace(DType::BF16, s.N, s.OC, s.IC));
        cuda::for_each_seed([&] {
            const Gradients separate(s, std::nan("")), written(s, std::nan("")), added(s, 0), twice(s, std::nan("")),
                alone(s, std::nan(""));
            run_on_cuda([&](Backend& b, auto on) {
                const auto run = [&](const Gradients& to, bool adds) {
                    b.weight_and_bias_gradient(on(to.weight), on(to.bias), adds, on(d_out), on(x), on(workspace));
                };
                b.matmul_backward_weight(on(separate.weight), on(separate.bias), false, on(d_out), on(x),
                                         on(of_separate));
                run(written, false);
                run(added, true);
                run(twice, false);
                run(twice, true);
                b.weight_and_bias_gradient(on(alone.weight), Tensor(), false, on(d_out), on(x), on(workspace));
            });
            EXPECT_TRUE(same_values(written.weight, added.weight) && same_values(written.bias, added.bias));
            EXPECT_TRUE(alone.weight.bytes() == written.weight.bytes()) << "the same with and without the bias's";
            expect_rounded_sums(twice.weight, written.weight, written.weight);
            expect_rounded_sums(twice.bias, written.bias, written.bias);
            EXPECT_TRUE(written.weight.intact() && written.bias.intact() && workspace.intact());

            Values exact(static_cast<size_t>(s.OC), 0.0);
            const Values rows = d_out.values();
            for (size_t i = 0; i < rows.size(); ++i) exact[i % exact.size()] += rows[i];
            // Of sums of N numbers of about 1 in fp32.
            const double bound = 0x1p-23 * static_cast<double>(s.N) * 4;
            EXPECT_LE(largest_error(written.bias.values(), exact), bound);
            EXPECT_LE(largest_error(written.weight.values(), separate.weight.values()), bound * 4);
        });
    }
}

TEST(CudaEpilogues, GelusDerivativeComesWithTheInputGradient) {
    for (const Shape& s : kShapes) {
        SCOPED_TRACE(fmt::format("N={} OC={} IC={}", s.N, s.OC, s.IC));
        const FusionQuery query = query_of(Fusion::InputGradientAndActivation, s);
        if (!is_fused(query)) continue;
        EXPECT_FALSE(cuda_backend().fuses(query).stores_between);
        const TestBuffer d_out = random_buffer(DType::BF16, s.N, s.OC, 1, 1),
                         weight = random_buffer(DType::BF16, s.OC, s.IC, 0.3, 2),
                         pre = random_buffer(DType::BF16, s.N, s.IC, 2, 3);
        const auto separate = [&](Backend& b, auto on, const TestBuffer& d_act, const TestBuffer& d_pre,
                                  const TestBuffer& g, const TestBuffer& w, const TestBuffer& at,
                                  const TestBuffer& workspace) {
            b.matmul_backward_input(on(d_act), on(g), on(w), on(workspace));
            b.gelu_backward(on(d_pre), on(d_act), on(at));
        };
        const auto like_pre = [&](DType dtype) { return TestBuffer(dtype, s.N, s.IC); };
        const TestBuffer d_act = like_pre(DType::F32), truth = like_pre(DType::F32);
        const TestBuffer of_truth = workspace_buffer(cpu_backend().matmul_workspace(DType::F32, s.N, s.OC, s.IC));
        const TestBuffer exact_g = converted(DType::F32, d_out), exact_w = converted(DType::F32, weight),
                         exact_pre = converted(DType::F32, pre);
        run_on_cpu([&](Backend& b, auto on) { separate(b, on, d_act, truth, exact_g, exact_w, exact_pre, of_truth); });
        cuda::for_each_seed([&] {
            const TestBuffer between = like_pre(DType::BF16), apart = like_pre(DType::BF16),
                             fused = like_pre(DType::BF16);
            const TestBuffer workspace = workspace_buffer(cuda_backend().fuses(query).workspace_bytes),
                             of_separate =
                                 workspace_buffer(cuda_backend().matmul_workspace(DType::BF16, s.N, s.OC, s.IC));
            run_on_cuda([&](Backend& b, auto on) {
                separate(b, on, between, apart, d_out, weight, pre, of_separate);
                b.input_gradient_and_activation(ActivationFunction::Gelu, on(fused), {}, on(d_out), on(weight), on(pre),
                                                on(workspace));
            });
            const Values exact = truth.values();
            const double error = largest_error(fused.values(), exact);
            EXPECT_LE(error, largest_error(apart.values(), exact)) << "it rounds once, not twice";
            EXPECT_LE(error, 1.01 * rounding_error(DType::BF16, exact));
            EXPECT_TRUE(fused.intact() && workspace.intact());
        });
    }
}

TEST(CudaEpilogues, AreOfBf16AndOfGelusTanhForm) {
    const Shape s = {64, 128, 64};
    for (const Fusion fusion : {Fusion::InputGradientAndActivation, Fusion::WeightAndBiasGradient}) {
        FusionQuery query = query_of(fusion, s);
        query.dtype = DType::F32;
        EXPECT_FALSE(cuda_backend().fuses(query).fuses);
    }
    for (const ActivationFunction activation : {ActivationFunction::GeluExact, ActivationFunction::Swiglu}) {
        FusionQuery query = query_of(Fusion::InputGradientAndActivation, s);
        query.activation = activation;
        EXPECT_FALSE(cuda_backend().fuses(query).fuses);
    }
    EXPECT_FALSE(cuda_backend().fuses(query_of(Fusion::InputGradientAndActivation, {64, 128, 68})).fuses)
        << "rows of the pre-activation are no multiple of 8";
    EXPECT_FALSE(cuda_backend().fuses(query_of(Fusion::ActivationAndWeightGradient, s)).fuses);
}

/// Planning without a card assumes what the library documents.
TEST(CudaEpilogues, ArePlannedForWithoutADevice) {
    const cuda::CudaBackend planner{cuda::PlanningOnly()};
    for (const Fusion fusion : {Fusion::InputGradientAndActivation, Fusion::WeightAndBiasGradient}) {
        const FusionQuery query = query_of(fusion, {4096, 768, 3072});
        EXPECT_TRUE(planner.fuses(query).fuses);
#ifdef LLMC_CUDA_ON_CPU
        EXPECT_EQ(planner.fuses(query).workspace_bytes, cuda_backend().fuses(query).workspace_bytes);
#endif
    }
}

// ---- whole models -------------------------------------------------------------------------------------------------

using namespace tiles_cases;

double largest_difference(const Result& a, const Result& b) {
    double largest = 0, magnitude = 0;
    for (size_t i = 0; i < a.gradients.size(); ++i) {
        largest = std::max<double>(largest, std::fabs(a.gradients[i] - b.gradients[i]));
        magnitude = std::max<double>(magnitude, std::fabs(a.gradients[i]));
    }
    return largest / magnitude;
}

constexpr BatchShape kShape = {2, 70};  ///< The second block of 128 tokens has 12.

int count_fused(const Plan& plan) {
    return static_cast<int>(std::count_if(plan.steps.begin(), plan.steps.end(),
                                          [](const Step& step) { return step.kind == StepKind::Fused; }));
}

/// Four weights with biases, and GELU, in each layer.
TEST(CudaEpilogues, OfWholeModelsDifferFromSeparateOperationsByRounding) {
    const Model model = make_model(config_of_family(Family::Gpt2, 2, kShape.T));
    const auto trained = [&](bool fuses) {
        TinyTrainer trainer = trainer_of(model, kShape, DType::BF16, {.device = "cuda", .fuses = fuses});
        EXPECT_EQ(count_fused(trainer.plan()), fuses ? 2 * 5 : 0);
        return run(trainer, 2);
    };
    const Result fused = trained(true), separate = trained(false);
    EXPECT_EQ(fused.loss, separate.loss) << "the forward is the same";
    const double difference = largest_difference(fused, separate);
    EXPECT_GT(difference, 0) << "the test sees nothing";
    EXPECT_LT(difference, 4 * 0x1p-8) << "a few roundings to bf16 of the largest gradient";
}

TEST(CudaEpilogues, HaveTheSameBitsUnderEveryPolicyAndInTiles) {
    const Model model = make_model(config_of_family(Family::Gpt2, 2, kShape.T));
    TinyTrainer reference = trainer_of(model, kShape, DType::BF16, {.device = "cuda"});
    const Result expected = run(reference, 2);
    for (const PolicyRow& policy : policies()) {
        for (const int64_t tile : {0, 128}) {
            const Way way = {.policy = policy.name, .tile_tokens = tile, .device = "cuda"};
            TinyTrainer trainer = trainer_of(model, kShape, DType::BF16, way);
            EXPECT_TRUE(run(trainer, 2) == expected) << policy.name << ", tiles of " << tile;
        }
    }
}

#ifdef LLMC_CUDA_ON_CPU

/// What a card's library cannot is left to the separate operations, which the plan says; nothing fails later.
TEST(CudaEpilogues, AreLeftOutWhereTheLibraryHasNoAlgorithm) {
    const Model model = make_model(config_of_family(Family::Gpt2, 2, kShape.T));
    TinyTrainer separate = trainer_of(model, kShape, DType::BF16, {.device = "cuda", .fuses = false});
    const Result expected = run(separate, 2);
    cuda_on_cpu::set_machine({.devices = {{.backward_epilogues = false}}});
    TinyTrainer trainer = trainer_of(model, kShape, DType::BF16, {.device = "cuda"});
    EXPECT_EQ(count_fused(trainer.plan()), 0);
    EXPECT_TRUE(run(trainer, 2) == expected);
    cuda_on_cpu::set_machine({});
}

/// The library is asked when the plan is made: a step finds every answer.
TEST(CudaEpilogues, AreAskedForOnceAndBeforeTheFirstStep) {
    cuda::CudaBackend backend(0);
    const FusionQuery query = query_of(Fusion::InputGradientAndActivation, {64, 128, 64});
    const auto searches = [] { return cuda_on_cpu::counts().algorithm_searches; };
    const uint64_t before = searches();
    EXPECT_TRUE(backend.fuses(query).fuses);
    EXPECT_TRUE(backend.fuses(query).fuses);
    EXPECT_EQ(searches() - before, 1u);
    const TestBuffer d_out = random_buffer(DType::BF16, 64, 128, 1, 1),
                     weight = random_buffer(DType::BF16, 128, 64, 1, 2), pre = random_buffer(DType::BF16, 64, 64, 1, 3),
                     d_pre = random_buffer(DType::BF16, 64, 64, 1, 4),
                     workspace = workspace_buffer(backend.fuses(query).workspace_bytes);
    OnDevice device;
    const Tensor to = device(d_pre), of = device(d_out), with = device(weight), at = device(pre),
                 scratch = device(workspace);
    cuda_backend().synchronize();
    backend.input_gradient_and_activation(ActivationFunction::Gelu, to, {}, of, with, at, scratch);
    backend.synchronize();
    EXPECT_EQ(searches() - before, 1u);
}

#endif

}  // namespace
}  // namespace llmc
