// What the table of llmc/plan/token_blocks.cpp costs. First some presets on every card there is a profile of: the
// block, and a layer's predicted time against all tokens at once. Then, on the processor at hand, an update of one
// layer measured at several block sizes, in turn.
//
//   build/release/bench/token_blocks [--quick]
//
// Exits with 1 if a row of the table is predicted, or measured in the median, to cost more than 2 % (4 % for measured
// ones, which a shared machine blurs).
#include "llmc/plan/token_blocks.h"
#include "llmc/backend/make_backend.h"
#include "llmc/base/median.h"
#include "llmc/plan/cost.h"
#include "llmc/run/executor.h"

#include <spdlog/fmt/fmt.h>

#include <cstdio>
#include <cstring>
#include <ctime>
#include <memory>
#include <string>
#include <vector>

namespace llmc {
namespace {

double layer_seconds(const Model& model, const BatchShape& shape, const DeviceProfile& profile, int64_t block) {
    const OpTimes times = analytic_times(model, shape, DType::BF16, profile, {0, block});
    double sum = 0;
    for (const OpTimes::Row& row : times.block) sum += row.forward + row.backward + row.backward_weight;
    return sum;
}

bool print_predicted() {
    constexpr BatchShape kShape = {128, 1024};  // Attention takes little.
    bool good = true;
    std::printf("| card | model | block | of 131,072 tokens: predicted cost |\n|---|---|---:|---:|\n");
    for (const DeviceProfile& profile : device_profiles()) {
        for (const char* name : {"gpt2", "llama3.2-1b", "llama3-8b"}) {
            ModelConfig config = preset(name);
            config.L = 1;
            const Model model = make_model(config);
            const int64_t block = default_block_tokens(model, kShape, profile.kind);
            const double cost =
                layer_seconds(model, kShape, profile, block) / layer_seconds(model, kShape, profile, 0) - 1;
            good = good && cost <= 0.02;
            std::printf("| %s | %s | %ld | %+.1f %% |\n", profile.name.c_str(), name, static_cast<long>(block),
                        100 * cost);
        }
    }
    return good;
}

/// A model's training with blocks of one size.
class Blocks {
  public:
    Blocks(Backend& backend, const Model& model, const BatchShape& shape, int64_t block)
        : backend_(backend),
          memory_(plan_memory(model, shape, DType::F32, find_policy("none"), {0, block}, backend)),
          state_(backend, model, DType::F32, shape.T, memory_.layout.arena_bytes, /*training=*/true),
          executor_(state_, memory_.plan, memory_.layout) {
        state_.initialise(1);
        const std::vector<int32_t> tokens(static_cast<size_t>(shape.N()), 3);
        backend.copy_to_device(executor_.tokens(), tokens.data());
        backend.copy_to_device(executor_.targets(), tokens.data());
    }

    /// Processor's, of an update: nearly all of it token-wise operations of the layer. Other programs blur it less than
    /// the time that passes.
    double seconds() {
        const std::clock_t begin = std::clock();
        executor_.run({});
        backend_.synchronize();
        return static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC;
    }

  private:
    Backend& backend_;
    PlannedMemory memory_;
    State state_;
    Executor executor_;
};

bool print_measured(bool quick) {
    const auto backend = make_backend("cpu", 0);
    constexpr BatchShape kShape = {32, 256};
    std::printf("\n%s; fp32, 8192 tokens, processor time, medians\n\n", backend->info().name.c_str());
    std::printf("| model | block | ms | over one block |\n|---|---:|---:|---:|\n");
    bool good = true;
    for (const std::string name : {"gpt2-nano", "gpt2-mini", "gpt2"}) {
        if (quick && name == "gpt2") continue;
        ModelConfig config = preset(name);
        config.L = 1, config.V = 257, config.maxT = kShape.T;
        const Model model = make_model(config);
        const std::vector<int64_t> sizes = {512, 1024, 2048, 4096, kShape.N()};
        std::vector<std::unique_ptr<Blocks>> blocks;
        for (const int64_t size : sizes) blocks.push_back(std::make_unique<Blocks>(*backend, model, kShape, size));
        std::vector<std::vector<double>> of_size(sizes.size());
        const int rounds = quick ? 3 : 9;
        for (int round = 0; round <= rounds; ++round) {  // In turn; the first warms up.
            for (size_t i = 0; i < sizes.size(); ++i) {
                const double seconds = blocks[i]->seconds();
                if (round > 0) of_size[i].push_back(seconds);
            }
        }
        const double whole = median(of_size.back());
        const int64_t chosen = default_block_tokens(model, kShape, "cpu");
        for (size_t i = 0; i < sizes.size(); ++i) {
            const double cost = median(of_size[i]) / whole - 1;
            std::printf("| %s | %ld%s | %.1f | %+.1f %% |\n", name.c_str(), static_cast<long>(sizes[i]),
                        sizes[i] == chosen ? " (table)" : "", 1e3 * median(of_size[i]), 100 * cost);
            if (sizes[i] == chosen) good = good && cost <= 0.04;
        }
    }
    return good;
}

}  // namespace
}  // namespace llmc

int main(int argc, char** argv) {
    const bool quick = argc > 1 && std::strcmp(argv[1], "--quick") == 0;
    const bool predicted = llmc::print_predicted();
    const bool measured = llmc::print_measured(quick);
    return predicted && measured ? 0 : 1;
}
