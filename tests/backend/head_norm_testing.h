// Operands of one forward and one backward call of the norm of query and key heads, for tests of either backend.
#pragma once

#include "tests/backend/backend_testing.h"

#include <spdlog/fmt/fmt.h>

#include <string>
#include <vector>

namespace llmc {

const AttentionShape kHeadNormShapes[] = {{1, 1, 1, 1, 4},   {2, 13, 3, 3, 8},   {1, 70, 6, 2, 10},
                                          {3, 21, 2, 1, 64}, {1, 40, 4, 2, 128}, {1, 5, 2, 1, 33}};

struct HeadNormCase {
    static constexpr float kEpsilon = 1e-6f;

    HeadNormCase(DType dtype, const AttentionShape& s)
        : shape(s),
          qkv(random_buffer(dtype, s.B * s.T, s.qkv_columns(), 2, 1)),
          d_out(random_buffer(dtype, s.B * s.T, s.qkv_columns(), 1, 2)),
          q_weight(random_buffer(dtype, s.HD, 1, 1, 3)),
          k_weight(random_buffer(dtype, s.HD, 1, 1, 4)),
          out(dtype, s.B * s.T, s.qkv_columns()),
          rstd(DType::F32, s.B * s.T, s.NH + s.NKV),
          d_qkv(dtype, s.B * s.T, s.qkv_columns()),
          d_q_weight(DType::F32, s.HD),
          d_k_weight(DType::F32, s.HD),
          workspace(DType::U8, 1 << 20) {}
    /// The same values in fp32.
    explicit HeadNormCase(const HeadNormCase& other) : HeadNormCase(DType::F32, other.shape) {
        qkv.set(other.qkv.values());
        d_out.set(other.d_out.values());
        q_weight.set(other.q_weight.values());
        k_weight.set(other.k_weight.values());
    }

    template <typename On>
    void run(Backend& backend, On on, bool in_place = false, bool adds = false) const {
        const int64_t N = shape.B * shape.T, bytes = backend.head_norm_backward_workspace(N, shape.HD);
        CHECK(bytes <= workspace.count(), bytes);
        backend.head_norm_forward(on(out), on(rstd), on(qkv), on(q_weight), on(k_weight), shape, kEpsilon);
        backend.head_norm_backward(on(in_place ? d_out : d_qkv), on(d_q_weight), on(d_k_weight), adds, on(d_out),
                                   on(qkv), on(rstd), on(q_weight), on(k_weight), shape, on(workspace));
    }
    std::vector<std::byte> results() const { return joined({&out, &rstd, &d_qkv, &d_q_weight, &d_k_weight}); }
    std::string name() const {
        return fmt::format("{} B={} T={} NH={} NKV={} HD={}", name_of(qkv.dtype()), shape.B, shape.T, shape.NH,
                           shape.NKV, shape.HD);
    }

    AttentionShape shape;
    TestBuffer qkv, d_out, q_weight, k_weight, out, rstd, d_qkv, d_q_weight, d_k_weight, workspace;
};

}  // namespace llmc
