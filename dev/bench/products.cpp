// Times the CPU backend's matrix products at the shapes of our models' layers, by every row of the table of products
// that this processor can form. products.py runs it in turns with other libraries and compares.
//
//   products [seconds per product]         one thread, processor time; lines: shape operation type row seconds
#include "llmc/backend/cpu/cpu_backend.h"
#include "llmc/backend/cpu/product_rule.h"
#include "llmc/base/units.h"

#include <time.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

namespace {

using namespace llmc;

struct Shape {
    const char* name;
    int64_t N, OC, IC;
};

constexpr Shape kShapes[] = {
    {"mini_qkv", 3072, 1152, 384},     {"mini_proj", 3072, 384, 384},    {"mini_fc", 3072, 1536, 384},
    {"mini_fcproj", 3072, 384, 1536},  {"llama_qkv", 3072, 640, 384},    {"llama_fc", 3072, 2048, 384},
    {"llama_fcproj", 3072, 384, 1024}, {"gpt2_qkv", 1024, 2304, 768},    {"gpt2_proj", 1024, 768, 768},
    {"gpt2_fc", 1024, 3072, 768},      {"gpt2_fcproj", 1024, 768, 3072}, {"gpt2_head", 256, 50304, 768}};

double processor_seconds() {
    timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

double median_seconds(double duration, const std::function<void()>& run) {
    run();
    std::vector<double> seconds;
    for (double all = 0; all < duration || seconds.size() < 5; all += seconds.back()) {
        const double start = processor_seconds();
        run();
        seconds.push_back(processor_seconds() - start);
    }
    std::nth_element(seconds.begin(), seconds.begin() + static_cast<long>(seconds.size() / 2), seconds.end());
    return seconds[seconds.size() / 2];
}

/// Small random numbers of either type; the sums stay finite however often they are added to.
Tensor random_tensor(Backend& backend, DType type, int64_t rows, int64_t cols) {
    const Tensor tensor(type, backend.allocate(rows * cols * size_of(type), "benchmark"), rows, cols);
    uint32_t state = 12345;
    for (int64_t i = 0; i < rows * cols; ++i) {
        state = state * 1664525u + 1013904223u;
        const float value = static_cast<float>(state >> 8) * 0x1p-24f - 0.5f;
        type == DType::F32 ? void(tensor.as<float>()[i] = value) : void(tensor.as<bf16>()[i] = to_bf16(value));
    }
    return tensor;
}

void measure(const Shape& s, DType type, double seconds) {
    std::vector<std::string> rows;
    for (const cpu::ProductRules& rules : cpu::product_table())
        if (cpu::can_form_products(rules.name)) rows.emplace_back(rules.name);
    cpu::CpuBackend memory(1);
    const Tensor x = random_tensor(memory, type, s.N, s.IC), weight = random_tensor(memory, type, s.OC, s.IC);
    const Tensor d_out = random_tensor(memory, type, s.N, s.OC), out = random_tensor(memory, type, s.N, s.OC);
    const Tensor d_x = random_tensor(memory, type, s.N, s.IC);
    const Tensor d_weight = random_tensor(memory, DType::F32, s.OC, s.IC);
    for (const std::string& row : rows) {
        cpu::CpuBackend backend(1, row);
        const int64_t bytes = backend.matmul_workspace(type, s.N, s.OC, s.IC);
        const Tensor workspace(DType::U8, backend.allocate(bytes, "workspace"), bytes);
        const auto print = [&](const char* operation, const std::function<void()>& run) {
            std::printf("%s %s %s %s %.9f\n", s.name, operation, name_of(type).data(), row.c_str(),
                        median_seconds(seconds, run));
        };
        print("forward", [&] { backend.matmul_forward(out, x, weight, {}, {}, workspace); });
        print("input", [&] { backend.matmul_backward_input(d_x, d_out, weight, workspace); });
        print("weight", [&] { backend.matmul_backward_weight(d_weight, {}, false, d_out, x, workspace); });
        std::fflush(stdout);
    }
}

}  // namespace

int main(int argc, char** argv) {
    const double seconds = argc > 1 ? std::atof(argv[1]) : 0.1;
    const std::string only = argc > 2 ? argv[2] : "";
    const bool has_bf16 = cpu::CpuBackend(1).info().supports_bf16;
    for (const Shape& shape : kShapes) {
        if (!only.empty() && ("," + only + ",").find("," + std::string(shape.name) + ",") == std::string::npos)
            continue;
        for (const DType type : {DType::F32, DType::BF16})
            if (type == DType::F32 || has_bf16) measure(shape, type, seconds);
    }
}
