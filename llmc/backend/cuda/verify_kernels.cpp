// Kernels of a device's own are compared with the portable ones before they are used: what they rely on (descriptors,
// swizzles, barriers, which instructions the driver took) can be wrong in ways that give plausible numbers.
#include "llmc/backend/cuda/cuda_backend.h"
#include "llmc/backend/cuda/gemm_hopper.h"
#include "llmc/base/dtype.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace llmc::cuda {

namespace {

/// Heads that share keys and ones that do not, more than one tile of queries and of keys, rows that fill neither, a
/// window, two documents: between them every kernel for a head size.
const AttentionShape kCases[] = {{.B = 1, .T = 200, .NH = 2, .NKV = 1},
                                 {.B = 1, .T = 140, .NH = 1, .NKV = 1, .window = 70}};
constexpr int32_t kSecondDocument = 77;  ///< Where it begins, where there are windows.

/// Results may differ by so much of the largest: a few roundings to bf16, on the way and at the end.
constexpr float kTolerance = 0x1p-5f;

/// Numbers between -1 and 1, the same everywhere.
std::vector<bf16> some_numbers(int64_t count) {
    std::vector<bf16> numbers;
    uint32_t state = 1;
    for (int64_t i = 0; i < count; ++i) {
        state = state * 1664525u + 1013904223u;
        numbers.push_back(to_bf16(static_cast<float>(static_cast<int32_t>(state)) * 0x1p-31f));
    }
    return numbers;
}

/// The operands of both passes, and what the passes give.
class Case {
  public:
    Case(CudaBackend& backend, const AttentionShape& shape) : backend_(backend), shape_(shape) {
        const int64_t N = shape.B * shape.T, columns = shape.NH * shape.HD;
        qkv_ = make(DType::BF16, N, shape.qkv_columns());
        d_out_ = make(DType::BF16, N, columns);
        out_ = make(DType::BF16, N, columns);
        d_qkv_ = make(DType::BF16, N, shape.qkv_columns());
        lse_ = make(DType::F32, N, shape.NH);
        const int64_t workspace = backend.attention_backward_workspace(DType::BF16, shape, /*in_place=*/false);
        workspace_ = make(DType::F32, 1, workspace / int64_t{sizeof(float)});
        for (const Tensor& tensor : {qkv_, d_out_}) backend.copy_to_device(tensor, some_numbers(tensor.count()).data());
        if (shape.window == 0) return;
        std::vector<int32_t> starts(static_cast<size_t>(N), 0);
        std::fill(starts.begin() + kSecondDocument, starts.end(), kSecondDocument);
        shape_.documents = make(DType::I32, N, 1);
        backend.copy_to_device(shape_.documents, starts.data());
    }
    ~Case() {
        for (const Tensor& tensor : {qkv_, d_out_, out_, d_qkv_, lse_, workspace_, shape_.documents}) {
            backend_.release(tensor.data);
        }
    }
    Case(const Case&) = delete;

    /// out, the gradients of queries, keys and values, each by itself, and the log-sum-exps.
    std::vector<std::vector<float>> run() {
        backend_.attention_forward(out_, lse_, qkv_, shape_, {});
        backend_.attention_backward(d_qkv_, d_out_, qkv_, out_, lse_, shape_, workspace_);
        std::vector<float> lse(static_cast<size_t>(lse_.count()));
        backend_.copy_to_host(lse.data(), lse_);
        const int64_t queries = shape_.NH * shape_.HD, keys = shape_.NKV * shape_.HD;
        return {columns(out_, 0, queries), columns(d_qkv_, 0, queries), columns(d_qkv_, queries, keys),
                columns(d_qkv_, queries + keys, keys), lse};
    }

  private:
    Tensor make(DType dtype, int64_t rows, int64_t columns) {
        Tensor tensor(dtype, nullptr, rows, columns);
        tensor.data = backend_.allocate(tensor.bytes(), "the comparison of attention's kernels");
        return tensor;
    }
    std::vector<float> columns(const Tensor& tensor, int64_t first, int64_t count) {
        std::vector<bf16> all(static_cast<size_t>(tensor.count()));
        backend_.copy_to_host(all.data(), tensor);
        std::vector<float> values;
        for (int64_t i = 0; i < tensor.count(); ++i) {
            const int64_t column = i % tensor.shape[1];
            if (column >= first && column < first + count) values.push_back(to_float(all[static_cast<size_t>(i)]));
        }
        return values;
    }

    CudaBackend& backend_;
    AttentionShape shape_;
    Tensor qkv_, d_out_, out_, d_qkv_, lse_, workspace_;
};

bool agree(const std::vector<float>& a, const std::vector<float>& b) {
    float largest = 0, difference = 0;
    for (size_t i = 0; i < a.size(); ++i) {
        if (!std::isfinite(a[i]) || !std::isfinite(b[i])) return false;
        largest = std::max(largest, std::abs(a[i]));
        difference = std::max(difference, std::abs(a[i] - b[i]));
    }
    return difference <= kTolerance * largest;
}

}  // namespace

bool CudaBackend::hopper_kernels_agree(int64_t HD) {
    const bool before = hopper_;
    bool same = true;
    for (AttentionShape shape : kCases) {
        shape.HD = HD;
        Case one(*this, shape);
        hopper_ = false;
        const auto portable = one.run();
        hopper_ = true;
        const auto own = one.run();
        for (size_t i = 0; i < portable.size(); ++i) same = same && agree(portable[i], own[i]);
    }
    hopper_ = before;
    return same;
}

namespace {

/// One forward product by the library and by our own kernel, with what that takes along.
class Product {
  public:
    /// More than one tile, and than the stages of its ring, with remainders.
    static constexpr int64_t kN = 200, kOC = 528, kIC = 328;

    explicit Product(CudaBackend& backend) : backend_(backend) {
        workspace_ = make(DType::U8, 1, backend.matmul_workspace(DType::BF16, kN, kOC, kIC));
        for (const Tensor& tensor : {x_, weight_, bias_, residual_})
            backend.copy_to_device(tensor, some_numbers(tensor.count()).data());
    }
    ~Product() {
        for (const Tensor& tensor : {x_, weight_, bias_, residual_, out_, activated_, workspace_})
            backend_.release(tensor.data);
    }
    Product(const Product&) = delete;

    std::vector<float> by_library() {
        backend_.matmul_forward(out_, x_, weight_, bias_, residual_, workspace_);
        return numbers(out_);
    }
    std::vector<float> own(Applied applied, bool with_residual) {
        const auto data = [](const Tensor& tensor) { return static_cast<__nv_bfloat16*>(tensor.data); };
        gemm_hopper({.out = data(out_),
                     .activated = data(activated_),
                     .x = data(x_),
                     .weight = data(weight_),
                     .bias = data(bias_),
                     .residual = with_residual ? data(residual_) : nullptr,
                     .N = kN,
                     .OC = kOC,
                     .IC = kIC},
                    applied, kBlocks, static_cast<cudaStream_t>(backend_.stream()));
        return numbers(out_);
    }
    /// Whether what own() has applied to out is what the activation's own kernel makes of that, to the bit.
    bool activates(Applied applied) {
        const bool is_gelu = applied == Applied::Gelu;
        const Tensor activated(DType::BF16, activated_.data, kN, is_gelu ? kOC : kOC / 2);
        const std::vector<float> taken_along = numbers(activated);
        is_gelu ? backend_.gelu_forward(activated, out_) : backend_.swiglu_forward(activated, out_);
        return numbers(activated) == taken_along;
    }

  private:
    static constexpr int kBlocks = 4;  ///< Fewer than tiles.

    Tensor make(DType dtype, int64_t rows, int64_t columns) {
        Tensor tensor(dtype, nullptr, rows, columns);
        tensor.data = backend_.allocate(tensor.bytes(), "the comparison of matrix products");
        return tensor;
    }
    std::vector<float> numbers(const Tensor& tensor) {
        std::vector<bf16> all(static_cast<size_t>(tensor.count()));
        backend_.copy_to_host(all.data(), tensor);
        std::vector<float> values;
        for (const bf16 value : all) values.push_back(to_float(value));
        return values;
    }

    CudaBackend& backend_;
    Tensor x_ = make(DType::BF16, kN, kIC), weight_ = make(DType::BF16, kOC, kIC), bias_ = make(DType::BF16, 1, kOC),
           residual_ = make(DType::BF16, kN, kOC), out_ = make(DType::BF16, kN, kOC),
           activated_ = make(DType::BF16, kN, kOC), workspace_;
};

}  // namespace

bool CudaBackend::own_gemms_agree() {
    Product product(*this);
    bool same = agree(product.by_library(), product.own(Applied::Nothing, /*with_residual=*/true));
    const std::vector<float> plain = product.own(Applied::Nothing, /*with_residual=*/false);
    for (const Applied applied : {Applied::Gelu, Applied::Swiglu})
        same = same && product.own(applied, /*with_residual=*/false) == plain && product.activates(applied);
    return same;
}

}  // namespace llmc::cuda
