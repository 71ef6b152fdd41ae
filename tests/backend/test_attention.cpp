// Attention against plain loops in double precision. The bound on our error is twice the error of a plain computation
// in the precision of the activations (as in FlashAttention's tests), so there are no tolerances to tune.
#include "llmc/backend/cpu/cpu_backend.h"
#include "llmc/base/rng.h"
#include "llmc/base/units.h"

#include <gtest/gtest.h>
#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

namespace llmc::cpu {
namespace {

/// A tensor with guard bytes before and after it.
class Guarded {
  public:
    Guarded(DType dtype, int64_t rows, int64_t columns = 1) {
        const int64_t bytes = rows * columns * size_of(dtype);
        size_ = round_up(bytes, kTensorAlignment) + 2 * kTensorAlignment;
        memory_.reset(static_cast<unsigned char*>(std::aligned_alloc(kTensorAlignment, size_)));
        std::memset(memory_.get(), kGuard, size_);
        tensor = Tensor(dtype, memory_.get() + kTensorAlignment, rows, columns);
    }
    bool intact() const {
        const auto is_guard = [](unsigned char byte) { return byte == kGuard; };
        const unsigned char* end = memory_.get() + kTensorAlignment + tensor.bytes();
        return std::all_of(memory_.get(), memory_.get() + kTensorAlignment, is_guard) &&
               std::all_of(end, static_cast<const unsigned char*>(memory_.get()) + size_, is_guard);
    }
    bool same_bytes(const Guarded& other) const {
        return std::memcmp(tensor.data, other.tensor.data, tensor.bytes()) == 0;
    }

    Tensor tensor;

  private:
    struct Free {
        void operator()(unsigned char* memory) const { std::free(memory); }
    };
    static constexpr unsigned char kGuard = 0xab;
    std::unique_ptr<unsigned char, Free> memory_;
    int64_t size_ = 0;
};

float get(Tensor t, int64_t i) { return t.dtype == DType::F32 ? t.as<float>()[i] : to_float(t.as<bf16>()[i]); }
void set(Tensor t, int64_t i, float x) {
    if (t.dtype == DType::F32)
        t.as<float>()[i] = x;
    else
        t.as<bf16>()[i] = to_bf16(x);
}

Guarded random_tensor(DType dtype, int64_t rows, int64_t columns, uint32_t item, float stddev = 1.0f) {
    std::vector<float> values(rows * columns);
    fill_normal(values.data(), rows * columns, stddev, 1234, RngStream::Test, item);
    Guarded result(dtype, rows, columns);
    for (int64_t i = 0; i < rows * columns; ++i) set(result.tensor, i, values[i]);
    return result;
}

template <typename Real>
std::vector<Real> values_of(Tensor t) {
    std::vector<Real> values(t.count());
    for (int64_t i = 0; i < t.count(); ++i) values[i] = get(t, i);
    return values;
}

/// Attention by plain loops. In double it is the truth; in float, with `rounded` for bf16, it is what we compare with.
template <typename Real>
struct Plain {
    AttentionShape s;
    bool rounded = false;  ///< Probabilities, their gradients and the results are rounded to bf16.
    std::vector<Real> qkv, out, lse, d_qkv;

    Real round(Real x) const { return rounded ? static_cast<Real>(to_float(to_bf16(static_cast<float>(x)))) : x; }
    const Real* query(int64_t n, int64_t h) const { return &qkv[n * s.qkv_columns() + h * s.HD]; }
    int64_t key_at(int64_t n, int64_t h) const { return n * s.qkv_columns() + (s.NH + h / (s.NH / s.NKV)) * s.HD; }
    Real score(int64_t n, int64_t k, int64_t h) const {
        Real sum = 0;
        for (int64_t d = 0; d < s.HD; ++d) sum += query(n, h)[d] * qkv[key_at(k, h) + d];
        return sum * scale();
    }
    Real scale() const { return s.scale != 0 ? static_cast<Real>(s.scale) : 1 / std::sqrt(static_cast<Real>(s.HD)); }
    /// The first row that row n sees.
    int64_t first_of(int64_t n) const {
        const int64_t first = n / s.T * s.T;
        return s.window == 0 ? first : std::max(first, n - s.window + 1);
    }

    void forward() {
        out.assign(s.B * s.T * s.NH * s.HD, 0);
        lse.assign(s.B * s.T * s.NH, 0);
        const int64_t to_value = s.NKV * s.HD;
        for (int64_t n = 0; n < s.B * s.T; ++n)
            for (int64_t h = 0; h < s.NH; ++h) {
                const int64_t first = first_of(n), count = n - first + 1;
                std::vector<Real> p(count);
                for (int64_t k = 0; k < count; ++k) p[k] = score(n, first + k, h);
                const Real max = *std::max_element(p.begin(), p.end());
                Real sum = 0;
                for (Real& x : p) sum += x = std::exp(x - max);
                lse[n * s.NH + h] = max + std::log(sum);
                Real* o = &out[(n * s.NH + h) * s.HD];
                for (int64_t k = 0; k < count; ++k)
                    for (int64_t d = 0; d < s.HD; ++d) o[d] += round(p[k]) * qkv[key_at(first + k, h) + to_value + d];
                for (int64_t d = 0; d < s.HD; ++d) o[d] = round(o[d] / sum);
            }
    }

    void backward(const std::vector<Real>& d_out) {
        d_qkv.assign(qkv.size(), 0);
        const int64_t to_value = s.NKV * s.HD;
        for (int64_t n = 0; n < s.B * s.T; ++n)
            for (int64_t h = 0; h < s.NH; ++h) {
                const Real* o = &out[(n * s.NH + h) * s.HD];
                const Real* d_o = &d_out[(n * s.NH + h) * s.HD];
                // From the end: d_p below, summed the same way, would cancel it exactly where one key takes all.
                Real delta = 0;
                for (int64_t d = s.HD - 1; d >= 0; --d) delta += o[d] * d_o[d];
                Real* d_query = &d_qkv[n * s.qkv_columns() + h * s.HD];
                for (int64_t k = first_of(n); k <= n; ++k) {
                    const int64_t key = key_at(k, h);
                    const Real p = std::exp(score(n, k, h) - lse[n * s.NH + h]);
                    Real d_p = 0;
                    for (int64_t d = 0; d < s.HD; ++d) d_p += d_o[d] * qkv[key + to_value + d];
                    const Real d_s = round(p * (d_p - delta));
                    for (int64_t d = 0; d < s.HD; ++d) {
                        d_query[d] += scale() * d_s * qkv[key + d];
                        d_qkv[key + d] += scale() * d_s * query(n, h)[d];
                        d_qkv[key + to_value + d] += round(p) * d_o[d];
                    }
                }
            }
        for (Real& x : d_qkv) x = round(x);
    }
};

struct Case {
    int64_t B, T, NH, NKV, HD, window = 0;
    float scale = 0;
    AttentionShape shape() const { return {B, T, NH, NKV, HD, window, scale}; }
    std::string name() const {
        return fmt::format("B{}T{}H{}K{}D{}{}{}", B, T, NH, NKV, HD, window > 0 ? fmt::format("W{}", window) : "",
                           scale != 0 ? "scaled" : "");
    }
};

constexpr Case kCases[] = {
    {1, 1, 1, 1, 4},
    {2, 13, 3, 3, 8},
    {1, 5, 2, 2, 1},
    {3, 7, 2, 1, 5},
    {1, 200, 4, 2, 64},
    {2, 65, 6, 2, 32},
    {1, 130, 2, 1, 128},
    {1, 70, 2, 2, 80},
    {1, 450, 2, 1, 16},
    {1, 193, 1, 1, 48},
    {2, 97, 2, 2, 33},
    {1, 100, 1, 1, 256},
    {1, 800, 1, 1, 24},
    // Windows: of one token, within a tile, about a tile of keys or of queries, over several, as wide as the sequence.
    {2, 40, 2, 1, 16, 1},
    {2, 97, 2, 2, 33, 12},
    {1, 450, 2, 1, 16, 96},
    {1, 800, 1, 1, 24, 193},
    {1, 900, 4, 2, 8, 385},
    {1, 450, 2, 1, 16, 450},
    {1, 450, 2, 1, 16, 1000},
    {1, 700, 1, 1, 5, 7},
    {1, 97, 2, 2, 33, 0, 1},
    {1, 65, 2, 1, 16, 0, 0.04f},
    {1, 300, 2, 1, 16, 50, 0.5f},
    // Heads that are several, and no multiple of that, at a time where the gradient takes the place of its input.
    {1, 210, 7, 7, 8},
    {2, 97, 12, 4, 16, 40},
};

/// Everything that one forward and backward call reads and writes.
struct Call {
    Guarded qkv, d_out, out, lse, d_qkv;

    Call(CpuBackend& backend, DType dtype, const AttentionShape& s, float stddev = 1.0f)
        : qkv(random_tensor(dtype, s.B * s.T, s.qkv_columns(), 1, stddev)),
          d_out(random_tensor(dtype, s.B * s.T, s.NH * s.HD, 2)),
          out(dtype, s.B * s.T, s.NH * s.HD),
          lse(DType::F32, s.B * s.T, s.NH),
          d_qkv(dtype, s.B * s.T, s.qkv_columns()) {
        Guarded forward_workspace(DType::U8, backend.attention_forward_workspace(dtype, s));
        Guarded backward_workspace(DType::U8, backend.attention_backward_workspace(dtype, s, /*in_place=*/false));
        // What a workspace holds must not matter: NaN.
        std::memset(forward_workspace.tensor.data, 0xff, forward_workspace.tensor.bytes());
        std::memset(backward_workspace.tensor.data, 0xff, backward_workspace.tensor.bytes());
        backend.attention_forward(out.tensor, lse.tensor, qkv.tensor, s, forward_workspace.tensor);
        backend.attention_backward(d_qkv.tensor, d_out.tensor, qkv.tensor, out.tensor, lse.tensor, s,
                                   backward_workspace.tensor);
        EXPECT_TRUE(forward_workspace.intact() && backward_workspace.intact());
        EXPECT_TRUE(qkv.intact() && d_out.intact() && out.intact() && lse.intact() && d_qkv.intact());
    }

    /// The backward again, in the place of qkv.
    void backward_in_place(CpuBackend& backend, const AttentionShape& s) {
        Guarded workspace(DType::U8, backend.attention_backward_workspace(qkv.tensor.dtype, s, /*in_place=*/true));
        std::memset(workspace.tensor.data, 0xff, workspace.tensor.bytes());
        backend.attention_backward(qkv.tensor, d_out.tensor, qkv.tensor, out.tensor, lse.tensor, s, workspace.tensor);
        EXPECT_TRUE(workspace.intact() && qkv.intact());
    }
};

template <typename Real>
Plain<Real> plain_results(const Call& call, const AttentionShape& s, bool rounded) {
    Plain<Real> plain{s, rounded, values_of<Real>(call.qkv.tensor), {}, {}, {}};
    plain.forward();
    plain.backward(values_of<Real>(call.d_out.tensor));
    return plain;
}

/// The largest error in columns [begin, end) of every row.
template <typename Real>
double largest_error(const std::vector<Real>& values, const std::vector<double>& truth, int64_t columns, int64_t begin,
                     int64_t end) {
    double worst = 0;
    for (size_t i = 0; i < values.size(); ++i) {
        const int64_t column = static_cast<int64_t>(i) % columns;
        if (column < begin || column >= end) continue;
        const double error = std::fabs(values[i] - truth[i]);
        worst = error <= worst ? worst : error;  // a NaN is kept
    }
    return worst;
}

double largest(const std::vector<double>& values) {
    double result = 0;
    for (const double x : values) result = std::fmax(result, std::fabs(x));
    return result;
}

void expect_close(const Call& call, const AttentionShape& s, bool bf16_activations) {
    const Plain<double> truth = plain_results<double>(call, s, false);
    const Plain<float> plain = plain_results<float>(call, s, bf16_activations);
    const auto check = [&](Tensor ours, const std::vector<float>& theirs, const std::vector<double>& exact,
                           int64_t begin, int64_t end, const char* what) {
        const int64_t columns = ours.shape[1];
        const double bound = 2 * largest_error(theirs, exact, columns, begin, end) + 1e-6 * largest(exact);
        EXPECT_LE(largest_error(values_of<float>(ours), exact, columns, begin, end), bound) << what;
    };
    const int64_t QKV = s.qkv_columns(), queries = s.NH * s.HD, keys = s.NKV * s.HD;
    check(call.out.tensor, plain.out, truth.out, 0, queries, "out");
    check(call.lse.tensor, plain.lse, truth.lse, 0, s.NH, "lse");
    check(call.d_qkv.tensor, plain.d_qkv, truth.d_qkv, 0, queries, "d_query");
    check(call.d_qkv.tensor, plain.d_qkv, truth.d_qkv, queries, queries + keys, "d_key");
    check(call.d_qkv.tensor, plain.d_qkv, truth.d_qkv, queries + keys, QKV, "d_value");
}

}  // namespace

class AttentionShapes : public testing::TestWithParam<Case> {};

TEST_P(AttentionShapes, Fp32IsAsGoodAsPlainLoops) {
    CpuBackend backend(2);
    expect_close(Call(backend, DType::F32, GetParam().shape()), GetParam().shape(), false);
}

TEST_P(AttentionShapes, Bf16IsAsGoodAsPlainLoops) {
    CpuBackend backend(2);
    expect_close(Call(backend, DType::BF16, GetParam().shape()), GetParam().shape(), true);
}

TEST_P(AttentionShapes, SameBitsAtEveryThreadCountAndInEveryCall) {
    for (const DType dtype : {DType::F32, DType::BF16}) {
        CpuBackend single(1);
        const Call expected(single, dtype, GetParam().shape());
        for (const int threads : {1, 2, 3, 16}) {
            CpuBackend backend(threads);
            const Call call(backend, dtype, GetParam().shape());
            EXPECT_TRUE(call.out.same_bytes(expected.out) && call.lse.same_bytes(expected.lse)) << threads;
            EXPECT_TRUE(call.d_qkv.same_bytes(expected.d_qkv)) << threads;
        }
    }
}

TEST_P(AttentionShapes, SameBitsInThePlaceOfItsInput) {
    const AttentionShape s = GetParam().shape();
    for (const DType dtype : {DType::F32, DType::BF16}) {
        for (const int threads : {1, 2, 3, 16}) {
            CpuBackend backend(threads);
            Call call(backend, dtype, s);
            call.backward_in_place(backend, s);
            EXPECT_TRUE(call.qkv.same_bytes(call.d_qkv)) << threads;
        }
    }
}

INSTANTIATE_TEST_SUITE_P(Attention, AttentionShapes, testing::ValuesIn(kCases),
                         [](const auto& info) { return info.param.name(); });

TEST(Attention, PlainGradientsAgreeWithFiniteDifferences) {
    const AttentionShape s{2, 6, 4, 2, 5};
    CpuBackend backend(1);
    const Call call(backend, DType::F32, s);
    const std::vector<double> d_out = values_of<double>(call.d_out.tensor);
    Plain<double> plain = plain_results<double>(call, s, false);
    const auto loss = [&] {
        plain.forward();
        double sum = 0;
        for (size_t i = 0; i < d_out.size(); ++i) sum += d_out[i] * plain.out[i];
        return sum;
    };
    for (size_t i = 0; i < plain.qkv.size(); i += 7) {
        const double x = plain.qkv[i], step = 1e-5;
        plain.qkv[i] = x + step;
        const double above = loss();
        plain.qkv[i] = x - step;
        const double below = loss();
        plain.qkv[i] = x;
        EXPECT_NEAR((above - below) / (2 * step), plain.d_qkv[i], 1e-8) << i;
    }
}

TEST(Attention, LargeScoresStayFinite) {
    // Scores up to about 1e6: all but one probability of a row underflow.
    const AttentionShape s{1, 210, 2, 1, 64};
    for (const DType dtype : {DType::F32, DType::BF16}) {
        CpuBackend backend(2);
        const Call call(backend, dtype, s, 500.0f);
        expect_close(call, s, dtype == DType::BF16);
        for (const float x : values_of<float>(call.d_qkv.tensor)) ASSERT_TRUE(std::isfinite(x));
    }
}

TEST(Attention, EnormousScoresPickTheLargest) {
    // Scores of 1e36 with either sign, some equal.
    const AttentionShape s{1, 100, 1, 1, 1};
    CpuBackend backend(1);
    Guarded qkv(DType::F32, s.T, 3), out(DType::F32, s.T, 1), lse(DType::F32, s.T, 1), d_qkv(DType::F32, s.T, 3);
    for (int64_t n = 0; n < s.T; ++n) {
        set(qkv.tensor, 3 * n, 1e18f);
        set(qkv.tensor, 3 * n + 1, n % 10 == 3 ? 1e18f : n % 2 ? 0.0f : -1e18f);
        set(qkv.tensor, 3 * n + 2, static_cast<float>(n));
    }
    Guarded workspace(DType::U8, std::max(backend.attention_forward_workspace(DType::F32, s),
                                          backend.attention_backward_workspace(DType::F32, s, /*in_place=*/false)));
    backend.attention_forward(out.tensor, lse.tensor, qkv.tensor, s, workspace.tensor);
    EXPECT_EQ(get(out.tensor, 0), 0.0f);
    EXPECT_EQ(get(out.tensor, 2), 1.0f);
    EXPECT_EQ(get(lse.tensor, 2), 0.0f);
    EXPECT_EQ(get(out.tensor, 12), 3.0f);
    EXPECT_NEAR(get(out.tensor, 99), 48.0f, 1e-4);  // the mean of 3, 13, .. 93
    EXPECT_FLOAT_EQ(get(lse.tensor, 99), 1e36f);
    set(qkv.tensor, 0, 0.0f);
    Guarded d_out(DType::F32, s.T, 1);
    for (int64_t n = 0; n < s.T; ++n) set(d_out.tensor, n, n == 12 ? 2.0f : 0.0f);
    backend.attention_backward(d_qkv.tensor, d_out.tensor, qkv.tensor, out.tensor, lse.tensor, s, workspace.tensor);
    for (int64_t n = 0; n < s.T; ++n) EXPECT_EQ(get(d_qkv.tensor, 3 * n + 2), n == 3 ? 2.0f : 0.0f) << n;
}

TEST(Attention, NanStaysInTheRowsThatSeeIt) {
    const AttentionShape s{1, 150, 1, 1, 16};
    CpuBackend backend(1);
    const Call clean(backend, DType::F32, s);
    Guarded qkv = random_tensor(DType::F32, s.T, s.qkv_columns(), 1), out(DType::F32, s.T, s.HD);
    Guarded lse(DType::F32, s.T, 1), workspace(DType::U8, backend.attention_forward_workspace(DType::F32, s));
    set(qkv.tensor, 100 * s.qkv_columns() + s.HD, std::nanf(""));  // a key at position 100
    backend.attention_forward(out.tensor, lse.tensor, qkv.tensor, s, workspace.tensor);
    for (int64_t n = 0; n < s.T; ++n) {
        EXPECT_EQ(std::isnan(get(out.tensor, n * s.HD)), n >= 100) << n;
        EXPECT_EQ(std::isnan(get(lse.tensor, n)), n >= 100) << n;
        if (n < 100) {
            EXPECT_EQ(get(out.tensor, n * s.HD), get(clean.out.tensor, n * s.HD));
        }
    }
}

/// A window as wide as the sequence is none.
TEST(Attention, AWideWindowHasTheBitsOfNone) {
    for (const DType dtype : {DType::F32, DType::BF16}) {
        CpuBackend backend(2);
        AttentionShape s{2, 450, 2, 1, 24};
        const Call none(backend, dtype, s);
        for (const int64_t window : {450, 100000}) {
            s.window = window;
            const Call wide(backend, dtype, s);
            EXPECT_TRUE(wide.out.same_bytes(none.out) && wide.lse.same_bytes(none.lse)) << window;
            EXPECT_TRUE(wide.d_qkv.same_bytes(none.d_qkv)) << window;
        }
    }
}

TEST(Attention, CachedEqualsForward) {
    for (const Case& c : {Case{1, 150, 4, 2, 64}, Case{1, 70, 3, 3, 20}, Case{1, 40, 40, 2, 8}, Case{1, 33, 1, 1, 256},
                          Case{1, 150, 4, 2, 64, 13}, Case{1, 150, 3, 1, 20, 64, 0.3f}, Case{1, 150, 2, 1, 8, 1}})
        for (const DType dtype : {DType::F32, DType::BF16}) {
            const AttentionShape s = c.shape();
            const int64_t max_T = s.T + 3, columns = s.NKV * s.HD;
            CpuBackend backend(2);
            const Call call(backend, dtype, s);
            const std::vector<double> truth = plain_results<double>(call, s, false).out;
            const std::vector<float> plain = plain_results<float>(call, s, dtype == DType::BF16).out;
            const double bound = 2 * largest_error(plain, truth, s.NH * s.HD, 0, s.NH * s.HD) + 1e-6;
            for (const int64_t chunk : {int64_t{1}, int64_t{7}, int64_t{64}, s.T}) {
                Guarded out(dtype, s.T, s.NH * s.HD), k_cache(dtype, max_T, columns), v_cache(dtype, max_T, columns);
                for (int64_t first = 0; first < s.T; first += chunk) {
                    AttentionShape part = s;
                    part.T = std::min(chunk, s.T - first);
                    auto at = static_cast<int32_t>(first);
                    backend.attention_cached(out.tensor.row_range(first, part.T), k_cache.tensor, v_cache.tensor,
                                             call.qkv.tensor.row_range(first, part.T), part, Tensor(DType::I32, &at, 1),
                                             {});
                }
                EXPECT_LE(largest_error(values_of<float>(out.tensor), truth, s.NH * s.HD, 0, s.NH * s.HD), bound)
                    << c.name() << " in chunks of " << chunk;
                EXPECT_TRUE(out.intact() && k_cache.intact() && v_cache.intact());
                for (int64_t n = 0; n < s.T; ++n)
                    for (int64_t i = 0; i < columns; ++i) {
                        const int64_t key = n * s.qkv_columns() + s.NH * s.HD + i;
                        ASSERT_EQ(get(k_cache.tensor, n * columns + i), get(call.qkv.tensor, key));
                        ASSERT_EQ(get(v_cache.tensor, n * columns + i), get(call.qkv.tensor, key + columns));
                    }
            }
        }
}

TEST(Attention, CachedHasTheSameBitsAtEveryThreadCount) {
    const AttentionShape s{1, 900, 4, 2, 64};
    const Guarded qkv = random_tensor(DType::F32, s.T, s.qkv_columns(), 1);
    std::unique_ptr<Guarded> expected;
    for (const int threads : {1, 2, 3}) {
        CpuBackend backend(threads);
        auto out = std::make_unique<Guarded>(DType::F32, s.T, s.NH * s.HD);
        Guarded k_cache(DType::F32, s.T, s.NKV * s.HD), v_cache(DType::F32, s.T, s.NKV * s.HD);
        backend.attention_cached(out->tensor, k_cache.tensor, v_cache.tensor, qkv.tensor, s, {}, {});
        if (!expected)
            expected = std::move(out);
        else
            EXPECT_TRUE(out->same_bytes(*expected)) << threads;
    }
}

TEST(Attention, WorkspaceStaysSmall) {
    CpuBackend backend(2);
    for (const DType dtype : {DType::F32, DType::BF16}) {
        const int64_t per_thread = 3 << 20;
        EXPECT_LE(backend.attention_forward_workspace(dtype, {4, 1024, 12, 12, 64}), 2 * per_thread);
        EXPECT_LE(backend.attention_forward_workspace(dtype, {4, 65536, 12, 12, 64}), 2 * per_thread);
        EXPECT_LE(backend.attention_backward_workspace(dtype, {4, 1024, 12, 12, 64}, /*in_place=*/false),
                  2 * per_thread + 4 * 1024 * 12 * 4);
        EXPECT_LE(backend.attention_backward_workspace(dtype, {1, 8192, 32, 8, 128}, /*in_place=*/false),
                  2 * (20 << 20));
    }
}

/// What waits of a gradient in the place of its input is a quarter of that, or one head.
TEST(Attention, HeadsInPlaceAreFew) {
    const auto heads = [](int64_t B, int64_t T, int64_t NH, int64_t NKV) {
        return AttentionShape{B, T, NH, NKV, 64}.kv_heads_in_place();
    };
    EXPECT_EQ(heads(1, 1 << 10, 1, 1), 1);
    EXPECT_EQ(heads(1, 1 << 10, 12, 12), 4) << "a quarter: 4.5";
    EXPECT_EQ(heads(1, 1 << 10, 7, 7), 2);
    EXPECT_EQ(heads(1, 1 << 10, 32, 8), 4) << "a quarter: 6, so twice; then as many each time";
    EXPECT_EQ(heads(4, 1 << 14, 32, 8), 2) << "131,072 rows";
    EXPECT_EQ(heads(1, 1 << 17, 32, 8), 1);
    EXPECT_EQ(heads(1, 1 << 20, 32, 8), 1);
    EXPECT_EQ(heads(1, 1, 64, 1), 1);
    CpuBackend backend(2);
    for (const DType dtype : {DType::F32, DType::BF16}) {
        const AttentionShape s = {1, 1 << 17, 32, 8, 64};
        EXPECT_EQ(backend.attention_backward_workspace(dtype, s, /*in_place=*/true) -
                      backend.attention_backward_workspace(dtype, s, /*in_place=*/false),
                  s.T * 2 * s.HD * size_of(dtype));
    }
}

}  // namespace llmc::cpu
