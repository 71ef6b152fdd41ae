// Every feature that a config.json can say, against transformers: loss, gradients, memory, the same bits under every
// policy, and generation. The models: dev/oracle/model_kinds.py.
#include "llmc/train/generation.h"
#include "llmc/train/load_weights.h"
#include "tests/io/temp_dir.h"
#include "tests/run/model_kind.h"

namespace llmc {
namespace {

class ModelKindTest : public testing::TestWithParam<std::string> {
  protected:
    const ModelKind kind_{GetParam()};
};

TEST_P(ModelKindTest, LossAndGradientsAreThoseOfTransformers) {
    for (const PolicyRow& policy : policies()) {
        SCOPED_TRACE(policy.name);
        KindTrainer trainer(kind_, DType::F32, policy.name);
        EXPECT_NEAR(trainer.run(), kind_.loss(), 1e-6 * kind_.loss());
        kind_.expect_gradients(trainer);
    }
}

TEST_P(ModelKindTest, SameBitsUnderEveryPolicyInTheMemoryPredicted) {
    for (const DType dtype : {DType::F32, DType::BF16}) {
        if (dtype == DType::BF16 && !make_backend("cpu", 1)->info().supports_bf16) continue;
        KindTrainer reference(kind_, dtype, "none", 1);
        const double loss = reference.run();
        const std::vector<float> gradients = reference.gradients();
        ASSERT_TRUE(std::isfinite(loss));
        for (const PolicyRow& policy : policies()) {
            for (const int threads : {1, 3}) {
                KindTrainer trainer(kind_, dtype, policy.name, threads);
                EXPECT_EQ(trainer.run(), loss) << policy.name;
                EXPECT_EQ(trainer.gradients(), gradients) << policy.name;
                EXPECT_EQ(trainer.state().allocated_bytes(), trainer.memory().total_bytes()) << policy.name;
                EXPECT_EQ(trainer.executor().high_water_bytes(), trainer.memory().layout.arena_bytes) << policy.name;
            }
        }
    }
}

/// Losses of the tokens of the first sequence, from an evaluation of all at once.
std::vector<float> losses_at_once(const ModelKind& kind, Backend& backend) {
    const Model& model = kind.model();
    const BatchShape shape = {1, kind.shape().T};
    const PlanRequest request = plan_request(model, shape, DType::F32, 0, backend);
    const Plan plan = make_evaluation_plan(model, request);
    const Layout layout = make_layout(plan);
    State state(backend, model, DType::F32, shape.T, layout.arena_bytes, /*training=*/false);
    load_weights(kind.source(), state);
    Executor executor(state, plan, layout);
    backend.copy_to_device(executor.tokens(), kind.tokens().data());
    backend.copy_to_device(executor.targets(), kind.targets().data());
    executor.run({});
    std::vector<float> losses(static_cast<size_t>(shape.T));
    backend.copy_to_host(losses.data(), executor.losses());
    return losses;
}

double cross_entropy(const std::vector<float>& logits, int64_t V, int32_t target) {
    double sum = 0;
    for (int64_t v = 0; v < V; ++v) sum += std::exp(static_cast<double>(logits[static_cast<size_t>(v)]));
    return std::log(sum) - static_cast<double>(logits[static_cast<size_t>(target)]);
}

/// Fed piece by piece over the key/value cache, the model says of every next token what it says of all at once.
TEST_P(ModelKindTest, GenerationSeesWhatTrainingDoes) {
    const auto backend = make_backend("cpu", 1);
    const Model& model = kind_.model();
    const int64_t T = kind_.shape().T, V = model.config.V;
    const std::vector<float> losses = losses_at_once(kind_, *backend);
    const GenerationPlan generation = plan_generation(model, DType::F32, T, *backend);
    State state(*backend, model, DType::F32, T, generation.layout.arena_bytes, /*training=*/false);
    load_weights(kind_.source(), state);
    for (const int64_t piece : {1, 4}) {
        Executor executor(state, generation.plan, generation.layout);
        for (int64_t first = 0; first < T; first += piece) {
            const int64_t rows = std::min(piece, T - first);
            Tensor ids = executor.tokens();
            ids.shape[0] = rows;
            backend->copy_to_device(ids, kind_.tokens().data() + first);
            executor.run({.rows = rows, .first_position = first});
            std::vector<float> logits(static_cast<size_t>(model.config.Vp()));
            backend->copy_to_host(logits.data(), executor.logits());
            const int64_t last = first + rows - 1;
            EXPECT_NEAR(cross_entropy(logits, V, kind_.targets()[static_cast<size_t>(last)]),
                        losses[static_cast<size_t>(last)], 2e-5)
                << "token " << last << " in pieces of " << piece;
        }
    }
}

/// Exported and read again, every tensor has its bits and the configuration says the same.
TEST_P(ModelKindTest, RoundTripKeepsTensorsAndConfiguration) {
    const TempDir dir;
    write_hf_model(dir.path(), kind_.source(), DType::BF16, "{}");
    const HfModel again(dir.path());
    ModelConfig config = again.model().config;
    config.name = kind_.model().config.name;
    EXPECT_EQ(config, kind_.model().config);
    const SafetensorsFile before(kind_.folder() + "/model.safetensors"), after(dir / "model.safetensors");
    ASSERT_EQ(before.tensors().size(), after.tensors().size());
    for (const SafetensorsView& tensor : before.tensors()) {
        const SafetensorsView* found = after.find(tensor.name);
        ASSERT_NE(found, nullptr) << tensor.name;
        EXPECT_EQ(found->shape, tensor.shape) << tensor.name;
        EXPECT_TRUE(std::equal(tensor.bytes.begin(), tensor.bytes.end(), found->bytes.begin(), found->bytes.end()))
            << tensor.name;
    }
}

TEST_P(ModelKindTest, ACheckpointSaysTheSame) {
    const ModelConfig& config = kind_.model().config;
    EXPECT_EQ(model_config_from_json(to_json(config), "here"), config);
}

INSTANTIATE_TEST_SUITE_P(Kinds, ModelKindTest, testing::ValuesIn(kModelKinds),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace llmc
