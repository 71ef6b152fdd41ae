// RMSNorm of query and key heads against plain loops, and its gradients against finite differences.
#include "tests/backend/head_norm_testing.h"

namespace llmc {
namespace {

template <typename Real>
Values forward(const HeadNormCase& c, const Values& qkv, const Values& q_weight, const Values& k_weight) {
    const AttentionShape& s = c.shape;
    Values out = qkv;
    for (int64_t n = 0; n < s.B * s.T; ++n)
        for (int64_t head = 0; head < s.NH + s.NKV; ++head) {
            const int64_t at = n * s.qkv_columns() + head * s.HD;
            Real sum = 0;
            for (int64_t d = 0; d < s.HD; ++d) sum += static_cast<Real>(qkv[at + d]) * static_cast<Real>(qkv[at + d]);
            const Real rstd = 1 / std::sqrt(sum / static_cast<Real>(s.HD) + static_cast<Real>(HeadNormCase::kEpsilon));
            const Values& weight = head < s.NH ? q_weight : k_weight;
            for (int64_t d = 0; d < s.HD; ++d)
                out[at + d] = static_cast<Real>(qkv[at + d]) * rstd * static_cast<Real>(weight[d]);
        }
    return out;
}

struct Gradients {
    Values d_qkv, d_q_weight, d_k_weight;
};

template <typename Real>
Gradients backward(const HeadNormCase& c) {
    const AttentionShape& s = c.shape;
    const Values qkv = c.qkv.values(), d_out = c.d_out.values(), rstds = c.rstd.values();
    const auto HD = static_cast<size_t>(s.HD);
    Gradients result = {d_out, Values(HD, 0), Values(HD, 0)};
    std::vector<Real> sums[2] = {std::vector<Real>(HD, 0), std::vector<Real>(HD, 0)};
    for (int64_t n = 0; n < s.B * s.T; ++n)
        for (int64_t head = 0; head < s.NH + s.NKV; ++head) {
            const int64_t at = n * s.qkv_columns() + head * s.HD;
            const Real rstd = rstds[n * (s.NH + s.NKV) + head];
            const Values weight = (head < s.NH ? c.q_weight : c.k_weight).values();
            Real mean = 0;
            for (int64_t d = 0; d < s.HD; ++d) {
                const Real h = static_cast<Real>(qkv[at + d]) * rstd, gradient = d_out[at + d];
                sums[head < s.NH ? 0 : 1][d] += gradient * h;
                mean += gradient * static_cast<Real>(weight[d]) * h;
            }
            mean /= static_cast<Real>(s.HD);
            for (int64_t d = 0; d < s.HD; ++d) {
                const Real h = static_cast<Real>(qkv[at + d]) * rstd;
                result.d_qkv[at + d] =
                    rstd * (static_cast<Real>(d_out[at + d]) * static_cast<Real>(weight[d]) - h * mean);
            }
        }
    for (size_t d = 0; d < HD; ++d) result.d_q_weight[d] = sums[0][d], result.d_k_weight[d] = sums[1][d];
    return result;
}

TEST(HeadNorm, IsAsGoodAsPlainLoops) {
    cpu::CpuBackend backend(2);
    for (const AttentionShape& shape : kHeadNormShapes)
        for (const DType dtype : kActivationTypes) {
            const HeadNormCase c(dtype, shape);
            SCOPED_TRACE(c.name());
            c.run(backend, [](const TestBuffer& buffer) { return buffer.tensor(); });
            const Values q = c.q_weight.values(), k = c.k_weight.values(), x = c.qkv.values();
            expect_as_good_as_plain(c.out, forward<float>(c, x, q, k), forward<double>(c, x, q, k));
            const Gradients plain = backward<float>(c), exact = backward<double>(c);
            expect_as_good_as_plain(c.d_qkv, plain.d_qkv, exact.d_qkv);
            const double terms = std::sqrt(static_cast<double>(shape.B * shape.T * shape.NH)) * 8;
            expect_as_good_as_plain(c.d_q_weight, plain.d_q_weight, exact.d_q_weight, terms);
            expect_as_good_as_plain(c.d_k_weight, plain.d_k_weight, exact.d_k_weight, terms);
        }
}

TEST(HeadNorm, GradientsAreDerivatives) {
    cpu::CpuBackend backend(1);
    const HeadNormCase c(DType::F32, {1, 3, 2, 1, 4});
    c.run(backend, [](const TestBuffer& buffer) { return buffer.tensor(); });
    const Values q = c.q_weight.values(), k = c.k_weight.values(), x = c.qkv.values(), d_out = c.d_out.values();
    const auto loss = [&](const Values& at, const Values& q_at, const Values& k_at) {
        return dot(d_out, forward<double>(c, at, q_at, k_at));
    };
    HeadNormCase exact(DType::F32, c.shape);
    const Gradients gradients = backward<double>(c);
    const auto near = [](const Values& gradient, const std::function<double(const Values&)>& function, Values at) {
        for (size_t i = 0; i < at.size(); ++i) {
            const double start = at[i], step = 1e-5;
            at[i] = start + step;
            const double above = function(at);
            at[i] = start - step;
            const double below = function(at);
            at[i] = start;
            EXPECT_NEAR(gradient[i], (above - below) / (2 * step), 1e-5) << i;  // rstd was rounded to fp32.
        }
    };
    near(
        gradients.d_qkv, [&](const Values& at) { return loss(at, q, k); }, x);
    near(
        gradients.d_q_weight, [&](const Values& at) { return loss(x, at, k); }, q);
    near(
        gradients.d_k_weight, [&](const Values& at) { return loss(x, q, at); }, k);
}

TEST(HeadNorm, InPlaceAndAddingGiveTheSameBits) {
    for (const DType dtype : kActivationTypes) {
        const HeadNormCase apart(dtype, {2, 17, 4, 2, 8}), in_place(dtype, {2, 17, 4, 2, 8});
        cpu::CpuBackend backend(2);
        const auto tensor = [](const TestBuffer& buffer) { return buffer.tensor(); };
        apart.run(backend, tensor);
        in_place.run(backend, tensor, /*in_place=*/true, /*adds=*/false);
        EXPECT_TRUE(in_place.d_out.bytes() == apart.d_qkv.bytes());
        EXPECT_TRUE(in_place.d_q_weight.bytes() == apart.d_q_weight.bytes());
        const Values once = apart.d_q_weight.values();
        HeadNormCase added(dtype, {2, 17, 4, 2, 8});
        added.d_q_weight.set(Values(8, 3.0));
        added.d_k_weight.set(Values(8, 3.0));
        added.run(backend, tensor, false, /*adds=*/true);
        for (size_t d = 0; d < 8; ++d) EXPECT_EQ(added.d_q_weight.values()[d], static_cast<float>(3.0 + once[d]));
    }
}

TEST(HeadNorm, ThreadCountDoesNotMatter) {
    for (const DType dtype : kActivationTypes)
        expect_same_bits_at_every_thread_count([&](Backend& backend) {
            const HeadNormCase c(dtype, {3, 300, 4, 2, 64});
            c.run(backend, [](const TestBuffer& buffer) { return buffer.tensor(); });
            return c.results();
        });
}

}  // namespace
}  // namespace llmc
