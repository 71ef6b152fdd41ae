// Speed of attention on the CPU, at the heads of GPT-2 124M, against two ceilings: the arithmetic peak of the cores,
// and a large library GEMM run by all threads at once. Only the causal half of the products is counted: 2 of them
// forward, 5 backward.
//
//   attention_cpu [threads] [repeats]
//
// The last column is the loser: the same products as library GEMMs on 256 x 256 tiles, straight from qkv, with no
// softmax, mask or packing around them. What it leaves out would come on top.
//
// Measured on one core of an AMD EPYC of the Zen 5 generation (g++ 12, oneDNN 2.6.3), as CPU time of one thread, since
// other work ran beside it. Both passes, GFLOP/s (of the peak), then milliseconds of ours and of the library's
// products:
//
//                                       fp32, peak 260                 bf16, peak 520
//   B 4, T   64, 12 heads of 64       101 (39 %)    0.88   1.15      142 (27 %)    0.63   0.74
//   B 4, T  256, 12 heads of 64       151 (58 %)    9.37   12.4      249 (48 %)    5.68   7.70
//   B 4, T 1024, 12 heads of 64       192 (74 %)     118    126      335 (64 %)    67.4   76.4
//   B 1, T 4096, 12 heads of 64       205 (79 %)     441    425      369 (71 %)     245    260
//   B 1, T 1024, 16/4 heads of 128    206 (79 %)    73.2   88.5      376 (72 %)    40.0   43.4
//   B 12, T 256, 6 heads of 32        129 (50 %)    8.22   9.67      203 (39 %)    5.22   6.15
//
// The large GEMM reaches 241 and 490. Built for AVX2 (peak 128), ours reaches 108 (85 %) at T 1024 in fp32, 107 in
// bf16. Where the time goes at T 1024 in fp32: the products, at 97 % of the peak, 75-85 %; softmax 15 % of the forward
// pass and 5 % of the backward pass; copying rows that lie a whole qkv row apart 5-7 %.
//
// Tried and not kept: tiles of 384 keys (forward 2-3 % faster, backward 1 % slower, twice the workspace), 96 score rows
// or 192 queries per tile (2-4 % slower), 48 queries per tile (6 % slower), prefetching the next tile's rows (no
// difference), bf16 conversion of two vectors at a time in the forward pass (no difference).
#include "llmc/backend/cpu/cpu_backend.h"
#include "llmc/backend/cpu/gemm.h"
#include "llmc/backend/cpu/machine.h"
#include "llmc/base/log.h"
#include "llmc/base/rng.h"
#include "llmc/base/units.h"

#include <time.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace llmc::cpu {
namespace {

/// Seconds: of the clock, or, with one thread, of the processor, which what else runs beside it disturbs less.
double seconds_of(int threads) {
    if (threads > 1) return now_seconds();
    timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

/// The fastest of `repeats` calls, in seconds.
double fastest(int threads, int repeats, const std::function<void()>& call) {
    double best = 1e30;
    call();
    for (int i = 0; i < repeats; ++i) {
        const double start = seconds_of(threads);
        call();
        best = std::min(best, seconds_of(threads) - start);
    }
    return best;
}

/// Memory of the backend: on huge pages, as in training.
class Memory {
  public:
    Memory(CpuBackend& backend, int64_t bytes) : backend_(&backend), data_(backend.allocate(bytes, "a benchmark")) {}
    Memory(Memory&& other) noexcept : backend_(other.backend_), data_(std::exchange(other.data_, nullptr)) {}
    ~Memory() {
        if (data_) backend_->release(data_);
    }
    void* data() const { return data_; }

  private:
    CpuBackend* backend_;
    void* data_;
};

struct Operands {
    Operands(CpuBackend& backend, DType dtype, const AttentionShape& s)
        : qkv(backend, s.B * s.T * s.qkv_columns() * 4),
          d_qkv(backend, s.B * s.T * s.qkv_columns() * 4),
          out(backend, s.B * s.T * s.NH * s.HD * 4),
          d_out(backend, s.B * s.T * s.NH * s.HD * 4),
          lse(backend, s.B * s.T * s.NH * 4),
          workspace(backend, std::max(backend.attention_forward_workspace(dtype, s),
                                      backend.attention_backward_workspace(dtype, s, /*in_place=*/false))) {
        const auto fill = [&](Memory& memory, int64_t count) {
            std::vector<float> values(count);
            fill_normal(values.data(), count, 1.0f, 1, RngStream::Test, 1);
            backend.convert(Tensor(dtype, memory.data(), count), Tensor(DType::F32, values.data(), count));
        };
        fill(qkv, s.B * s.T * s.qkv_columns());
        fill(d_out, s.B * s.T * s.NH * s.HD);
    }
    Memory qkv, d_qkv, out, d_out, lse, workspace;
};

/// FLOP/s of `threads` library GEMMs at once, each of 1024 x 768 x 768.
double gemm_rate(CpuBackend& backend, DType dtype, int threads, int repeats) {
    GemmSpec spec{.m = 1024, .n = 768, .k = 768, .lda = 768, .ldb = 768, .ldc = 768};
    spec.transpose_b = true;
    spec.ab = dtype;
    const Gemm* gemm = find_gemm(spec);
    std::vector<Memory> memory;
    for (int i = 0; i < threads; ++i)
        memory.emplace_back(backend, (2 * 1024 + 768) * 768 * 4 + gemm_scratch_bytes(gemm) + 256);
    const double seconds = fastest(threads, repeats, [&] {
#pragma omp parallel for num_threads(threads) schedule(static, 1)
        for (int i = 0; i < threads; ++i) {
            char* a = static_cast<char*>(memory[i].data());
            char* b = a + 1024 * 768 * 4;
            char* c = b + 768 * 768 * 4;
            run_gemm(gemm, a, b, c, nullptr, c + 1024 * 768 * 4);
        }
    });
    return 2.0 * 1024 * 768 * 768 * threads / seconds;
}

/// Seconds of the products alone, forward and backward, as library GEMMs on tiles.
double library_seconds(CpuBackend& backend, DType dtype, const AttentionShape& s, int threads, int repeats) {
    const int64_t tile = std::min<int64_t>(256, s.T), QKV = s.qkv_columns(), element = size_of(dtype);
    const auto make = [&](int64_t m, int64_t n, int64_t k, int64_t lda, int64_t ldb, int64_t ldc, bool ta, bool tb) {
        GemmSpec spec{.m = m, .n = n, .k = k, .lda = lda, .ldb = ldb, .ldc = ldc};
        spec.transpose_a = ta;
        spec.transpose_b = tb;
        spec.accumulate = k == tile;
        spec.ab = dtype;
        return find_gemm(spec);
    };
    const Gemm* scores = make(tile, tile, s.HD, QKV, QKV, tile, false, true);       // also d(probabilities)
    const Gemm* over_keys = make(tile, s.HD, tile, tile, QKV, s.HD, false, false);  // out, d_queries
    const Gemm* over_queries = make(tile, s.HD, tile, tile, QKV, s.HD, true, false);
    const int64_t scratch =
        std::max({gemm_scratch_bytes(scores), gemm_scratch_bytes(over_keys), gemm_scratch_bytes(over_queries)});
    Memory qkv(backend, s.B * s.T * QKV * element);
    std::vector<Memory> buffers;
    for (int i = 0; i < threads; ++i) buffers.emplace_back(backend, tile * tile * 4 + tile * s.HD * 4 + scratch + 256);
    return fastest(threads, repeats, [&] {
#pragma omp parallel for num_threads(threads) schedule(static)
        for (int64_t head = 0; head < s.B * s.NH; ++head) {
            char* square = static_cast<char*>(buffers[head * threads / (s.B * s.NH)].data());
            char* tall = square + tile * tile * 4;
            char* rest = tall + tile * s.HD * 4;
            const char* q =
                static_cast<char*>(qkv.data()) + head / s.NH * s.T * QKV * element + head % s.NH * s.HD * element;
            const char* k = q + (s.NH - head % s.NH + head % s.NH / (s.NH / s.NKV)) * s.HD * element;
            for (int64_t i = 0; i < s.T / tile; ++i)
                for (int64_t j = 0; j <= i; ++j) {
                    const char* qi = q + i * tile * QKV * element;
                    const char* kj = k + j * tile * QKV * element;
                    for (int repeat = 0; repeat < 3; ++repeat) run_gemm(scores, qi, kj, square, nullptr, rest);
                    for (int repeat = 0; repeat < 2; ++repeat) run_gemm(over_keys, square, kj, tall, nullptr, rest);
                    for (int repeat = 0; repeat < 2; ++repeat) run_gemm(over_queries, square, qi, tall, nullptr, rest);
                }
        }
    });
}

void measure(CpuBackend& backend, DType dtype, const AttentionShape& s, int threads, int repeats, double peak,
             double gemm) {
    const Operands o(backend, dtype, s);
    const int64_t N = s.B * s.T;
    const Tensor qkv(dtype, o.qkv.data(), N, s.qkv_columns()), d_qkv(dtype, o.d_qkv.data(), N, s.qkv_columns());
    const Tensor out(dtype, o.out.data(), N, s.NH * s.HD), d_out(dtype, o.d_out.data(), N, s.NH * s.HD);
    const Tensor lse(DType::F32, o.lse.data(), N, s.NH), workspace(DType::U8, o.workspace.data(), 1LL << 40);
    const double product = static_cast<double>(s.B * s.NH * s.HD) * s.T * (s.T + 1);
    const double forward = fastest(threads, repeats, [&] { backend.attention_forward(out, lse, qkv, s, workspace); });
    const double backward =
        fastest(threads, repeats, [&] { backend.attention_backward(d_qkv, d_out, qkv, out, lse, s, workspace); });
    const double rate = 7 * product / (forward + backward);
    std::printf(
        "%-5s %2ld %5ld %3ld %3ld | %8.3f %6.1f %3.0f%% | %8.3f %6.1f %3.0f%% | %6.1f %3.0f%% of peak %3.0f%% of GEMM",
        std::string(name_of(dtype)).c_str(), s.B, s.T, s.NH, s.HD, forward * 1e3, 2e-9 * product / forward,
        200 * product / forward / peak, backward * 1e3, 5e-9 * product / backward, 500 * product / backward / peak,
        rate * 1e-9, 100 * rate / peak, 100 * rate / gemm);
    if (s.T % std::min<int64_t>(256, s.T) == 0)
        std::printf(" | library %8.3f ms, ours %.3f", library_seconds(backend, dtype, s, threads, repeats) * 1e3,
                    (forward + backward) * 1e3);
    std::printf("\n");
    std::fflush(stdout);
}

}  // namespace
}  // namespace llmc::cpu

int main(int argc, char** argv) {
    using namespace llmc;
    using namespace llmc::cpu;
    const int threads = argc > 1 ? std::atoi(argv[1]) : 2, repeats = argc > 2 ? std::atoi(argv[2]) : 10;
    CpuBackend backend(threads);
    for (const DType dtype : {DType::F32, DType::BF16}) {
        const double peak = measured_flops_per_core() * threads * (dtype == DType::BF16 ? 2 : 1);
        const double gemm = gemm_rate(backend, dtype, threads, repeats);
        std::printf("%s, %d threads: peak %.0f GFLOP/s, GEMM %.0f GFLOP/s\n", std::string(name_of(dtype)).c_str(),
                    threads, peak * 1e-9, gemm * 1e-9);
        std::printf("type   B     T  NH  HD | forward: ms, GFLOP/s    | backward: ms, GFLOP/s   | both\n");
        for (const auto& [B, T] : {std::pair<int64_t, int64_t>{4, 64}, {4, 256}, {4, 1024}, {1, 4096}})
            measure(backend, dtype, {B, T, 12, 12, 64}, threads, repeats, peak, gemm);
        measure(backend, dtype, {1, 1024, 16, 4, 128}, threads, repeats, peak, gemm);
        measure(backend, dtype, {12, 256, 6, 6, 32}, threads, repeats, peak, gemm);
    }
}
