// The stand-in for cuBLASLt against double loops, and what it refuses.
#include "tests/cuda_on_cpu/device_buffer.h"

#include <cublasLt.h>
#include <cuda_bf16.h>
#include <gtest/gtest.h>

#include <cmath>

namespace llmc::cuda {
namespace {

#define CUBLAS_OK(call) ASSERT_EQ(call, CUBLAS_STATUS_SUCCESS)

/// A product of column-major matrices: D (m x n) = op(A)·op(B) + beta·C, in place.
struct Case {
    bool transpose_a, transpose_b;
    cudaDataType_t input, output;
    float beta = 0.0f;
    cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
    int64_t m = 24, n = 40, k = 56;
    uint64_t workspace_limit = 1 << 20;
};

std::vector<char> encoded(const std::vector<double>& values, cudaDataType_t type) {
    std::vector<char> bytes(values.size() * (type == CUDA_R_32F ? 4 : 2));
    for (size_t i = 0; i < values.size(); ++i) {
        const auto value = static_cast<float>(values[i]);
        if (type == CUDA_R_32F)
            reinterpret_cast<float*>(bytes.data())[i] = value;
        else
            reinterpret_cast<__nv_bfloat16*>(bytes.data())[i] = __float2bfloat16(value);
    }
    return bytes;
}

double decoded(const std::vector<char>& bytes, size_t i, cudaDataType_t type) {
    if (type == CUDA_R_32F) return reinterpret_cast<const float*>(bytes.data())[i];
    return __bfloat162float(reinterpret_cast<const __nv_bfloat16*>(bytes.data())[i]);
}

std::vector<double> integers(int64_t count, int start) {
    std::vector<double> values(count);
    for (int64_t i = 0; i < count; ++i) values[i] = static_cast<double>((i * 5 + start) % 11 - 5);
    return values;
}

void expect_product(const Case& x) {
    const int64_t a_rows = x.transpose_a ? x.k : x.m, a_columns = x.transpose_a ? x.m : x.k;
    const int64_t b_rows = x.transpose_b ? x.n : x.k, b_columns = x.transpose_b ? x.k : x.n;
    const auto a = integers(x.m * x.k, 1), b = integers(x.k * x.n, 4), c = integers(x.m * x.n, 2),
               bias = integers(x.m, 3);
    const DeviceBuffer<char> a_device(encoded(a, x.input)), b_device(encoded(b, x.input));
    const DeviceBuffer<char> d_device(encoded(c, x.output)), bias_device(encoded(bias, x.output));
    const DeviceBuffer<char> workspace(x.workspace_limit + 256);

    cublasLtHandle_t handle;
    cublasLtMatmulDesc_t description;
    cublasLtMatrixLayout_t a_layout, b_layout, d_layout;
    cublasLtMatmulPreference_t preference;
    CUBLAS_OK(cublasLtCreate(&handle));
    CUBLAS_OK(cublasLtMatmulDescCreate(&description, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    const cublasOperation_t op_a = x.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N,
                            op_b = x.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N;
    const auto set = [&](cublasLtMatmulDescAttributes_t attribute, const auto& value) {
        ASSERT_EQ(cublasLtMatmulDescSetAttribute(description, attribute, &value, sizeof value), CUBLAS_STATUS_SUCCESS);
    };
    set(CUBLASLT_MATMUL_DESC_TRANSA, op_a);
    set(CUBLASLT_MATMUL_DESC_TRANSB, op_b);
    set(CUBLASLT_MATMUL_DESC_EPILOGUE, x.epilogue);
    set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, static_cast<void*>(bias_device.data()));
    CUBLAS_OK(cublasLtMatrixLayoutCreate(&a_layout, x.input, a_rows, a_columns, a_rows));
    CUBLAS_OK(cublasLtMatrixLayoutCreate(&b_layout, x.input, b_rows, b_columns, b_rows));
    CUBLAS_OK(cublasLtMatrixLayoutCreate(&d_layout, x.output, x.m, x.n, x.m));
    CUBLAS_OK(cublasLtMatmulPreferenceCreate(&preference));
    CUBLAS_OK(cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                                   &x.workspace_limit, sizeof x.workspace_limit));
    cublasLtMatmulHeuristicResult_t found;
    int count = 0;
    CUBLAS_OK(cublasLtMatmulAlgoGetHeuristic(handle, description, a_layout, b_layout, d_layout, d_layout, preference, 1,
                                             &found, &count));
    ASSERT_EQ(count, 1);
    EXPECT_LE(found.workspaceSize, x.workspace_limit);
    const float one = 1.0f;
    const auto multiply = [&](void* d, size_t workspace_bytes) {
        return cublasLtMatmul(handle, description, &one, a_device.data(), a_layout, b_device.data(), b_layout, &x.beta,
                              d, d_layout, d, d_layout, &found.algo, workspace.data(), workspace_bytes, nullptr);
    };
    if (found.workspaceSize > 0) {
        EXPECT_EQ(multiply(d_device.data(), found.workspaceSize - 1), CUBLAS_STATUS_INVALID_VALUE);
    }
    EXPECT_EQ(multiply(d_device.data() + 2, found.workspaceSize), CUBLAS_STATUS_INVALID_VALUE);  // Past the end.
    CUBLAS_OK(multiply(d_device.data(), found.workspaceSize));

    const std::vector<char> d = d_device.values();
    for (int64_t j = 0; j < x.n; ++j) {
        for (int64_t i = 0; i < x.m; ++i) {
            double sum = x.beta * c[j * x.m + i];
            for (int64_t k = 0; k < x.k; ++k) {
                sum += a[x.transpose_a ? i * x.k + k : k * x.m + i] * b[x.transpose_b ? k * x.n + j : j * x.k + k];
            }
            if (x.epilogue == CUBLASLT_EPILOGUE_BIAS) sum += bias[i];
            const double tolerance = x.output == CUDA_R_32F ? 0.0 : std::abs(sum) / 256;
            EXPECT_NEAR(decoded(d, j * x.m + i, x.output), sum, tolerance) << i << ", " << j;
        }
    }
    cublasLtMatmulPreferenceDestroy(preference);
    for (cublasLtMatrixLayout_t layout : {a_layout, b_layout, d_layout}) cublasLtMatrixLayoutDestroy(layout);
    cublasLtMatmulDescDestroy(description);
    cublasLtDestroy(handle);
}

TEST(CublasLt, Layouts) {
    for (const bool a : {false, true}) {
        for (const bool b : {false, true}) expect_product({a, b, CUDA_R_32F, CUDA_R_32F});
    }
}
TEST(CublasLt, Types) {
    expect_product({true, false, CUDA_R_16BF, CUDA_R_16BF});
    expect_product({false, true, CUDA_R_16BF, CUDA_R_32F, 1.0f});
}
TEST(CublasLt, Accumulates) { expect_product({true, false, CUDA_R_32F, CUDA_R_32F, 1.0f}); }
TEST(CublasLt, Bias) {
    expect_product({true, false, CUDA_R_32F, CUDA_R_32F, 0.0f, CUBLASLT_EPILOGUE_BIAS});
    expect_product({true, false, CUDA_R_16BF, CUDA_R_16BF, 1.0f, CUBLASLT_EPILOGUE_BIAS});
}
TEST(CublasLt, WithoutWorkspace) {
    Case x{true, false, CUDA_R_32F, CUDA_R_32F};
    x.workspace_limit = 0;
    expect_product(x);
}

TEST(CublasLt, RefusesShapesAndTypesThatDoNotFit) {
    cublasLtHandle_t handle;
    cublasLtMatmulDesc_t description;
    cublasLtMatmulPreference_t preference;
    CUBLAS_OK(cublasLtCreate(&handle));
    CUBLAS_OK(cublasLtMatmulDescCreate(&description, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    CUBLAS_OK(cublasLtMatmulPreferenceCreate(&preference));
    const auto status = [&](cudaDataType_t a_type, int64_t k, int64_t leading, cudaDataType_t d_type) {
        cublasLtMatrixLayout_t a, b, d;
        cublasLtMatrixLayoutCreate(&a, a_type, 16, 8, leading);
        cublasLtMatrixLayoutCreate(&b, a_type, k, 24, k);
        cublasLtMatrixLayoutCreate(&d, d_type, 16, 24, 16);
        cublasLtMatmulHeuristicResult_t found;
        int count = 0;
        const cublasStatus_t result =
            cublasLtMatmulAlgoGetHeuristic(handle, description, a, b, d, d, preference, 1, &found, &count);
        for (cublasLtMatrixLayout_t layout : {a, b, d}) cublasLtMatrixLayoutDestroy(layout);
        return result;
    };
    EXPECT_EQ(status(CUDA_R_32F, 8, 16, CUDA_R_32F), CUBLAS_STATUS_SUCCESS);
    EXPECT_EQ(status(CUDA_R_32F, 9, 16, CUDA_R_32F), CUBLAS_STATUS_INVALID_VALUE);
    EXPECT_EQ(status(CUDA_R_32F, 8, 15, CUDA_R_32F), CUBLAS_STATUS_INVALID_VALUE);
    EXPECT_EQ(status(CUDA_R_32F, 8, 16, CUDA_R_16BF), CUBLAS_STATUS_NOT_SUPPORTED);
    cublasLtMatmulPreferenceDestroy(preference);
    cublasLtMatmulDescDestroy(description);
    cublasLtDestroy(handle);
}

}  // namespace
}  // namespace llmc::cuda
