// What a backend does unless it can do better.
#include "llmc/backend/backend.h"

#include "llmc/base/check.h"
#include "llmc/base/nf4.h"
#include "llmc/base/units.h"

#include <algorithm>
#include <chrono>
#include <cmath>

namespace llmc {

CopyTicket Backend::copy_out(void* host, Tensor x) {
    copy_to_host(host, x);
    return 0;
}

CopyTicket Backend::copy_in(Tensor out, const void* host) {
    copy_to_device(out, host);
    return 0;
}

void Backend::wait_copy(CopyTicket) {}

float AttentionShape::score_scale() const { return scale != 0 ? scale : 1.0f / std::sqrt(static_cast<float>(HD)); }

int64_t AttentionShape::kv_heads_in_place() const {
    constexpr int64_t kBusyRows = 1 << 17;                      // A thousand tiles of 128.
    const int64_t within_a_quarter = (NH + 2 * NKV) / (4 * 2);  // Of qkv: of each head, keys and values wait.
    const int64_t busy = kBusyRows / std::max<int64_t>(1, B * T);
    const int64_t most = std::clamp<int64_t>(std::min(within_a_quarter, busy), 1, NKV);
    return ceil_div(NKV, ceil_div(NKV, most));
}

void Nf4Operands::check(Tensor out) const {
    const int64_t n = out.count();
    CHECK(out.dtype == DType::F32 || out.dtype == DType::BF16, name_of(out.dtype));
    CHECK(codes.dtype == DType::U8 && codes.count() == nf4_bytes(n), codes.count(), n);
    CHECK(absmax.count() == nf4_blocks(n), absmax.count(), n);
    if (absmax.dtype == DType::F32) return;
    CHECK(absmax.dtype == DType::U8, name_of(absmax.dtype));
    CHECK(nested_absmax.dtype == DType::F32 && nested_absmax.count() == nf4_nested_blocks(n), nested_absmax.count(), n);
    CHECK(offset.dtype == DType::F32 && offset.count() == 1, offset.count());
}

int64_t Backend::attention_cached_workspace(const AttentionShape&, int64_t) const { return 0; }

std::string Backend::why_unsupported(const AttentionShape&) const { return ""; }

std::string Backend::why_no_hopper() const { return "it is no GPU"; }

TimeMark Backend::mark() {
    const auto now = std::chrono::steady_clock::now().time_since_epoch();
    return {std::chrono::duration<double>(now).count(), nullptr};
}

double Backend::seconds_between(const TimeMark& first, const TimeMark& second) {
    return second.seconds - first.seconds;
}

void Backend::repeat(const void*, const std::function<void()>& work) { work(); }

void Backend::forget(const void*) {}

FusionAnswer Backend::fuses(const FusionQuery&) const { return {}; }

void Backend::activation_and_weight_gradient(const ActivationAndWeightGradient&) { CHECK(false, "not fused here"); }

void Backend::input_gradient_and_activation(ActivationFunction, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor) {
    CHECK(false, "not fused here");
}

void Backend::weight_and_bias_gradient(Tensor, Tensor, bool, Tensor, Tensor, Tensor) { CHECK(false, "not fused here"); }

void Backend::matmul_and_activation(ActivationFunction, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor) {
    CHECK(false, "not fused here");
}

void Backend::rope_rows(Tensor qkv, const RopeRows& rows, bool inverse) {
    const int64_t T = rows.shape.T, count = qkv.shape[0];
    AttentionShape part = rows.shape;
    if (rows.first_row % T == 0 && count % T == 0) {
        part.B = count / T;
        return rope(qkv, rows.table, part, rows.first, inverse);
    }
    for (int64_t done = 0; done < count; done += part.T) {
        const int64_t slot = (rows.first_row + done) % T;
        part.B = 1, part.T = std::min(T - slot, count - done);
        if (part.documents) part.documents = rows.shape.documents.row_range(done, part.T);
        FirstPosition first = rows.first;
        first.offset += slot;
        rope(qkv.row_range(done, part.T), rows.table, part, first, inverse);
    }
}

void Backend::matmul_and_rope(Tensor out, Tensor x, Tensor weight, Tensor bias, Tensor workspace,
                              const RopeRows& rows) {
    matmul_forward(out, x, weight, bias, {}, workspace);
    rope_rows(out, rows, /*inverse=*/false);
}

void Backend::set_gemm_algorithms(const GemmAlgorithms&) { CHECK(false, "products have one algorithm each"); }

GemmAlgorithms Backend::time_gemms(const std::vector<GemmQuery>&, const std::vector<GemmAlgorithm>&) { return {}; }

}  // namespace llmc
