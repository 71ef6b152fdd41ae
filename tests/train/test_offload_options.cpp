// --offload and --host-memory-budget as options: lists, what contradicts itself, and what is said where memory is
// short.
#include "llmc/backend/make_backend.h"
#include "llmc/base/advice_text.h"
#include "llmc/plan/policy.h"
#include "llmc/train/offload.h"
#include "llmc/train/placement.h"
#include "llmc/train/setup.h"
#include "tests/io/temp_dir.h"
#include "tests/long_tests.h"

#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <tuple>
#include <vector>

namespace llmc {
namespace {

TEST(OffloadOption, ListsAreFillingsOfTheTable) {
    const Places bf16(DType::BF16);
    EXPECT_EQ(with_offload(bf16, "none"), bf16);
    EXPECT_EQ(with_offload(bf16, "auto"), bf16) << "until something is chosen";
    const Places moments = with_offload(bf16, "moments");
    EXPECT_TRUE(moments.on_host(Buffer::MomentM) && moments.on_host(Buffer::MomentV));
    EXPECT_FALSE(moments.on_host(Buffer::Masters));
    EXPECT_TRUE(with_offload(bf16, "parameters").on_host(Buffer::Frozen));
    EXPECT_EQ(with_offload(bf16, "all"), with_offload(bf16, "boundaries,parameters,gradients,masters,moments"));
    EXPECT_EQ(with_offload(bf16, " masters , moments"), with_offload(bf16, "moments,masters"));
    EXPECT_FALSE(with_offload(Places(DType::F32), "all").on_host(Buffer::Masters)) << "there are none";
    for (const char* list : {"none", "moments", "masters,gradients", "moments,masters,gradients,parameters,boundaries"})
        EXPECT_EQ(offload_of(with_offload(bf16, list)), list);
    EXPECT_EQ(with_offload(bf16, "moments,boundaries").describe(), "moments and layer boundaries on the host");
    EXPECT_EQ(with_offload(places_of_zero(2, 4, DType::BF16), "moments,masters").describe(),
              "optimiser state and gradients in pieces; moments and master weights on the host");
}

TEST(OffloadOption, RefusesWhatItDoesNotKnowOrContradictsItself) {
    const auto refusal = [](const std::string& list) {
        return error_of([&] { with_offload(Places(DType::BF16), list); });
    };
    EXPECT_NE(refusal("gradient").find("did you mean gradients?"), std::string::npos);
    EXPECT_NE(refusal("optimizer").find("choose from moments, masters"), std::string::npos);
    for (const char* list : {"", ",", "moments,", "moments,,masters"})
        EXPECT_NE(refusal(list).find("'' is nothing"), std::string::npos) << list;
    for (const char* list : {"none,moments", "moments,none", "all,masters", "all,none", "auto,moments"})
        EXPECT_NE(refusal(list).find("contradicts the rest"), std::string::npos) << list;
}

TEST(Placement, TheOneItNamesFitsAndIsTheFastestOfThose) {
    Options options;
    options.model = "gpt2-nano", options.dtype = "fp32", options.batch_size = 2, options.seq_len = 64;
    ModelConfig config = preset("gpt2-nano");
    config.maxT = options.seq_len;
    const Model model = make_model(config);
    const auto backend = make_backend("cpu", 1);
    const BatchShape shape = {2, 64};
    const auto memory_of = [&](const std::string& recompute, const std::string& offload) {
        Options other = options;
        other.recompute = recompute, other.offload = offload;
        return with_memory(
            model, make_training_plan(model, request_for(other, model, shape, *backend), find_policy(recompute)));
    };
    const int64_t most = memory_of("none", "none").total_bytes(), least = memory_of("sqrt", "all").total_bytes();
    options.recompute = "none";
    double before = 0;
    for (const int64_t budget : {most, (most + least) / 2, least + least / 4, least}) {
        options.memory_budget = size_option(budget);
        const auto found = fitting_placement(options, model, shape, *backend);
        ASSERT_TRUE(found) << budget;
        EXPECT_LE(memory_of(found->recompute, found->offload).total_bytes(), budget);
        EXPECT_GE(found->step_seconds, before) << "less memory takes no less time";
        before = found->step_seconds;
    }
    options.memory_budget = size_option(least / 2);
    EXPECT_FALSE(fitting_placement(options, model, shape, *backend));
    options.memory_budget = size_option(least), options.host_memory_budget = "1KiB";
    EXPECT_FALSE(fitting_placement(options, model, shape, *backend)) << "the host has a budget, too";
}

/// In the same memory of device and host: with all parameters, with adapters, with some frozen; every placement.
TEST(Auto, IsNoSlowerThanAnyLevelThatFits) {
    const auto backend = make_backend("cpu", 1);
    int compared = 0, on_host = 0;
    for (const auto& [name, lora, freeze] :
         {std::tuple("gpt2-mini", 0, ""), std::tuple("llama-mini", 0, ""), std::tuple("llama-mini", 4, ""),
          std::tuple("gpt2-mini", 0, "wte,wpe,layers.0-1.*")}) {
        Options options;
        options.model = name, options.batch_size = 4, options.seq_len = 256, options.device_profile = "rtx3060";
        options.lora = lora, options.freeze = freeze;
        const Model model = model_to_train(options, resolve_model(options, 0, 0));
        const auto bytes = [&](const char* policy) {
            return choose_plan(options, policy, model, *backend).memory.total_bytes();
        };
        const int64_t most = bytes("none"), least = bytes("offload");
        for (const char* host : {"", "4MiB", "1GiB"}) {
            for (const char* offload : {"none", "moments", "boundaries"}) {
                for (const int64_t budget : {(most + least) / 2, least}) {
                    options.offload = offload, options.host_memory_budget = host;
                    options.memory_budget = size_option(budget);
                    std::optional<ChosenPlan> best;
                    for (const PolicyRow& policy : policies()) {
                        ChosenPlan level = choose_plan(options, policy.name, model, *backend);
                        const PlannedMemory& memory = level.memory;
                        if (!fits_both(options, *backend, memory.total_bytes(), memory.host_bytes())) continue;
                        if (policy.host_memory && *host == '\0') continue;  // auto may not use it.
                        if (!best || level.step_seconds < best->step_seconds) best = std::move(level);
                    }
                    if (!best) continue;
                    const ChosenPlan chosen = choose_plan(options, "auto", model, *backend);
                    const PlannedMemory& memory = chosen.memory;
                    EXPECT_TRUE(fits_both(options, *backend, memory.total_bytes(), memory.host_bytes()));
                    const bool may_send = *host != '\0' || std::string(offload) == "boundaries";
                    EXPECT_TRUE(may_send || memory.plan.host_bytes == 0) << "host memory that nobody named";
                    EXPECT_LE(chosen.step_seconds, best->step_seconds * (1 + 1e-9))
                        << name << " lora " << lora << " freeze '" << freeze << "' in " << budget << " and '" << host
                        << "' with " << offload << ": " << best->memory.plan.policy;
                    ++compared, on_host += memory.plan.host_bytes > 0 ? 1 : 0;
                }
            }
        }
    }
    EXPECT_GE(compared, 50);
    EXPECT_GE(on_host, 15);
}

/// --offload=auto against every list by itself.
TEST(Placement, AutoIsTheFastestOfAllThatFit) {
    Options options;
    options.model = "gpt2-nano", options.batch_size = 2, options.seq_len = 64, options.device_profile = "rtx3060";
    ModelConfig config = preset("gpt2-nano");
    config.maxT = options.seq_len;
    const Model model = make_model(config);
    const auto backend = make_backend("cpu", 1);
    const auto chosen = [&](const std::string& policy, const std::string& offload) -> std::optional<ChosenPlan> {
        Options other = options;
        other.recompute = policy, other.offload = offload;
        if (!is_fitting(other, model, {2, 64}, *backend)) return std::nullopt;
        return choose_plan(other, policy, model, *backend);
    };
    const int64_t most = chosen("none", "none")->memory.total_bytes();
    const int64_t least = chosen("sqrt", "all")->memory.total_bytes();
    int needs_host = 0;
    std::vector<const char*> wanted = {"offload", "auto"};
    if (long_tests()) wanted.insert(wanted.end(), {"none", "sqrt"});
    for (const char* policy : wanted) {
        for (const int64_t budget : {most, (most + least) / 2, least + least / 4, least}) {
            options.memory_budget = size_option(budget);
            std::optional<ChosenPlan> best;
            for (const std::string& list : offloads_by_cost()) {
                std::optional<ChosenPlan> one = chosen(policy, list);
                if (one && (!best || one->step_seconds < best->step_seconds)) best = std::move(one);
            }
            const std::optional<ChosenPlan> found = chosen(policy, "auto");
            ASSERT_EQ(found.has_value(), best.has_value()) << policy << " " << budget;
            if (!found) continue;
            EXPECT_TRUE(found->placed);
            EXPECT_LE(found->step_seconds, best->step_seconds * (1 + 1e-12)) << policy << " " << budget;
            EXPECT_LE(found->memory.total_bytes(), memory_limit(options, backend->info()));
            needs_host += static_cast<int>(found->memory.host_bytes() > 0);
        }
    }
    EXPECT_GT(needs_host, static_cast<int>(wanted.size()));
    options.device_profile.clear(), options.memory_budget.clear(), options.dtype = "fp32";
    EXPECT_EQ(chosen("none", "auto")->memory.host_bytes(), 0) << "a CPU's memory is the host's";
}

}  // namespace
}  // namespace llmc
