// Models from elsewhere: that they compute what PyTorch does (dev/oracle/make_hf_models.py), that a run folder in
// between changes no bit, and what a path may be.
#include "llmc/backend/make_backend.h"
#include "llmc/io/hf_model.h"
#include "llmc/io/llmc_model.h"
#include "llmc/train/checkpointing.h"
#include "llmc/train/initial_weights.h"
#include "llmc/train/load_weights.h"
#include "llmc/train/scoring.h"
#include "tests/io/temp_dir.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace llmc {
namespace {

const std::string kGolden = "tests/golden/hf/";

std::vector<int32_t> flat(const nlohmann::json& rows) {
    std::vector<int32_t> values;
    for (const auto& row : rows) values.insert(values.end(), row.begin(), row.end());
    return values;
}

/// Mean loss of a model on the tokens of expected.json.
double loss_of(const WeightSource& weights, const nlohmann::json& expected) {
    const auto rows = static_cast<int64_t>(expected["tokens"].size());
    const auto T = static_cast<int64_t>(expected["tokens"][0].size());
    const auto backend = make_backend("cpu", 2);
    ScoringPlan plan = plan_scoring(weights.model(), {rows, T}, DType::F32, *backend);
    State state(*backend, weights.model(), DType::F32, T, plan.layout.arena_bytes, /*training=*/false);
    load_weights(weights, state);
    Scorer scorer(state, std::move(plan));
    double sum = 0;
    for (const float loss : scorer.losses(flat(expected["tokens"]), flat(expected["targets"]))) sum += loss;
    return sum / static_cast<double>(rows * T);
}

class HfFolder : public testing::TestWithParam<const char*> {
  protected:
    std::string folder() const { return kGolden + GetParam(); }
    nlohmann::json expected() const { return nlohmann::json::parse(slurp(folder() + "/expected.json")); }
};

TEST_P(HfFolder, LossIsPyTorchs) {
    const double loss = expected()["loss"];
    EXPECT_NEAR(loss_of(HfModel(folder()), expected()), loss, 1e-6 * loss);
}

TEST_P(HfFolder, ImportAndExportChangeNoBit) {
    const TempDir dir;
    const HfModel original(folder());
    save_imported(dir / "run", original, "none");
    const CheckpointWeights imported(open_checkpoint(dir / "run", "--run"));
    std::filesystem::create_directory(dir / "export");
    write_hf_model(dir / "export", imported, DType::F32, "{}");
    const HfModel exported(dir / "export");
    for (size_t i = 0; i < original.model().parameters.size(); ++i) {
        const int index = static_cast<int>(i);
        EXPECT_EQ(imported.values(index), original.values(index)) << original.model().parameters[i].name;
        EXPECT_EQ(exported.values(index), original.values(index)) << original.model().parameters[i].name;
    }
    EXPECT_EQ(imported.model().config, original.model().config);
    const double loss = expected()["loss"];
    EXPECT_NEAR(loss_of(imported, expected()), loss, 1e-6 * loss);
}

INSTANTIATE_TEST_SUITE_P(Models, HfFolder, testing::Values("gpt2", "gpt2_fp16", "llama", "llama_tied_bf16"),
                         [](const auto& info) { return std::string(info.param); });

TEST(InitialWeights, AnLlmcFileComesBackByteForByteThroughARun) {
    const TempDir dir;
    for (const DType dtype : {DType::F32, DType::BF16}) {
        write_llmc_model(dir / "a.bin", HfModel(kGolden + "gpt2"), dtype);
        const std::string run = dir / std::string(name_of(dtype));
        save_imported(run, *open_weights(dir / "a.bin", "--from"), "none");
        write_llmc_model(dir / "b.bin", *open_weights(run, "--run"), dtype);
        EXPECT_TRUE(slurp(dir / "a.bin") == slurp(dir / "b.bin")) << name_of(dtype);
    }
}

TEST(InitialWeights, AnImportedModelLoadsForTrainingWithoutMoments) {
    const TempDir dir;
    const HfModel original(kGolden + "llama");
    save_imported(dir.path(), original, "none");
    const Checkpoint checkpoint = open_checkpoint(dir.path(), "--resume");
    EXPECT_EQ(progress_of(checkpoint).train_tokens, 0);
    const auto backend = make_backend("cpu", 1);
    State state(*backend, original.model(), DType::F32, 8, 0, /*training=*/true);
    load_checkpoint(checkpoint, state);
    const int index = original.model().find_parameter("lm_head");
    std::vector<float> values = original.values(index), loaded(values.size()), moment(values.size(), 1.0f);
    backend->copy_to_host(loaded.data(), state.kept(Kept::Weights, index, state.held(index)));
    backend->copy_to_host(moment.data(), state.kept(Kept::MomentM, index, state.held(index)));
    EXPECT_EQ(loaded, values);
    EXPECT_EQ(moment, std::vector<float>(values.size(), 0.0f));
}

TEST(InitialWeights, APathIsWhatIsInIt) {
    const TempDir dir;
    const HfModel original(kGolden + "gpt2");
    save_imported(dir / "run", original, "none");
    write_llmc_model(dir / "m.bin", original, DType::F32);
    EXPECT_TRUE(has(open_weights(kGolden + "gpt2/", "--model")->describe(), {"Hugging Face", "gpt2'"}));
    EXPECT_TRUE(has(open_weights(dir / "run/", "--model")->describe(), {"checkpoint", "step-00000000"}));
    EXPECT_TRUE(has(open_weights(dir / "run/checkpoints/step-00000000", "--model")->describe(), {"checkpoint"}));
    EXPECT_TRUE(has(open_weights(dir / "m.bin", "--model")->describe(), {"llm.c", "fp32"}));
    EXPECT_TRUE(names_weights("./gpt2"));
    EXPECT_FALSE(names_weights("gpt2"));
    EXPECT_FALSE(names_weights("d12"));
    // The configuration alone is enough to plan with.
    std::filesystem::create_directory(dir / "plan");
    std::filesystem::copy(kGolden + "llama/config.json", dir / "plan");
    EXPECT_EQ(model_config_at(dir / "plan", "--model").F, 20);
    EXPECT_TRUE(has(error_of([&] { open_weights(dir / "plan", "--model"); }), {"model.safetensors"}));
}

/// A path that cannot be: bad usage, and the message begins with the option.
std::string refusal(const std::string& path, const std::string& option) {
    try {
        open_weights(path, option);
    } catch (const Error& error) {
        EXPECT_EQ(error.exit_code(), kExitBadUsage) << error.what();
        EXPECT_TRUE(has(error.what(), {option + "=" + path}));
        return error_of([&] { throw error; });
    }
    ADD_FAILURE() << "accepted " << path;
    return "";
}

TEST(InitialWeights, RefusesOtherPaths) {
    const TempDir dir;
    EXPECT_TRUE(has(refusal(dir / "nothing", "--model"), {"neither a preset nor a file", "explain presets"}));
    EXPECT_TRUE(has(refusal(dir / "nothing", "--run"), {"not there"}));
    for (const auto& [given, meant] : {std::pair("gpt2-nan", "gpt2-nano"), std::pair("GPT2", "gpt2"),
                                       std::pair("llama3-8B", "llama3-8b"), std::pair("lama3-8b", "llama3-8b")}) {
        EXPECT_TRUE(has(refusal(given, "--model"), {std::string("did you mean ") + meant + "?"}));
    }
    EXPECT_TRUE(has(refusal(dir.path(), "--from"), {"the folder has no config.json", "config.toml"}));
    EXPECT_TRUE(has(refusal(dir.write("a.txt", "text"), "--run"), {"neither a folder of a model", "llm.c"}));
    EXPECT_TRUE(has(refusal(dir.write("m.gguf", "GGUF"), "--model"), {"GGUF files are written here, not read"}));
    EXPECT_TRUE(
        has(refusal(kGolden + "gpt2/config.json", "--model"), {"give the folder: --model=" + kGolden + "gpt2"}));
    std::filesystem::create_directory(dir / "ad");
    dir.write("ad/adapter_config.json", "{}");
    EXPECT_TRUE(has(refusal(dir / "ad", "--model"), {"an adapter", "--model=BASE --adapter=" + dir / "ad"}));
    EXPECT_TRUE(has(refusal("gpt2-xl", "--from"), {"architecture without weights"}));
    EXPECT_TRUE(has(refusal(dir.write("m.safetensors", "x"), "--model"), {"config.json"}));
    // A .bin is taken for llm.c's, and what is wrong with it is said of the file.
    const std::string bin = dir.write("m.bin", "x");
    EXPECT_TRUE(has(error_of([&] { open_weights(bin, "--model"); }), {bin, "not an llm.c model file"}));
}

}  // namespace
}  // namespace llmc
