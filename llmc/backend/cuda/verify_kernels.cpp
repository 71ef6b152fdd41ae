// Kernels of a device's own are compared with the portable ones before they are used: what they rely on (descriptors,
// swizzles, barriers, which instructions the driver took) can be wrong in ways that give plausible numbers.
#include "llmc/backend/cuda/cuda_backend.h"
#include "llmc/backend/cuda/gemm_hopper.h"
#include "llmc/backend/cuda/hopper_rope.h"
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

/// Products of a weight by the library and by our own kernel, with what that takes along.
class Products {
  public:
    explicit Products(CudaBackend& backend) : backend_(backend) {
        workspace_ = make(DType::U8, 1, backend.matmul_workspace(DType::BF16, kN, kOC, kIC));
        for (const Tensor& tensor : {x_, weight_, bias_, d_out_, pre_})
            backend.copy_to_device(tensor, some_numbers(tensor.count()).data());
        std::vector<float> angles;
        for (const bf16 number : some_numbers(table_.count())) angles.push_back(to_float(number));
        backend.copy_to_device(table_, angles.data());
    }
    ~Products() {
        for (const Tensor& tensor :
             {x_, weight_, bias_, d_out_, pre_, out_, d_x_, activated_, d_weight_, table_, workspace_})
            backend_.release(tensor.data);
    }
    Products(const Products&) = delete;

    /// Whether the products are the same, but for rounding, and the same to the bit whatever our own kernel takes
    /// along; and that is what the activation's own kernel makes of them.
    bool agree_on_forward() {
        backend_.matmul_forward(out_, x_, weight_, bias_, d_out_, workspace_);
        const std::vector<float> by_library = numbers(out_);
        HopperProduct product = {.out = out_.data,
                                 .activated = data(activated_),
                                 .left = data(x_),
                                 .right = data(weight_),
                                 .bias = data(bias_),
                                 .residual = d_out_.data,
                                 .pre = nullptr,
                                 .rows = kN,
                                 .columns = kOC,
                                 .depth = kIC};
        bool same = agree(by_library, own(out_, product, HopperKind::Forward, Applied::Nothing));
        product.residual = nullptr;
        const std::vector<float> plain = own(out_, product, HopperKind::Forward, Applied::Nothing);
        for (const Applied applied : {Applied::Gelu, Applied::Swiglu}) {
            same = same && own(out_, product, HopperKind::Forward, applied) == plain;
            const bool is_gelu = applied == Applied::Gelu;
            const Tensor activated(DType::BF16, activated_.data, kN, is_gelu ? kOC : kOC / 2);
            const std::vector<float> taken_along = numbers(activated);
            is_gelu ? backend_.gelu_forward(activated, out_) : backend_.swiglu_forward(activated, out_);
            same = same && numbers(activated) == taken_along;
        }
        return same;
    }
    /// Whether heads come out as rope() turns them.
    bool agree_on_rope() {
        bool same = true;
        for (const int HD : {64, 128}) {
            const AttentionShape shape = {.B = 2, .T = kN / 2, .NH = 256 / HD, .NKV = 128 / HD, .HD = HD};
            const Tensor qkv(DType::BF16, out_.data, kN, shape.qkv_columns()),
                table(DType::F32, table_.data, shape.T, HD);
            HopperProduct product = {.out = qkv.data,
                                     .activated = nullptr,
                                     .left = data(x_),
                                     .right = data(weight_),
                                     .bias = data(bias_),
                                     .residual = nullptr,
                                     .pre = nullptr,
                                     .rows = kN,
                                     .columns = static_cast<int>(shape.qkv_columns()),
                                     .depth = kIC};
            product.rope = hopper_rope({table, shape, 0});
            const std::vector<float> taken_along = own(qkv, product, HopperKind::Forward, Applied::Rope);
            own(qkv, product, HopperKind::Forward, Applied::Nothing);
            backend_.rope(qkv, table, shape, 0, /*inverse=*/false);
            same = same && numbers(qkv) == taken_along;
        }
        return same;
    }
    bool agree_on_weight_gradients() {
        backend_.matmul_backward_weight(d_weight_, {}, /*adds=*/false, d_out_, x_, workspace_);
        const std::vector<float> by_library = numbers(d_weight_);
        const HopperProduct product = {.out = d_weight_.data,
                                       .activated = nullptr,
                                       .left = data(d_out_),
                                       .right = data(x_),
                                       .bias = nullptr,
                                       .residual = nullptr,
                                       .pre = nullptr,
                                       .rows = kOC,
                                       .columns = kIC,
                                       .depth = kN};
        return agree(by_library, own(d_weight_, product, HopperKind::WeightGradient, Applied::Nothing));
    }
    bool agree_on_input_gradients() {
        backend_.matmul_backward_input(d_x_, d_out_, weight_, workspace_);
        const std::vector<float> by_library = numbers(d_x_);
        const HopperProduct product = {.out = d_x_.data,
                                       .activated = data(activated_),
                                       .left = data(d_out_),
                                       .right = data(weight_),
                                       .bias = nullptr,
                                       .residual = nullptr,
                                       .pre = data(pre_),
                                       .rows = kN,
                                       .columns = kIC,
                                       .depth = kOC};
        bool same = agree(by_library, own(d_x_, product, HopperKind::InputGradient, Applied::Nothing));
        for (const Applied applied : {Applied::GeluGradient, Applied::SwigluGradient}) {
            const bool is_gelu = applied == Applied::GeluGradient;
            const int64_t columns = is_gelu ? kIC : 2 * kIC;
            const Tensor d_pre(DType::BF16, activated_.data, kN, columns), pre(DType::BF16, pre_.data, kN, columns);
            const std::vector<float> taken_along = own(d_pre, product, HopperKind::InputGradient, applied);
            is_gelu ? backend_.gelu_backward(d_pre, d_x_, pre) : backend_.swiglu_backward(d_pre, d_x_, pre);
            same = same && numbers(d_pre) == taken_along;
        }
        return same;
    }

  private:
    /// More than one tile in both directions, and than the stages of its ring, with remainders.
    static constexpr int kN = 200, kOC = 528, kIC = 328;
    static constexpr int kBlocks = 3;  ///< Fewer than tiles.

    static __nv_bfloat16* data(const Tensor& tensor) { return static_cast<__nv_bfloat16*>(tensor.data); }
    Tensor make(DType dtype, int64_t rows, int64_t columns) {
        Tensor tensor(dtype, nullptr, rows, columns);
        tensor.data = backend_.allocate(tensor.bytes(), "the comparison of matrix products");
        return tensor;
    }
    /// What it makes of a result.
    std::vector<float> own(const Tensor& result, const HopperProduct& product, HopperKind kind, Applied applied) {
        gemm_hopper(product, kind, applied, kBlocks, static_cast<cudaStream_t>(backend_.stream()));
        return numbers(result);
    }
    std::vector<float> numbers(const Tensor& tensor) {
        std::vector<float> values(static_cast<size_t>(tensor.count()));
        if (tensor.dtype == DType::F32) {
            backend_.copy_to_host(values.data(), tensor);
            return values;
        }
        std::vector<bf16> all(values.size());
        backend_.copy_to_host(all.data(), tensor);
        for (size_t i = 0; i < all.size(); ++i) values[i] = to_float(all[i]);
        return values;
    }

    CudaBackend& backend_;
    Tensor x_ = make(DType::BF16, kN, kIC), weight_ = make(DType::BF16, kOC, kIC), bias_ = make(DType::BF16, 1, kOC),
           d_out_ = make(DType::BF16, kN, kOC), pre_ = make(DType::BF16, kN, 2 * kIC),
           out_ = make(DType::BF16, kN, kOC), d_x_ = make(DType::BF16, kN, kIC),
           activated_ = make(DType::BF16, kN, 2 * kIC), d_weight_ = make(DType::F32, kOC, kIC),
           table_ = make(DType::F32, kN / 2, 128), workspace_;
};

}  // namespace

bool CudaBackend::own_gemms_agree() {
    Products products(*this);
    return products.agree_on_forward() && products.agree_on_rope() && products.agree_on_input_gradients() &&
           products.agree_on_weight_gradients();
}

}  // namespace llmc::cuda
