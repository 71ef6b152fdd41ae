// Kernels of a device's own are compared with the portable ones before they are used: what they rely on (descriptors,
// swizzles, barriers, which instructions the driver took) can be wrong in ways that give plausible numbers.
#include "llmc/backend/cuda/cuda_backend.h"
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

}  // namespace llmc::cuda
