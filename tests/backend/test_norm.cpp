// LayerNorm and RMSNorm against plain loops, and their gradients against finite differences.
#include "tests/backend/backend_testing.h"

namespace llmc {
namespace {

constexpr float kEpsilon = 1e-5f;

struct Forward {
    Values out, mean, rstd;
};

/// LayerNorm, or RMSNorm if there is no bias.
template <typename Real>
Forward forward(const Values& x, const Values& weight, const Values& bias) {
    const size_t C = weight.size(), N = x.size() / C;
    Forward result{Values(N * C), Values(N), Values(N)};
    for (size_t n = 0; n < N; ++n) {
        Real mean = 0, variance = 0;
        for (size_t c = 0; c < C && !bias.empty(); ++c) mean += static_cast<Real>(x[n * C + c]);
        mean /= static_cast<Real>(C);
        for (size_t c = 0; c < C; ++c) {
            const Real centred = static_cast<Real>(x[n * C + c]) - mean;
            variance += centred * centred;
        }
        const Real rstd = 1 / std::sqrt(variance / static_cast<Real>(C) + static_cast<Real>(kEpsilon));
        for (size_t c = 0; c < C; ++c)
            result.out[n * C + c] = (static_cast<Real>(x[n * C + c]) - mean) * rstd * static_cast<Real>(weight[c]) +
                                    static_cast<Real>(bias.empty() ? 0 : bias[c]);
        result.mean[n] = mean;
        result.rstd[n] = rstd;
    }
    return result;
}

struct Gradients {
    Values d_x, d_weight, d_bias;  ///< Start with what they are added to.
};

template <typename Real>
Gradients backward(const Gradients& before, const Values& d_out, const Values& x, const Values& mean,
                   const Values& rstd, const Values& weight, bool centred) {
    const size_t C = weight.size(), N = x.size() / C;
    Gradients result = before;
    std::vector<Real> d_weight(C, 0), d_bias(C, 0);
    for (size_t n = 0; n < N; ++n) {
        const Real scale = rstd[n], center = centred ? mean[n] : 0;
        Real mean_g = 0, mean_gh = 0;
        for (size_t c = 0; c < C; ++c) {
            const Real d = d_out[n * C + c], h = (static_cast<Real>(x[n * C + c]) - center) * scale;
            d_weight[c] += d * h;
            d_bias[c] += d;
            mean_g += d * static_cast<Real>(weight[c]);
            mean_gh += d * static_cast<Real>(weight[c]) * h;
        }
        mean_g = centred ? mean_g / static_cast<Real>(C) : 0;
        mean_gh /= static_cast<Real>(C);
        for (size_t c = 0; c < C; ++c) {
            const Real h = (static_cast<Real>(x[n * C + c]) - center) * scale;
            const Real g = static_cast<Real>(d_out[n * C + c]) * static_cast<Real>(weight[c]);
            result.d_x[n * C + c] += scale * (g - mean_g - h * mean_gh);
        }
    }
    for (size_t c = 0; c < C; ++c) {
        result.d_weight[c] += d_weight[c];
        if (centred) result.d_bias[c] += d_bias[c];
    }
    return result;
}

/// Operands of one call.
struct Case {
    Case(DType dtype, int64_t N, int64_t C, double offset = 0.5)
        : x(random_buffer(dtype, N, C, 2, 1)), d_out(random_buffer(dtype, N, C, 1, 2)),
          weight(random_buffer(dtype, C, 1, 1, 3)), bias(random_buffer(dtype, C, 1, 1, 4)), out(dtype, N, C),
          mean(DType::F32, N), rstd(DType::F32, N) {
        Values shifted = x.values();
        for (double& value : shifted) value += offset;
        x.set(shifted);
    }
    Buffer x, d_out, weight, bias, out, mean, rstd;
};

/// One backward call on gradients that start with random values.
Gradients run_backward(Backend& backend, Case& c, bool accumulate, bool centred, const Gradients& before,
                       const Gradients& plain, const Gradients& exact) {
    const Tensor x = c.x;
    const int64_t N = x.shape[0], C = x.shape[1];
    const Buffer d_x(c.x.dtype(), N, C), d_weight(DType::F32, C, 1, before.d_weight);
    const Buffer d_bias(DType::F32, C, 1, before.d_bias);
    Buffer(d_x).intact();
    if (accumulate) const_cast<Buffer&>(d_x).set(before.d_x);
    const Buffer workspace = workspace_buffer(backend.norm_backward_workspace(N, C));
    if (centred)
        backend.layernorm_backward(d_x, accumulate, d_weight, d_bias, c.d_out, c.x, c.mean, c.rstd, c.weight, workspace);
    else
        backend.rmsnorm_backward(d_x, accumulate, d_weight, c.d_out, c.x, c.rstd, c.weight, workspace);
    expect_as_good_as_plain(d_x, plain.d_x, exact.d_x);
    expect_as_good_as_plain(d_weight, plain.d_weight, exact.d_weight);
    expect_as_good_as_plain(d_bias, plain.d_bias, exact.d_bias);
    EXPECT_TRUE(workspace.intact());
    return {};
}

}  // namespace
}  // namespace llmc
