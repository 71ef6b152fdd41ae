// The stand-in for cuBLASLt: epilogues of the backward against double loops, what it refuses of them, and algorithms
// that differ in their bits and in the times that tests give them.
#include "dev/cuda_on_cpu/control.h"
#include "llmc/backend/cuda/prepared_matmuls.h"
#include "tests/cuda_on_cpu/device_buffer.h"

#include <cublasLt.h>
#include <cuda_bf16.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <set>

namespace llmc::cuda {
namespace {

constexpr int64_t kM = 24, kN = 40, kK = 56;

/// Of many magnitudes, so that sums depend on their order.
std::vector<float> numbers(int64_t count, int start) {
    std::vector<float> values(static_cast<size_t>(count));
    for (int64_t i = 0; i < count; ++i) {
        const auto mantissa = static_cast<float>((i * 37 + start) % 101 - 50) / 64;
        values[static_cast<size_t>(i)] = std::ldexp(mantissa, -static_cast<int>((i * 7 + start) % 11));
    }
    return values;
}

std::vector<__nv_bfloat16> rounded(const std::vector<float>& values) {
    std::vector<__nv_bfloat16> result;
    for (const float value : values) result.push_back(__float2bfloat16(value));
    return result;
}

/// D = A (M, K) B (N, K)^T of bf16 numbers, as the library is asked for it. What is set says what it lacks.
struct Problem {
    explicit Problem(cublasLtEpilogue_t epilogue, cudaDataType_t output, int64_t m = kM)
        : m(m),
          a_values(numbers(m * kK, 3)),
          b_values(numbers(kN * kK, 8)),
          at_values(numbers(m * kN, 5)),
          a(rounded(a_values)),
          b(rounded(b_values)),
          at(rounded(at_values)),
          output(output) {
        EXPECT_EQ(cublasLtCreate(&handle), CUBLAS_STATUS_SUCCESS);
        cublasLtMatmulDescCreate(&description, CUBLAS_COMPUTE_32F, CUDA_R_32F);
        set(CUBLASLT_MATMUL_DESC_TRANSB, CUBLAS_OP_T);
        set(CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue);
        cublasLtMatrixLayoutCreate(&a_layout, CUDA_R_16BF, static_cast<uint64_t>(m), kK, m);
        cublasLtMatrixLayoutCreate(&b_layout, CUDA_R_16BF, kN, kK, kN);
        cublasLtMatrixLayoutCreate(&d_layout, output, static_cast<uint64_t>(m), kN, m);
    }
    ~Problem() {
        for (cublasLtMatrixLayout_t layout : {a_layout, b_layout, d_layout}) cublasLtMatrixLayoutDestroy(layout);
        cublasLtMatmulDescDestroy(description);
        cublasLtDestroy(handle);
    }
    Problem(const Problem&) = delete;
    Problem& operator=(const Problem&) = delete;

    template <typename Value>
    void set(cublasLtMatmulDescAttributes_t attribute, const Value& value) {
        EXPECT_EQ(cublasLtMatmulDescSetAttribute(description, attribute, &value, sizeof value), CUBLAS_STATUS_SUCCESS);
    }
    void set_aux(const void* pointer, int64_t leading) {
        set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, pointer);
        set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, leading);
    }

    cublasStatus_t find(int most = 1) {
        cublasLtMatmulPreference_t preference;
        cublasLtMatmulPreferenceCreate(&preference);
        const uint64_t bytes = workspace.count();
        const uint32_t alignment = 128;
        for (const auto operand :
             {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
              CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES}) {
            cublasLtMatmulPreferenceSetAttribute(preference, operand, &alignment, sizeof alignment);
        }
        cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &bytes,
                                             sizeof bytes);
        found.resize(static_cast<size_t>(most));
        int count = 0;
        const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(handle, description, a_layout, b_layout, d_layout,
                                                                     d_layout, preference, most, found.data(), &count);
        cublasLtMatmulPreferenceDestroy(preference);
        found.resize(static_cast<size_t>(count));
        return status;
    }

    cublasStatus_t multiply(float beta = 0, size_t algorithm = 0) {
        const float one = 1;
        return cublasLtMatmul(handle, description, &one, a.data(), a_layout, b.data(), b_layout, &beta, d.data(),
                              d_layout, d.data(), d_layout, &found.at(algorithm).algo, workspace.data(),
                              workspace.count(), nullptr);
    }

    double sum(int64_t i, int64_t j) const {
        double sum = 0;
        for (int64_t k = 0; k < kK; ++k) {
            const auto left = static_cast<size_t>(k * m + i), right = static_cast<size_t>(k * kN + j);
            sum += double{__bfloat162float(__float2bfloat16(a_values[left]))} *
                   double{__bfloat162float(__float2bfloat16(b_values[right]))};
        }
        return sum;
    }

    int64_t m;
    std::vector<float> a_values, b_values, at_values;
    DeviceBuffer<__nv_bfloat16> a, b, at;
    cudaDataType_t output;
    DeviceBuffer<float> d{std::vector<float>(static_cast<size_t>(kM * 2 * kN), 1.0f)};
    DeviceBuffer<char> workspace{1 << 16};
    cublasLtHandle_t handle = nullptr;
    cublasLtMatmulDesc_t description = nullptr;
    cublasLtMatrixLayout_t a_layout = nullptr, b_layout = nullptr, d_layout = nullptr;
    std::vector<cublasLtMatmulHeuristicResult_t> found;
};

TEST(CublasLtEpilogues, BiasGradientIsTheRowSumsOfB) {
    for (const float beta : {0.0f, 1.0f}) {
        Problem x(CUBLASLT_EPILOGUE_BGRADB, CUDA_R_32F);
        const DeviceBuffer<float> sums(std::vector<float>(kN, 9));
        x.set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, static_cast<void*>(sums.data()));
        ASSERT_EQ(x.find(), CUBLAS_STATUS_SUCCESS);
        ASSERT_EQ(x.multiply(beta), CUBLAS_STATUS_SUCCESS);
        const std::vector<float> stored = sums.values(), d = x.d.values();
        for (int64_t j = 0; j < kN; ++j) {
            double exact = 0;
            for (int64_t k = 0; k < kK; ++k) {
                exact += double{__bfloat162float(__float2bfloat16(x.b_values[static_cast<size_t>(k * kN + j)]))};
            }
            EXPECT_NEAR(stored[static_cast<size_t>(j)], exact, 1e-5) << "overwritten, whatever beta is";
            for (int64_t i = 0; i < kM; ++i) {
                EXPECT_NEAR(d[static_cast<size_t>(j * kM + i)], beta + x.sum(i, j), 1e-5);
            }
        }
    }
}

TEST(CublasLtEpilogues, GeluGradientIsTakenAtTheAuxiliaryMatrix) {
    Problem x(CUBLASLT_EPILOGUE_DGELU, CUDA_R_16BF);
    x.set_aux(x.at.data(), kM);
    ASSERT_EQ(x.find(), CUBLAS_STATUS_SUCCESS);
    ASSERT_EQ(x.multiply(), CUBLAS_STATUS_SUCCESS);
    const std::vector<float> raw = x.d.values();
    const auto gelu = [](double v) {
        return 0.5 * v * (1 + std::tanh(0.79788456080286536 * (v + 0.044715 * v * v * v)));
    };
    for (int64_t j = 0; j < kN; ++j) {
        for (int64_t i = 0; i < kM; ++i) {
            const auto at = static_cast<size_t>(j * kM + i);
            const double v = __bfloat162float(__float2bfloat16(x.at_values[at])), h = 1e-5;
            const double exact = x.sum(i, j) * (gelu(v + h) - gelu(v - h)) / (2 * h);
            __nv_bfloat16 stored;
            std::memcpy(&stored, reinterpret_cast<const char*>(raw.data()) + 2 * at, 2);
            EXPECT_NEAR(__bfloat162float(stored), exact, std::abs(exact) / 256 + 1e-6);
        }
    }
}

/// Where an algorithm is looked for, and not only where it runs.
TEST(CublasLtEpilogues, WhatTheLibraryDoesNotTakeIsRefused) {
    const DeviceBuffer<float> sums(kN);
    {
        Problem x(CUBLASLT_EPILOGUE_BGRADB, CUDA_R_32F);
        EXPECT_EQ(x.find(), CUBLAS_STATUS_INVALID_VALUE) << "no place for the sums";
        x.set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, static_cast<void*>(sums.data()));
        x.set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, CUDA_R_16BF);
        EXPECT_EQ(x.find(), CUBLAS_STATUS_NOT_SUPPORTED) << "sums are of D's type";
        x.set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, CUDA_R_32F);
        EXPECT_EQ(x.find(), CUBLAS_STATUS_SUCCESS);
        x.set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, static_cast<void*>(sums.data() + 1));
        EXPECT_EQ(x.multiply(), CUBLAS_STATUS_INVALID_VALUE) << "past the end";
    }
    Problem x(CUBLASLT_EPILOGUE_DGELU, CUDA_R_16BF);
    EXPECT_EQ(x.find(), CUBLAS_STATUS_INVALID_VALUE) << "no auxiliary matrix";
    x.set_aux(x.at.data(), kM - 8);
    EXPECT_EQ(x.find(), CUBLAS_STATUS_INVALID_VALUE) << "columns are longer";
    x.set_aux(x.at.data(), kM + 4);
    EXPECT_EQ(x.find(), CUBLAS_STATUS_INVALID_VALUE) << "the leading dimension is no multiple of 8";
    x.set_aux(x.at.data() + 4, kM);
    EXPECT_EQ(x.find(), CUBLAS_STATUS_INVALID_VALUE) << "aligned to 8 bytes";
    x.set_aux(x.at.data(), kM);
    ASSERT_EQ(x.find(), CUBLAS_STATUS_SUCCESS);
    x.set_aux(x.at.data() + 8, kM);
    EXPECT_EQ(x.multiply(), CUBLAS_STATUS_INVALID_VALUE) << "past the end";
    Problem fp32(CUBLASLT_EPILOGUE_DGELU, CUDA_R_32F);
    fp32.set_aux(x.at.data(), kM);
    EXPECT_EQ(fp32.find(), CUBLAS_STATUS_NOT_SUPPORTED);
    Problem both(static_cast<cublasLtEpilogue_t>(CUBLASLT_EPILOGUE_BGRADB | CUBLASLT_EPILOGUE_BIAS), CUDA_R_32F);
    EXPECT_EQ(both.find(), CUBLAS_STATUS_NOT_SUPPORTED) << "no such epilogue";
}

TEST(CublasLtEpilogues, SomeCardsHaveNoAlgorithm) {
    cuda_on_cpu::set_machine({.devices = {{.backward_epilogues = false}}});
    Problem x(CUBLASLT_EPILOGUE_DGELU, CUDA_R_16BF), plain(CUBLASLT_EPILOGUE_DEFAULT, CUDA_R_16BF);
    x.set_aux(x.at.data(), kM);
    EXPECT_EQ(x.find(), CUBLAS_STATUS_NOT_SUPPORTED);
    EXPECT_EQ(plain.find(), CUBLAS_STATUS_SUCCESS);
    cuda_on_cpu::set_machine({});
}

// ---- algorithms ---------------------------------------------------------------------------------------------------

TEST(CublasLtAlgorithms, DifferInTheirBits) {
    Problem x(CUBLASLT_EPILOGUE_DEFAULT, CUDA_R_32F);
    ASSERT_EQ(x.find(8), CUBLAS_STATUS_SUCCESS);
    ASSERT_EQ(x.found.size(), 4u);
    std::set<std::vector<float>> results;
    for (size_t algorithm = 0; algorithm < 4; ++algorithm) {
        ASSERT_EQ(x.multiply(0, algorithm), CUBLAS_STATUS_SUCCESS);
        results.insert(x.d.values());
    }
    EXPECT_EQ(results.size(), 4u);
}

TEST(CublasLtAlgorithms, AreCheckedAgainstTheirProblem) {
    Problem x(CUBLASLT_EPILOGUE_DEFAULT, CUDA_R_32F), other(CUBLASLT_EPILOGUE_DEFAULT, CUDA_R_32F, 2 * kM);
    ASSERT_EQ(x.find(2), CUBLAS_STATUS_SUCCESS);
    cublasLtMatmulHeuristicResult_t result{};
    const auto check = [&result](const Problem& problem, const cublasLtMatmulAlgo_t& algorithm) {
        return cublasLtMatmulAlgoCheck(problem.handle, problem.description, problem.a_layout, problem.b_layout,
                                       problem.d_layout, problem.d_layout, &algorithm, &result);
    };
    EXPECT_EQ(check(x, x.found[1].algo), CUBLAS_STATUS_SUCCESS);
    EXPECT_EQ(result.workspaceSize, x.found[1].workspaceSize);
    EXPECT_EQ(check(other, x.found[1].algo), CUBLAS_STATUS_INVALID_VALUE);
    EXPECT_EQ(check(x, cublasLtMatmulAlgo_t{}), CUBLAS_STATUS_INVALID_VALUE);
}

/// The algorithm that fastest() finds, as a place in the library's list.
size_t fastest_of(const std::vector<double>& milliseconds) {
    cuda_on_cpu::set_algorithm_times(milliseconds);
    const PreparedMatmuls matmuls(/*multiprocessors=*/1);
    const GemmShape shape = {.m = kM, .n = kN, .k = kK, .transpose_b = true, .input = DType::BF16};
    Problem x(CUBLASLT_EPILOGUE_DEFAULT, CUDA_R_32F);
    const auto bytes = static_cast<int64_t>(x.workspace.count());
    const GemmAlgorithm found = matmuls.fastest(
        matmuls.key_of(shape, bytes),
        {.d = x.d.data(), .a = x.a.data(), .b = x.b.data(), .workspace = x.workspace.data(), .workspace_bytes = bytes},
        nullptr);
    cuda_on_cpu::set_algorithm_times({});
    EXPECT_EQ(x.find(8), CUBLAS_STATUS_SUCCESS);
    for (size_t i = 0; i < x.found.size(); ++i) {
        if (std::equal(found.words.begin(), found.words.end(), x.found[i].algo.data)) return i;
    }
    return x.found.size();
}

/// By times that are far above what the executor really takes.
TEST(PreparedMatmuls, TakeTheFastestWhereTheFirstIsNotWithinThreePercent) {
    EXPECT_EQ(fastest_of({10000, 20000, 20000, 20000}), 0u);
    EXPECT_EQ(fastest_of({10000, 9800, 20000, 9900}), 0u);
    EXPECT_EQ(fastest_of({10000, 9600, 20000, 20000}), 1u);
    EXPECT_EQ(fastest_of({10000, 9600, 5000, 5100}), 2u);
}

}  // namespace
}  // namespace llmc::cuda
