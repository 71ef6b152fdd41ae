// Which blocks should a matrix product be cut into? Times the three shipped operations (llmc/backend/cpu/matmul.cpp)
// and other block extents against oneDNN's own multi-threaded matmul primitive on the same operands, all in one run,
// since absolute numbers of a shared machine mean little. Needs a build with oneDNN.
//
//   matmul_blocks [threads] [filter]        e.g. matmul_blocks 2 qkv1024.forward.bf16; filter "" = everything
//   matmul_blocks 2 qkv1024.dgrad 128x384 64x192        also tries these extents (rows x columns of the output)
//
// Each line: GFLOP/s of the primitive, the shipped operation and every extent tried, and in brackets two ratios to the
// primitive: by wall time, and by CPU time of all threads (work without waiting: steadier when others use the machine,
// but blind to imbalance; meaningful with OMP_WAIT_POLICY=passive only).
// "RxC" hands strided parts of the operands to the library; "RxC+" goes through a dense fp32 block (forward only).
//
// What was seen (two cores of a Zen 5, oneDNN 2.6.3; ratio to the threaded primitive, GPT-2 124M shapes):
//
//   forward, N = 1024       64x64+  128x64+  256x64+  256x256+  256x384   512x384   1024x384
//     qkv fp32 / bf16       .90/.85 .96/.90  .99/.96  .99/.96   .98/.96   1.00/.95  1.02/.99
//     fcproj fp32 / bf16    .86/.89 .92/.93  .97/.99  .97/.98   .89/.93   .95/.97   .98/.97
//     mini_qkv fp32 / bf16  .84/.80 .88/.86  .94/.90  .93/.94   .89/.95   .95/.96   .93/.97
//   With a residual the dense block wins clearly (1.05 against 0.98): the library's sum post-op costs it 7-12 %.
//
//   dgrad bf16              64x192  128x192  128x384  256x192   256x384   256x768   512x384
//     qkv, N = 1024         .86     .91      .93      .95       .97       1.02      .97
//     proj, N = 256         .85     .91      .93      .94       .96       .98
//     head, N = 256         .77     .88      .95      1.00      1.06      .99
//   dgrad fp32
//     qkv, N = 1024         1.24    1.23               1.23     1.23      .74       1.23
//     head, N = 256         1.33    1.39     1.43     1.40      1.45      1.00
//   Over the full width (x768) the fp32 weight is read without packing, and misses the cache.
//
//   wgrad, N = 1024         64x192  128x192  128x384  256x192   256x384   256x768   64x768
//     fc fp32               .92     .92      .96      .92       .96       .96
//     qkv bf16              .95     1.02     1.06               1.09      1.15      1.04
//     proj bf16             .91     .98      1.05               1.08      1.10      1.02
//   The shipped operation also adds up d_bias, which the primitive does not: 1-2 %.
#include "llmc/backend/cpu/cpu_backend.h"
#include "llmc/backend/cpu/gemm.h"
#include "llmc/base/log.h"
#include "llmc/base/units.h"

#include <dnnl.hpp>
#include <omp.h>
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <unordered_map>
#include <vector>

namespace {

using namespace llmc;

enum class Operation { Forward, ForwardResidual, Dgrad, Wgrad };

struct Shape {
    const char* name;
    int64_t N, OC, IC;
};

const Shape kShapes[] = {
    {"qkv256", 256, 2304, 768},    {"proj256", 256, 768, 768},      {"fc256", 256, 3072, 768},
    {"fcproj256", 256, 768, 3072}, {"qkv1024", 1024, 2304, 768},    {"proj1024", 1024, 768, 768},
    {"fc1024", 1024, 3072, 768},   {"fcproj1024", 1024, 768, 3072}, {"qkv4096", 4096, 2304, 768},
    {"proj4096", 4096, 768, 768},  {"fc4096", 4096, 3072, 768},     {"fcproj4096", 4096, 768, 3072},
    {"head256", 256, 50304, 768},  {"head512", 512, 50304, 768},    {"mini_qkv", 3072, 1152, 384},
    {"mini_proj", 3072, 384, 384}, {"mini_fc", 3072, 1536, 384},    {"mini_fcproj", 3072, 384, 1536},
    {"mini_head", 3072, 320, 384}, {"small_qkv", 768, 384, 128},    {"small_proj", 768, 128, 128},
    {"small_fc", 768, 512, 128},   {"small_fcproj", 768, 128, 512},
};

struct Extents {
    int64_t rows, cols;
    bool dense;
};

/// Memory from the backend under test: resident, on huge pages.
Tensor make_tensor(Backend& backend, DType dtype, int64_t rows, int64_t cols) {
    return {dtype, backend.allocate(rows * cols * size_of(dtype), "benchmark"), rows, cols};
}

struct Operands {
    Tensor a, b, c, bias;
};

/// The whole product, as the library sees it.
cpu::GemmSpec whole_product(Operation operation, DType ab, const Shape& s) {
    if (operation == Operation::Dgrad)
        return {.m = s.N, .n = s.IC, .k = s.OC, .lda = s.OC, .ldb = s.IC, .ldc = s.IC, .ab = ab, .c = ab};
    if (operation == Operation::Wgrad)
        return {.m = s.OC,
                .n = s.IC,
                .k = s.N,
                .lda = s.OC,
                .ldb = s.IC,
                .ldc = s.IC,
                .transpose_a = true,
                .accumulate = true,
                .ab = ab,
                .c = DType::F32};
    return {.m = s.N,
            .n = s.OC,
            .k = s.IC,
            .lda = s.IC,
            .ldb = s.IC,
            .ldc = s.OC,
            .transpose_b = true,
            .accumulate = operation == Operation::ForwardResidual,
            .bias = true,
            .ab = ab,
            .c = ab};
}

/// oneDNN's primitive for all threads.
std::function<void()> threaded_primitive(const cpu::GemmSpec& spec, const Operands& x, int threads) {
    using dnnl::memory;
    const auto type = [](DType t) { return t == DType::F32 ? memory::data_type::f32 : memory::data_type::bf16; };
    const auto layout = [&](int64_t rows, int64_t cols, DType t, int64_t ld, bool transposed) {
        return memory::desc({rows, cols}, type(t), transposed ? memory::dims{1, ld} : memory::dims{ld, 1});
    };
    omp_set_num_threads(threads);
    static const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
    static dnnl::stream stream(engine);
    const auto a = layout(spec.m, spec.k, spec.ab, spec.lda, spec.transpose_a);
    const auto b = layout(spec.k, spec.n, spec.ab, spec.ldb, spec.transpose_b);
    const auto c = layout(spec.m, spec.n, spec.c, spec.ldc, false);
    const auto bias = layout(1, spec.n, spec.ab, spec.n, false);
    dnnl::primitive_attr attributes;
    if (spec.accumulate) {
        dnnl::post_ops post_ops;
        post_ops.append_sum(1.0f);
        attributes.set_post_ops(post_ops);
    }
    const auto operation = spec.bias ? dnnl::matmul::desc(a, b, bias, c) : dnnl::matmul::desc(a, b, c);
    const dnnl::matmul primitive(dnnl::matmul::primitive_desc(operation, attributes, engine));
    std::unordered_map<int, memory> arguments = {{DNNL_ARG_SRC, memory(a, engine, x.a.data)},
                                                 {DNNL_ARG_WEIGHTS, memory(b, engine, x.b.data)},
                                                 {DNNL_ARG_DST, memory(c, engine, x.c.data)}};
    if (spec.bias) arguments[DNNL_ARG_BIAS] = memory(bias, engine, x.bias.data);
    return [=] { primitive.execute(stream, arguments); };
}

template <typename T>
void store(T* out, int64_t ld, const float* sums, int64_t rows, int64_t cols, bool accumulate) {
    for (int64_t i = 0; i < rows; ++i)
        for (int64_t j = 0; j < cols; ++j) {
            T& to = out[i * ld + j];
            to = from_float<T>(sums[i * cols + j] + (accumulate ? to_float(to) : 0.0f));
        }
}

/// The product in blocks of the given extents.
std::function<void()> blocked(const cpu::GemmSpec& spec, const Operands& x, Extents extents, int threads,
                              Backend& backend) {
    const int64_t row_blocks = ceil_div(spec.m, extents.rows), col_blocks = ceil_div(spec.n, extents.cols);
    std::vector<const cpu::Gemm*> kernels(4);
    int64_t gemm_bytes = 0;
    for (size_t i = 0; i < 4; ++i) {
        cpu::GemmSpec part = spec;
        part.m = i & 1 ? spec.m - (row_blocks - 1) * extents.rows : std::min(spec.m, extents.rows);
        part.n = i & 2 ? spec.n - (col_blocks - 1) * extents.cols : std::min(spec.n, extents.cols);
        if (extents.dense) part.accumulate = false, part.ldc = part.n, part.c = DType::F32;
        kernels[i] = cpu::find_gemm(part);
        gemm_bytes = std::max(gemm_bytes, round_up(cpu::gemm_scratch_bytes(kernels[i]), 4096));
    }
    const int64_t slot = gemm_bytes + (extents.dense ? round_up(extents.rows * extents.cols * 4, 4096) : 0) + 4096;
    auto* const scratch = static_cast<char*>(backend.allocate(slot * threads, "scratch"));
    return [=] {
        const int64_t ab = size_of(spec.ab), c = size_of(spec.c);
#pragma omp parallel for num_threads(threads) schedule(dynamic)
        for (int64_t i = 0; i < row_blocks * col_blocks; ++i) {
            const int64_t row = i % row_blocks * extents.rows, col = i / row_blocks * extents.cols;
            const int64_t rows = std::min(extents.rows, spec.m - row), cols = std::min(extents.cols, spec.n - col);
            const bool last_row = row + extents.rows >= spec.m, last_col = col + extents.cols >= spec.n;
            char* const mine = scratch + slot * omp_get_thread_num();
            auto* const sums = reinterpret_cast<float*>(mine + gemm_bytes);
            char* const out = static_cast<char*>(x.c.data) + (row * spec.ldc + col) * c;
            cpu::run_gemm(kernels[size_t{last_row} + 2 * size_t{last_col}],
                          static_cast<char*>(x.a.data) + (spec.transpose_a ? row : row * spec.lda) * ab,
                          static_cast<char*>(x.b.data) + (spec.transpose_b ? col * spec.ldb : col) * ab,
                          extents.dense ? static_cast<void*>(sums) : out, static_cast<char*>(x.bias.data) + col * ab,
                          mine);
            if (extents.dense && spec.c == DType::F32)
                store(reinterpret_cast<float*>(out), spec.ldc, sums, rows, cols, spec.accumulate);
            else if (extents.dense)
                store(reinterpret_cast<bf16*>(out), spec.ldc, sums, rows, cols, spec.accumulate);
        }
    };
}

std::function<void()> shipped(Operation operation, const Shape& s, const Operands& x, Backend& backend) {
    const int64_t bytes = std::max<int64_t>(backend.matmul_workspace(x.a.dtype, s.N, s.OC, s.IC), 64);
    const Tensor workspace = make_tensor(backend, DType::U8, bytes, 1);
    const Tensor bias(x.bias.dtype, x.bias.data, s.OC);
    switch (operation) {
        case Operation::Dgrad: return [=, &backend] { backend.matmul_backward_input(x.c, x.a, x.b, workspace); };
        case Operation::Wgrad:
            return [=, &backend] { backend.matmul_backward_weight(x.c, bias, true, x.a, x.b, workspace); };
        case Operation::Forward:
            return [=, &backend] { backend.matmul_forward(x.c, x.a, x.b, bias, Tensor(), workspace); };
        case Operation::ForwardResidual:
            return [=, &backend] { backend.matmul_forward(x.c, x.a, x.b, bias, x.c, workspace); };
    }
    return {};
}

struct Variant {
    std::string name;
    std::function<void()> run;
    double best_seconds = 1e30;
    double best_cpu_seconds = 1e30;
};

/// Seconds that all threads together have computed.
double cpu_seconds() {
    timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

/// The best of several rounds; every round times all variants, each for about 20 ms.
void time_all(std::vector<Variant>& variants, double flops) {
    constexpr int kRounds = 9;
    for (int round = 0; round < kRounds; ++round) {
        for (Variant& variant : variants) {
            const int runs = static_cast<int>(std::max(1.0, 5e9 / flops));
            variant.run();
            const double start = now_seconds(), cpu_start = cpu_seconds();
            for (int i = 0; i < runs; ++i) variant.run();
            variant.best_seconds = std::min(variant.best_seconds, (now_seconds() - start) / runs);
            variant.best_cpu_seconds = std::min(variant.best_cpu_seconds, (cpu_seconds() - cpu_start) / runs);
        }
    }
}

void measure(Operation operation, DType ab, const Shape& s, const std::string& name, const std::vector<Extents>& tries,
             int threads) {
    cpu::CpuBackend backend(threads);
    const cpu::GemmSpec spec = whole_product(operation, ab, s);
    const bool weight_gradient = operation == Operation::Wgrad;
    const Operands x{weight_gradient ? make_tensor(backend, ab, s.N, s.OC) : make_tensor(backend, ab, spec.m, spec.k),
                     make_tensor(backend, ab, weight_gradient ? s.N : s.OC, s.IC),
                     make_tensor(backend, spec.c, spec.m, spec.n),
                     make_tensor(backend, weight_gradient ? DType::F32 : ab, std::max(s.OC, s.IC), 1)};
    std::vector<Variant> variants = {{"library", threaded_primitive(spec, x, threads)},
                                     {"shipped", shipped(operation, s, x, backend)}};
    for (const Extents& e : tries)
        variants.push_back({std::to_string(e.rows) + "x" + std::to_string(e.cols) + (e.dense ? "+" : ""),
                            blocked(spec, x, e, threads, backend)});
    const double flops = 2.0 * static_cast<double>(spec.m) * static_cast<double>(spec.n) * static_cast<double>(spec.k);
    time_all(variants, flops);
    std::printf("%-28s", name.c_str());
    for (const Variant& v : variants)
        std::printf(" | %s %6.1f (%.2f %.2f)", v.name.c_str(), flops / v.best_seconds * 1e-9,
                    variants[0].best_seconds / v.best_seconds, variants[0].best_cpu_seconds / v.best_cpu_seconds);
    std::printf("\n");
    std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
    const int threads = argc > 1 ? std::atoi(argv[1]) : 2;
    const std::string filter = argc > 2 ? argv[2] : "";
    std::vector<Extents> tries;
    for (int i = 3; i < argc; ++i) {
        Extents e = {0, 0, std::string(argv[i]).back() == '+'};
        if (std::sscanf(argv[i], "%ldx%ld", &e.rows, &e.cols) == 2) tries.push_back(e);
    }
    const std::pair<Operation, const char*> operations[] = {{Operation::Forward, "forward"},
                                                            {Operation::ForwardResidual, "forward_residual"},
                                                            {Operation::Dgrad, "dgrad"},
                                                            {Operation::Wgrad, "wgrad"}};
    for (const Shape& shape : kShapes)
        for (const auto& [operation, operation_name] : operations)
            for (const DType ab : {DType::F32, DType::BF16}) {
                const std::string name =
                    std::string(shape.name) + "." + operation_name + "." + std::string(name_of(ab));
                if (name.find(filter) != std::string::npos) measure(operation, ab, shape, name, tries, threads);
            }
}
