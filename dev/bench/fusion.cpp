// What fused steps gain. First the two operations that are one against the same two by themselves, at the sizes of a
// layer; then whole micro-batches with their update, of a plan with fused steps and one without. In turn in one
// process, so that whatever else runs on the machine meets both; medians by processor time on one thread, which other
// programs blur less than the clock, and of the whole also by the clock on all threads.
//
//   build/release/bench/fusion [--quick]
//
// Exits with 1 if the two operations take longer as one, or the whole more than 1 % longer, by processor time.
#include "llmc/run/fusion.h"
#include "llmc/backend/make_backend.h"
#include "llmc/base/median.h"
#include "llmc/base/rng.h"
#include "llmc/run/executor.h"
#include "llmc/run/memory.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <string>
#include <vector>

namespace llmc {
namespace {

struct Case {
    const char* title;
    const char* preset;
    bool mlp_bias;
    BatchShape shape;
};

double processor_seconds() {
    timespec now = {};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

double clock_seconds() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// Random enough: sums of it do not cancel, and no exponential is without work.
void fill(Backend& backend, const Tensor& tensor) {
    std::vector<float> values(static_cast<size_t>(tensor.count()));
    fill_normal(values.data(), tensor.count(), 1.0f, 1, RngStream::Test, 0, 0);
    backend.copy_to_device(tensor, values.data());
}

/// The operations of one layer that are one in a model's plans; a line of the table.
bool measure_pair(const Case& item, const Model& model, int rounds) {
    const auto backend = make_backend("cpu", 1);
    const FusedRun run = fused_runs(model, item.shape, 0, DType::F32, *backend).front();
    const OpRow &act = model.block[static_cast<size_t>(run.parts[0].row)],
                &matmul = model.block[static_cast<size_t>(run.parts[1].row)];
    const ParameterRow& weight = model.parameters[static_cast<size_t>(model.parameter_index(0, matmul.weight))];
    const int64_t N = item.shape.N(), OC = weight.rows, IC = weight.cols;
    const int64_t AC = model.activations[static_cast<size_t>(act.out)].columns;
    const int64_t bytes = std::max(run.workspace_bytes, backend->matmul_workspace(DType::F32, N, OC, IC));
    std::vector<DeviceBuffer> buffers;
    const auto matrix = [&](int64_t rows, int64_t cols) {
        buffers.emplace_back(*backend, rows * cols * size_of(DType::F32), "bench");
        const Tensor tensor(DType::F32, buffers.back().data(), rows, cols);
        fill(*backend, tensor);
        return tensor;
    };
    ActivationAndWeightGradient all = {activation_of(act.kind),
                                       matrix(N, OC),
                                       matrix(N, AC),
                                       matrix(N, OC),
                                       matrix(OC, IC),
                                       matrix(OC, 1),
                                       false,
                                       matrix(N, IC),
                                       {}};
    const DeviceBuffer scratch(*backend, bytes, "workspace");
    all.workspace = Tensor(DType::U8, scratch.data(), bytes);
    const auto separately = [&] {
        if (act.kind == OpKind::Swiglu) backend->swiglu_backward(all.d_pre, all.d_act, all.pre);
        if (act.kind == OpKind::Gelu) backend->gelu_backward(all.d_pre, all.d_act, all.pre);
        backend->matmul_backward_weight(all.d_weight, all.d_bias, false, all.d_pre, all.x, all.workspace);
    };
    std::vector<double> separate, fused, ratios;
    for (int round = 0; round <= rounds; ++round) {
        const double start = processor_seconds();
        separately();
        const double middle = processor_seconds();
        backend->activation_and_weight_gradient(all);
        const double end = processor_seconds();
        if (round == 0) continue;  // Warms up.
        separate.push_back(middle - start), fused.push_back(end - middle);
        ratios.push_back(fused.back() / separate.back());
    }
    std::printf("| %s: %s and weight gradient of %s | 1, processor time | %.2f | %.2f | %.4f |\n", item.title,
                act.name.c_str(), matmul.name.c_str(), 1e3 * median(separate), 1e3 * median(fused), median(ratios));
    std::fflush(stdout);
    return median(ratios) <= 1;
}

/// A model with one plan.
class Training {
  public:
    Training(Backend& backend, const Model& model, const BatchShape& shape, bool fuses)
        : backend_(backend),
          memory_(plan_memory(model, shape, DType::F32, find_policy("none"), 0, backend, {}, fuses)),
          state_(backend, model, DType::F32, shape.T, memory_.layout.arena_bytes, /*training=*/true),
          executor_(state_, memory_.plan, memory_.layout) {
        state_.initialise(1);
        state_.set_loss_scale(1.0f / static_cast<float>(shape.N()));
        tokens_.resize(static_cast<size_t>(shape.N()));
        for (size_t i = 0; i < tokens_.size(); ++i) tokens_[i] = static_cast<int32_t>(i % 256);
    }

    const Plan& plan() const { return memory_.plan; }

    double seconds(double (*now)()) {
        backend_.copy_to_device(executor_.tokens(), tokens_.data());
        backend_.copy_to_device(executor_.targets(), tokens_.data());
        const double start = now();
        executor_.run({});
        backend_.synchronize();
        return now() - start;
    }

  private:
    Backend& backend_;
    PlannedMemory memory_;
    State state_;
    Executor executor_;
    std::vector<int32_t> tokens_;
};

Model model_of(const Case& item) {
    ModelConfig config = preset(item.preset);
    config.V = config.V > 0 ? config.V : 257;
    config.maxT = item.shape.T;
    config.features.mlp_bias = item.mlp_bias;
    return make_model(config);
}

/// Fused over separate, in the median; a line of the table.
double measure(const Case& item, const Model& model, int threads, double (*now)(), int rounds) {
    const auto backend = make_backend("cpu", threads);
    Training fused(*backend, model, item.shape, true), separate(*backend, model, item.shape, false);
    std::vector<double> of_fused, of_separate, ratios;
    for (int round = 0; round <= rounds; ++round) {
        const bool fused_first = round % 2 == 0;
        const double first = (fused_first ? fused : separate).seconds(now);
        const double second = (fused_first ? separate : fused).seconds(now);
        if (round == 0) continue;  // Warms up.
        of_fused.push_back(fused_first ? first : second);
        of_separate.push_back(fused_first ? second : first);
        ratios.push_back(of_fused.back() / of_separate.back());
    }
    const double ratio = median(ratios);
    std::printf("| %s | %s | %.1f | %.1f | %.4f |\n", item.title, threads == 1 ? "1, processor time" : "all, clock",
                1e3 * median(of_separate), 1e3 * median(of_fused), ratio);
    std::fflush(stdout);
    return ratio;
}

bool run(bool quick) {
    const Case cases[] = {{"gpt2-mini 8 x 256", "gpt2-mini", true, {8, 256}},
                          {"llama-mini 8 x 256", "llama-mini", false, {8, 256}},
                          {"llama-mini with biases 8 x 256", "llama-mini", true, {8, 256}}};
    std::printf("%s, fp32, --recompute=none\n\n", make_backend("cpu", 0)->info().name.c_str());
    std::printf("| model | threads | separate ms | fused ms | ratio, median |\n|---|---|---:|---:|---:|\n");
    bool good = true;
    for (const Case& item : cases) {
        const Model model = model_of(item);
        const PlanRequest request = plan_request(model, item.shape, DType::F32, 0, *make_backend("cpu", 1));
        if (request.fusions.empty()) {
            std::printf("| %s | nothing is fused | | | |\n", item.title);
            continue;
        }
        good = measure_pair(item, model, quick ? 15 : 101) && good;
        good = measure(item, model, 1, processor_seconds, quick ? 5 : 21) <= 1.01 && good;
        measure(item, model, 0, clock_seconds, quick ? 5 : 21);
    }
    return good;
}

}  // namespace
}  // namespace llmc

int main(int argc, char** argv) { return llmc::run(argc > 1 && std::strcmp(argv[1], "--quick") == 0) ? 0 : 1; }
