// What the table of llmc/plan/logits_chunk.cpp costs. First every preset on every kind of device: tokens at a time,
// bytes of logits with and without chunks, and the classifier's predicted time against all tokens at once. Then, on the
// processor at hand, the classifier measured at several chunk sizes: products, cross-entropy and gradients, in turn.
//
//   build/release/bench/chunks [--quick]
//
// Exits with 1 if a row of the table is predicted, or measured in the median, to cost more than 2 % (4 % for measured
// ones, which a shared machine blurs).
#include "llmc/backend/make_backend.h"
#include "llmc/base/median.h"
#include "llmc/base/rng.h"
#include "llmc/base/units.h"
#include "llmc/plan/cost.h"
#include "llmc/plan/logits_chunk.h"
#include "llmc/run/state.h"

#include <spdlog/fmt/fmt.h>

#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

namespace llmc {
namespace {

/// Tokens of a micro-batch that fills the device.
int64_t tokens_for(const std::string& kind) { return kind == "cpu" ? 4096 : 32768; }

DeviceProfile profile_of(const std::string& kind) {
    for (const DeviceProfile& profile : device_profiles()) {
        if (profile.kind == kind) return profile;
    }
    return {.name = kind, .flops_fp32 = 450e9, .flops_bf16 = 900e9, .bandwidth = 50e9, .launch_seconds = 5e-6};
}

double classifier_seconds(const Model& model, int64_t N, int64_t chunk, DType dtype, const DeviceProfile& profile) {
    const OpTimes times = analytic_times(model, {1, N}, dtype, profile, chunk);
    const double of_chunk = times.classifier.forward + times.classifier.backward + times.classifier.backward_weight +
                            times.cross_entropy.backward;
    return static_cast<double>(N) / static_cast<double>(chunk) * of_chunk;
}

bool print_predicted() {
    bool good = true;
    std::printf("| kind | model | tokens | chunk | logits | unchunked | predicted cost |\n");
    std::printf("|---|---|---:|---:|---:|---:|---:|\n");
    for (const TokensByKind& row : logits_chunk_table()) {
        const std::string kind(row.kind);
        const DType dtype = kind == "cpu" ? DType::F32 : DType::BF16;
        for (const std::string& name : preset_names()) {
            ModelConfig config = preset(name);
            if (config.V == 0) config.V = 257;
            if (config.maxT == 0) config.maxT = 1024;
            config.L = 1;
            const Model model = make_model(config);
            const int64_t N = tokens_for(kind), chunk = default_logits_chunk(model, {1, N}, kind);
            const int64_t row_bytes = config.Vp() * size_of(dtype);
            const DeviceProfile profile = profile_of(kind);
            const double cost =
                classifier_seconds(model, N, chunk, dtype, profile) / classifier_seconds(model, N, N, dtype, profile) -
                1;
            good = good && cost <= 0.02;
            std::printf("| %s | %s | %ld | %ld | %s | %s | %+.1f %% |\n", kind.c_str(), name.c_str(),
                        static_cast<long>(N), static_cast<long>(chunk), format_bytes(chunk * row_bytes).c_str(),
                        format_bytes(N * row_bytes).c_str(), 100 * cost);
        }
    }
    return good;
}

/// The classifier of a model on a backend, in chunks of any size.
class Classifier {
  public:
    Classifier(Backend& backend, const ModelConfig& config, int64_t N)
        : backend_(backend), config_(config), N_(N), workspace_bytes_(0) {
        for (const int64_t rows : {N, int64_t{64}}) {
            for (int64_t chunk = rows; chunk >= 64; chunk /= 2) {
                workspace_bytes_ =
                    std::max(workspace_bytes_, backend.matmul_workspace(DType::F32, chunk, config.Vp(), config.C));
            }
        }
        h_ = make(N * config.C), d_h_ = make(N * config.C), weight_ = make(config.Vp() * config.C);
        d_weight_ = make(config.Vp() * config.C), logits_ = make(N * config.Vp()), losses_ = make(N);
        scale_ = make(1), targets_ = make(N), workspace_ = DeviceBuffer(backend, workspace_bytes_, "workspace");
        std::vector<float> values(static_cast<size_t>(std::max(N, config.Vp()) * config.C));
        fill_normal(values.data(), static_cast<int64_t>(values.size()), 0.02f, 1, RngStream::Test, 0, 0);
        backend.copy_to_device(Tensor(DType::F32, h_.data(), N, config.C), values.data());
        backend.copy_to_device(Tensor(DType::F32, weight_.data(), config.Vp(), config.C), values.data());
        const float scale = 1e-3f;
        backend.copy_to_device(Tensor(DType::F32, scale_.data(), 1), &scale);
    }

    double seconds(int64_t chunk) {
        const Tensor h(DType::F32, h_.data(), N_, config_.C), d_h(DType::F32, d_h_.data(), N_, config_.C);
        const Tensor weight(DType::F32, weight_.data(), config_.Vp(), config_.C);
        const Tensor d_weight(DType::F32, d_weight_.data(), config_.Vp(), config_.C);
        const Tensor losses(DType::F32, losses_.data(), N_), targets(DType::I32, targets_.data(), N_);
        const Tensor workspace(DType::U8, workspace_.data(), workspace_bytes_);
        const TimeMark start = backend_.mark();
        for (int64_t first = 0; first < N_; first += chunk) {
            const int64_t rows = std::min(chunk, N_ - first);
            const Tensor logits(DType::F32, logits_.data(), rows, config_.Vp()), x = h.row_range(first, rows);
            backend_.matmul_forward(logits, x, weight, {}, {}, workspace);
            backend_.cross_entropy(losses.row_range(first, rows), logits, targets.row_range(first, rows), config_.V,
                                   Tensor(DType::F32, scale_.data(), 1));
            backend_.matmul_backward_weight(d_weight, {}, first > 0, logits, x, workspace);
            backend_.matmul_backward_input(d_h.row_range(first, rows), logits, weight, workspace);
        }
        return backend_.seconds_between(start, backend_.mark());
    }

  private:
    DeviceBuffer make(int64_t elements) const { return {backend_, elements * size_of(DType::F32), "classifier"}; }

    Backend& backend_;
    ModelConfig config_;
    int64_t N_, workspace_bytes_;
    DeviceBuffer h_, d_h_, weight_, d_weight_, logits_, losses_, scale_, targets_, workspace_;
};

bool print_measured(bool quick) {
    const auto backend = make_backend("cpu", 0);
    std::printf("\n%s; fp32, 4096 tokens, medians\n\n", backend->info().name.c_str());
    std::printf("| model | chunk | ms | over unchunked |\n|---|---:|---:|---:|\n");
    bool good = true;
    struct Case {
        const char* model;
        int64_t V;
    };
    for (const auto& [name, V] : {Case{"gpt2-mini", 50257}, Case{"gpt2", 50257}, Case{"gpt2-nano", 257}}) {
        if (quick && std::string(name) == "gpt2") continue;
        ModelConfig config = preset(name);
        config.V = V, config.maxT = 1024;
        constexpr int64_t kTokens = 4096;
        Classifier classifier(*backend, config, kTokens);
        const std::vector<int64_t> chunks = {256, 512, 1024, 2048, kTokens};
        std::vector<std::vector<double>> of_chunk(chunks.size());
        const int rounds = quick ? 3 : 7;
        for (int round = 0; round <= rounds; ++round) {  // In turn; the first warms up.
            for (size_t i = 0; i < chunks.size(); ++i) {
                const double seconds = classifier.seconds(chunks[i]);
                if (round > 0) of_chunk[i].push_back(seconds);
            }
        }
        const double whole = median(of_chunk.back());
        const int64_t chosen = default_logits_chunk(make_model(config), {1, kTokens}, "cpu");
        for (size_t i = 0; i < chunks.size(); ++i) {
            const double cost = median(of_chunk[i]) / whole - 1;
            std::printf("| %s, V = %ld | %ld%s | %.1f | %+.1f %% |\n", name, static_cast<long>(V),
                        static_cast<long>(chunks[i]), chunks[i] == chosen ? " (table)" : "", 1e3 * median(of_chunk[i]),
                        100 * cost);
            if (chunks[i] == chosen) good = good && cost <= 0.04;
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
