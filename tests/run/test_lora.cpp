// Low-rank adapters trained as PEFT trains them, and to the same bits under every policy, in the memory predicted.
#include "llmc/io/peft/adapters.h"
#include "llmc/plan/search.h"
#include "llmc/train/load_weights.h"
#include "tests/backend/null_backend.h"
#include "tests/io/temp_dir.h"
#include "tests/plan/plan_cases.h"
#include "tests/run/frozen_cases.h"
#include "tests/run/lora_cases.h"
#include "tests/run/rank_team.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

namespace llmc {
namespace {

constexpr const char* kCases[] = {"llama_all", "llama_qv_rslora", "llama_head", "gpt2_all", "gpt2_bias"};
constexpr const char* kRoots[] = {"tests/golden/lora", "../shared/cases/finetune"};

/// `test` for every case of every place that has it.
template <typename Test>
void for_each_case(const Test& test) {
    int tried = 0;
    for (const char* root : kRoots) {
        for (const char* name : kCases) {
            if (!std::filesystem::exists(fmt::format("{}/{}/expected.safetensors", root, name))) continue;
            SCOPED_TRACE(fmt::format("{} {}", root, name));
            test(LoraCase(root, name));
            ++tried;
        }
    }
    EXPECT_GT(tried, 0);
}

struct LoraRun {
    std::vector<double> losses;
    std::vector<std::vector<float>> first_gradients, weights;
    bool operator==(const LoraRun&) const = default;
};

LoraRun run(const LoraCase& lora, TinyTrainer& trainer) {
    trainer.set_optimizer(lora.adamw(), static_cast<float>(lora.learning_rate()));
    load_adapted(lora.base(), &lora.before(), 0, trainer.state());
    LoraRun result;
    for (const nlohmann::json& step : lora.steps()) {
        const std::vector<LabelledBatch> batches(step.begin(), step.end());
        result.losses.push_back(train_update(trainer, batches));
        if (!result.first_gradients.empty()) continue;
        for (int index = 0; index < static_cast<int>(trainer.model().parameters.size()); ++index) {
            const Tensor gradient = trainer.state().gradient(index);
            result.first_gradients.push_back(gradient ? trainer.values(gradient, index) : std::vector<float>());
        }
    }
    result.weights = weights_of(trainer.state());
    return result;
}

TinyTrainer trainer_of(const LoraCase& lora, const std::string& policy, DType dtype = DType::F32) {
    return {lora.model(), lora.shape(), dtype, nullptr, policy, 1};
}

TEST(Lora, TrainsAsPeftDoes) {
    for_each_case([](const LoraCase& lora) {
        TinyTrainer trainer = trainer_of(lora, "none");
        const LoraRun ours = run(lora, trainer);
        const std::vector<double> losses = lora.losses();
        ASSERT_EQ(ours.losses.size(), losses.size());
        for (size_t i = 0; i < losses.size(); ++i) EXPECT_NEAR(ours.losses[i], losses[i], 1e-5) << i;
        const Model& model = trainer.model();
        const int64_t C = model.config.C;
        for (size_t i = 0, of_base = 0; i < model.parameters.size(); ++i) {
            const ParameterRow& row = model.parameters[i];
            const bool adapter = is_adapter(model, static_cast<int>(i));
            const int base_index = adapter ? kNone : static_cast<int>(of_base++);
            if (!row.trainable) continue;
            std::vector<float> expected(static_cast<size_t>(row.used_rows * row.cols));
            if (adapter)
                lora.after().read_adapter(row.name, expected);
            else
                lora.after().replace(base_index, expected);
            for (size_t k = 0; k < expected.size(); ++k) {
                // The true gradient of the keys' biases is zero: what AdamW makes of it is noise.
                const auto element = static_cast<int64_t>(k);
                if (row.name.ends_with("qkv_bias") && element >= C && element < 2 * C) continue;
                ASSERT_NEAR(ours.weights[i][k], expected[k], 1e-5) << row.name << " " << k;
            }
        }
    });
}

/// What a tensor of PEFT's, named as in its files, is of the rows of a model with adapters.
std::vector<float> part_of_rows(const Model& model, const std::vector<std::vector<float>>& rows,
                                const std::string& name) {
    const bool is_a = name.find(".lora_A.") != std::string::npos;
    const std::string module = name.substr(0, name.find(".lora_"));
    int64_t first_a = 0, first_b = 0;
    std::string weight;
    for (const LoraTarget& target : model.lora.targets) {
        if (target.weight != weight) weight = target.weight, first_a = first_b = 0;
        if (module.ends_with("." + target.module)) {
            const size_t end = module.size() - target.module.size() - 1, begin = module.rfind('.', end - 1) + 1;
            const std::string stem = weight.substr(0, weight.rfind("_weight")) + (is_a ? "_lora_a" : "_lora_b");
            const int index = model.find_parameter("layers." + module.substr(begin, end - begin) + "." + stem);
            const int64_t cols = model.parameters[static_cast<size_t>(index)].cols;
            const auto first = rows[static_cast<size_t>(index)].begin() + (is_a ? first_a : first_b) * cols;
            return {first, first + (is_a ? model.lora.rank : target.rows) * cols};
        }
        first_a += model.lora.rank, first_b += target.rows;
    }
    return {};
}

TEST(Lora, HasPeftsGradients) {
    for_each_case([](const LoraCase& lora) {
        TinyTrainer trainer = trainer_of(lora, "layer");
        const LoraRun ours = run(lora, trainer);
        int compared = 0;
        for (const std::string& tensor : lora.tensors()) {
            if (!tensor.starts_with("grad.") || tensor.find(".lora_") == std::string::npos) continue;
            const std::vector<float> expected = lora.values(tensor),
                                     gradient = part_of_rows(trainer.model(), ours.first_gradients, tensor);
            ASSERT_EQ(gradient.size(), expected.size()) << tensor;
            for (size_t i = 0; i < expected.size(); ++i) ASSERT_NEAR(gradient[i], expected[i], 1e-5) << tensor;
            ++compared;
        }
        EXPECT_GT(compared, 0);
    });
}

/// Losses of every token of the probe but the last of a row, from logits.
std::vector<double> losses_of_logits(const std::vector<float>& logits, const std::vector<int32_t>& ids, int64_t T) {
    const size_t V = logits.size() / ids.size();
    std::vector<double> losses;
    for (size_t n = 0; n < ids.size(); ++n) {
        if (static_cast<int64_t>(n + 1) % T == 0) continue;
        double sum = 0;
        for (size_t v = 0; v < V; ++v) sum += std::exp(static_cast<double>(logits[n * V + v]));
        losses.push_back(std::log(sum) - logits[n * V + static_cast<size_t>(ids[n + 1])]);
    }
    return losses;
}

TEST(Lora, MergedItGivesPeftsLogits) {
    std::vector<std::string> names(std::begin(kCases), std::end(kCases));
    names.emplace_back("llama_dora");
    for (const std::string& name : names) {
        for (const char* root : kRoots) {
            if (!std::filesystem::exists(fmt::format("{}/{}/expected.safetensors", root, name))) continue;
            SCOPED_TRACE(fmt::format("{} {}", root, name));
            const LoraCase lora(root, name);
            const std::vector<int32_t> probe = lora.probe();
            const int64_t T = lora.shape().T, B = static_cast<int64_t>(probe.size()) / T;
            TinyTrainer trainer(lora.base().model(), {B, T}, DType::F32, nullptr, "none", 1);
            const auto weights = merged(std::make_unique<HfModel>(lora.base_folder()), lora.folder_after());
            load_weights(*weights, trainer.state());
            std::vector<int32_t> targets(probe.begin() + 1, probe.end());
            targets.push_back(-1);
            for (int64_t n = T; n < B * T; n += T) targets[static_cast<size_t>(n) - 1] = -1;
            trainer.micro_batch(probe.data(), targets.data(), 0);
            std::vector<float> all(probe.size());
            trainer.backend().copy_to_host(all.data(), trainer.executor().losses());
            std::vector<double> ours;
            for (size_t n = 0; n < all.size(); ++n) {
                if (targets[n] >= 0) ours.push_back(all[n]);
            }
            const std::vector<double> expected = losses_of_logits(lora.values("adapted_logits"), probe, T);
            ASSERT_EQ(ours.size(), expected.size());
            for (size_t i = 0; i < ours.size(); ++i) EXPECT_NEAR(ours[i], expected[i], 1e-5) << i;
        }
    }
}

TEST(Lora, WrittenAndReadItIsTheSame) {
    for_each_case([](const LoraCase& lora) {
        const TempDir dir;
        const Model model = lora.model();
        std::filesystem::create_directories(dir / "adapter");
        std::vector<std::vector<float>> values;
        int of_base = 0;
        for (size_t i = 0; i < model.parameters.size(); ++i) {
            const ParameterRow& row = model.parameters[i];
            values.emplace_back(static_cast<size_t>(row.used_rows * row.cols));
            if (is_adapter(model, static_cast<int>(i))) {
                lora.after().read_adapter(row.name, values.back());
            } else {
                lora.base().read(of_base, values.back());
                lora.after().replace(of_base++, values.back());
            }
        }
        PeftConfig config = lora.after().config();
        config.modules_to_save.clear();  // Found by what trains.
        write_peft_folder(dir / "adapter", model, config,
                          [&](int index) { return values[static_cast<size_t>(index)]; });
        const SafetensorsFile ours((dir / "adapter") + "/adapter_model.safetensors"),
            theirs(lora.folder_after() + "/adapter_model.safetensors");
        EXPECT_EQ(ours.tensors().size(), theirs.tensors().size());
        for (const SafetensorsView& tensor : theirs.tensors()) {
            const SafetensorsView* same = ours.find(tensor.name);
            ASSERT_NE(same, nullptr) << tensor.name;
            EXPECT_EQ(same->shape, tensor.shape) << tensor.name;
            EXPECT_TRUE(std::ranges::equal(same->bytes, tensor.bytes)) << tensor.name;
        }
        const PeftFolder again(dir / "adapter", lora.base().model());
        EXPECT_EQ(again.spec(), lora.after().spec());
        EXPECT_EQ(again.replaced(), lora.after().replaced());
        EXPECT_EQ(again.config().modules_to_save, lora.after().config().modules_to_save);
    });
}

TEST(Lora, SameBitsUnderEveryPolicyInTheMemoryPredicted) {
    for_each_case([](const LoraCase& lora) {
        for (const DType dtype : {DType::F32, DType::BF16}) {
            if (dtype == DType::BF16 && !make_backend("cpu", 1)->info().supports_bf16) continue;
            if (dtype == DType::BF16 && !lora.before().replaced().empty()) continue;
            TinyTrainer reference = trainer_of(lora, "none", dtype);
            const LoraRun expected = run(lora, reference);
            for (const PolicyRow& policy : policies()) {
                TinyTrainer trainer = trainer_of(lora, policy.name, dtype);
                EXPECT_TRUE(run(lora, trainer) == expected) << policy.name << " " << name_of(dtype);
                EXPECT_EQ(trainer.state().allocated_bytes(), trainer.memory().total_bytes()) << policy.name;
                EXPECT_EQ(trainer.executor().high_water_bytes(), trainer.memory().layout.arena_bytes) << policy.name;
            }
        }
    });
}

TEST(Lora, OnlyAdaptersHaveState) {
    for_each_case([](const LoraCase& lora) {
        const Model model = lora.model();
        for (size_t i = 0; i < model.parameters.size(); ++i) {
            const bool adapter = is_adapter(model, static_cast<int>(i));
            if (lora.before().replaced().empty()) {
                EXPECT_EQ(model.parameters[i].trainable, adapter);
            }
        }
    });
}

/// Places, policies and ranks: where the frozen base is in host memory it streams in and never out.
TEST(LoraRanks, PlacesAndPoliciesGiveTheSameBits) {
    const bool has_bf16 = make_backend("cpu", 1)->info().supports_bf16;
    int mixtures = 0;
    for (const Family family : {Family::Gpt2, Family::Llama}) {
        for (const DType dtype : {DType::F32, DType::BF16}) {
            if (dtype == DType::BF16 && !has_bf16) continue;
            TeamRun run;
            run.config = plan_cases::small_config(family, 3);
            run.config.maxT = 16;
            run.dtype = dtype, run.lora = 3;
            for (const int ranks : {1, 2}) {
                run.parallel.ranks = ranks, run.parallel.micro_batches = 3 - ranks;
                run.zero = 0, run.policy = "none", run.offload = "none";
                const TeamResult expected = RankTeam(run).train();
                for (int zero = 0; zero <= (ranks == 1 ? 0 : 3); zero += 3) {
                    for (const char* offload : {"none", "parameters", "all"}) {
                        for (const char* policy : {"none", "sqrt", "act"}) {
                            run.zero = zero, run.policy = policy, run.offload = offload;
                            const TeamResult team = RankTeam(run).train();
                            const std::string words =
                                fmt::format("{} {}, {} ranks, ZeRO {}, {}, {}", row_of(family).key, name_of(dtype),
                                            ranks, zero, policy, offload);
                            EXPECT_EQ(team.losses, expected.losses) << words;
                            EXPECT_EQ(team.norms, expected.norms) << words;
                            EXPECT_EQ(team.weights, expected.weights) << words;
                            ++mixtures;
                        }
                    }
                }
            }
        }
    }
    EXPECT_GE(mixtures, has_bf16 ? 108 : 54);
}

TEST(LoraRanks, FixedOrderGivesTheBitsOfOneRank) {
    TeamRun run;
    run.config = plan_cases::small_config(Family::Llama, 3);
    run.config.maxT = 16;
    run.lora = 4;
    run.parallel.rank_invariant = true;
    run.parallel.micro_batches = 4;
    const TeamResult expected = RankTeam(run).train();
    for (const int ranks : {2, 4}) {
        run.parallel.ranks = ranks, run.parallel.micro_batches = 4 / ranks, run.zero = ranks == 2 ? 1 : 3;
        const TeamResult team = RankTeam(run).train();
        EXPECT_EQ(team.norms, expected.norms) << ranks;
        EXPECT_EQ(team.weights, expected.weights) << ranks;
    }
}

TEST(LoraRanks, EveryFormatOfTheStateKeepsTheBitsOfPlaces) {
    for (const DType moments : {DType::BF16, DType::U8}) {
        TeamRun run;
        run.config = plan_cases::small_config(Family::Gpt2, 3);
        run.config.maxT = 16;
        run.lora = 3, run.formats.moments = moments, run.formats.gradients = DType::BF16;
        const TeamResult expected = RankTeam(run).train();
        run.offload = "all", run.policy = "sqrt";
        const TeamResult team = RankTeam(run).train();
        EXPECT_EQ(team.losses, expected.losses);
        EXPECT_EQ(team.weights, expected.weights);
    }
}

/// What auto finds keeps the bits, and its memory.
TEST(Lora, SearchedPlansKeepTheBits) {
    const LoraCase lora(kRoots[0], "llama_all");
    const auto backend = make_backend("cpu", 1);
    const Model model = lora.model();
    TinyTrainer reference = trainer_of(lora, "none");
    const LoraRun expected = run(lora, reference);
    const Places places = for_adapters(DType::F32);
    const PlanRequest request = plan_request(model, lora.shape(), places, 0, *backend);
    const OpTimes times = analytic_times(model, lora.shape(), places, {"test", 1e12, 2e12, 1e11, 1e-7, 0.8});
    const int64_t least = search_plan(model, request, times, 1).smallest_bytes;
    const int64_t most = reference.memory().layout.arena_bytes;
    for (const int64_t budget : {least, (least + most) / 2, most}) {
        const SearchResult result = search_plan(model, request, times, budget);
        ASSERT_TRUE(result.found) << budget;
        EXPECT_LE(make_layout(result.plan).arena_bytes, budget);
        TinyTrainer trainer(model, lora.shape(), DType::F32, &result.keep, "none", 1);
        EXPECT_TRUE(run(lora, trainer) == expected) << result.summary;
    }
}

/// Norm and activation outputs repeated, adapters on every matrix keep what a frozen model keeps, and their z.
TEST(Lora, AdaptersOnEverythingKeepWhatFrozenLayersKeep) {
    ModelConfig config = *find_preset("llama3-8b");
    PeftConfig adapters;
    adapters.rank = 16;
    const Model base = make_model(config);
    adapters.target_modules = adaptable_modules(base);
    const Model adapted = with_adapters(base, adapters);
    const NullBackend backend;
    const BatchShape shape = {1, 1024};
    const auto kept = [&](const Model& model, const char* policy) {
        const Places places = model.lora ? for_adapters(DType::BF16) : Places(DType::BF16);
        return plan_memory(model, shape, places, find_policy(policy), 1024, backend).simulation.layer_activation_bytes;
    };
    std::vector<TrainablePattern> frozen = {{false, "*"}, {true, "layers.0.ln1_weight"}};
    const int64_t z = config.L * shape.N() * adapted.adapters.size() * 16 * 4 * 3;
    EXPECT_LE(kept(adapted, "act"), kept(with_trainable(base, frozen), "none") + z);
    EXPECT_LE(kept(adapted, "act"), 0.72 * static_cast<double>(kept(adapted, "none")));
}

}  // namespace
}  // namespace llmc
