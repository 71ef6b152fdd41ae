// Causal attention on the CUDA backend against the CPU's: every type, head sizes on and between those of the tiles,
// ragged lengths, grouped heads, the same bits under every schedule, and scores of any size.
#include "tests/cuda/cuda_testing.h"
#include "tests/cuda_on_cpu/seeds.h"

#include <spdlog/fmt/fmt.h>

#include <cmath>
#include <limits>

namespace llmc {
namespace {

struct Operands {
    TestBuffer qkv, d_out;
    Operands(DType dtype, const AttentionShape& s, double stddev)
        : qkv(random_buffer(dtype, s.B * s.T, s.qkv_columns(), stddev, 1)),
          d_out(random_buffer(dtype, s.B * s.T, s.NH * s.HD, 1.0, 2)) {}
    Operands(DType dtype, const Operands& other)
        : qkv(converted(dtype, other.qkv)), d_out(converted(dtype, other.d_out)) {}
};

struct Results {
    TestBuffer out, lse, d_qkv, in_place, forward_workspace, backward_workspace, in_place_workspace;
    Results(const Backend& backend, const Operands& x, const AttentionShape& s)
        : out(x.qkv.dtype(), s.B * s.T, s.NH * s.HD),
          lse(DType::F32, s.B * s.T, s.NH),
          d_qkv(x.qkv.dtype(), s.B * s.T, s.qkv_columns()),
          in_place(converted(x.qkv.dtype(), x.qkv)),
          forward_workspace(workspace_buffer(backend.attention_forward_workspace(x.qkv.dtype(), s))),
          backward_workspace(workspace_buffer(backend.attention_backward_workspace(x.qkv.dtype(), s, false))),
          in_place_workspace(workspace_buffer(backend.attention_backward_workspace(x.qkv.dtype(), s, true))) {}
    std::vector<std::byte> bytes() const { return joined({&out, &lse, &d_qkv}); }
};

/// Both passes, the backward also in the place of qkv; device(buffer) is the buffer's tensor where the backend can use
/// it.
template <typename Device>
void run(Backend& backend, const Operands& x, const Results& y, const AttentionShape& s, Device& device) {
    backend.attention_forward(device(y.out), device(y.lse), device(x.qkv), s, device(y.forward_workspace));
    backend.attention_backward(device(y.d_qkv), device(x.d_out), device(x.qkv), device(y.out), device(y.lse), s,
                               device(y.backward_workspace));
    backend.attention_backward(device(y.in_place), device(x.d_out), device(y.in_place), device(y.out), device(y.lse), s,
                               device(y.in_place_workspace));
    backend.synchronize();
}

Results on_cpu(const Operands& x, const AttentionShape& s) {
    Results y(cpu_backend(), x, s);
    const auto in_place = [](const TestBuffer& buffer) { return buffer.tensor(); };
    run(cpu_backend(), x, y, s, in_place);
    return y;
}

Results on_cuda(const Operands& x, const AttentionShape& s, Backend& backend = cuda_backend()) {
    Results y(backend, x, s);
    OnDevice device;
    for (const TestBuffer* buffer : {&x.qkv, &x.d_out}) device(*buffer);
    for (const TestBuffer* buffer :
         {&y.out, &y.lse, &y.d_qkv, &y.in_place, &y.backward_workspace, &y.in_place_workspace})
        device(*buffer);
    cuda_backend().synchronize();  // Its stream may be another than the backend's.
    run(backend, x, y, s, device);
    device.fetch();
    return y;
}

/// The gradient as a plain computation has it that rounds to the type what the next matrix product takes:
/// probabilities, gradients of scores, results; everything else is exact. Whether the CPU backend rounds those depends
/// on the processor.
class PlainAttention {
  public:
    PlainAttention(const Operands& x, const AttentionShape& s)
        : s_(s), dtype_(x.qkv.dtype()), qkv_(x.qkv.values()), d_out_(x.d_out.values()) {}

    Values d_qkv() {
        d_qkv_.assign(qkv_.size(), 0.0);
        for (int64_t b = 0; b < s_.B; ++b)
            for (int64_t h = 0; h < s_.NH; ++h)
                for (int64_t t = 0; t < s_.T; ++t) query_row(b, h, t);
        return rounded(d_qkv_);
    }

  private:
    Values rounded(const Values& values) const {
        const TestBuffer buffer(dtype_, 1, static_cast<int64_t>(values.size()), values);
        return buffer.values();
    }
    /// Where the row of a head begins; `part` 0: queries, 1: keys, 2: values.
    int64_t at(int64_t row, int part, int64_t head) const {
        const int64_t before = part == 0 ? 0 : s_.NH + (part - 1) * s_.NKV;
        return row * s_.qkv_columns() + (before + head) * s_.HD;
    }
    double product(const Values& a, int64_t i, const Values& b, int64_t j) const {
        double sum = 0;
        for (int64_t d = 0; d < s_.HD; ++d) sum += a[i + d] * b[j + d];
        return sum;
    }
    void add(int64_t to, double factor, const Values& from, int64_t first) {
        for (int64_t d = 0; d < s_.HD; ++d) d_qkv_[to + d] += factor * from[first + d];
    }

    void query_row(int64_t b, int64_t h, int64_t t) {
        const int64_t first = s_.window == 0 ? 0 : std::max<int64_t>(0, t - s_.window + 1);
        const int64_t kv_head = h / (s_.NH / s_.NKV);
        const int64_t row = b * s_.T + t, query = at(row, 0, h), out = (row * s_.NH + h) * s_.HD;
        Values p, d_p, d_score;
        double largest = -std::numeric_limits<double>::infinity(), sum = 0;
        for (int64_t key = first; key <= t; ++key) {
            p.push_back(s_.score_scale() * product(qkv_, query, qkv_, at(b * s_.T + key, 1, kv_head)));
            d_p.push_back(product(d_out_, out, qkv_, at(b * s_.T + key, 2, kv_head)));
            largest = std::max(largest, p.back());
        }
        for (double& score : p) sum += score = std::exp(score - largest);
        Values result(static_cast<size_t>(s_.HD), 0.0);
        for (int64_t key = first; key <= t; ++key) {
            const double probability = p[key - first] /= sum;
            const int64_t value = at(b * s_.T + key, 2, kv_head);
            for (int64_t d = 0; d < s_.HD; ++d) result[d] += probability * qkv_[value + d];
        }
        const double D = product(rounded(result), 0, d_out_, out);
        for (size_t i = 0; i < p.size(); ++i) d_score.push_back(p[i] * (d_p[i] - D) * s_.score_scale());
        p = rounded(p);
        d_score = rounded(d_score);
        for (int64_t key = first; key <= t; ++key) {
            const int64_t key_row = b * s_.T + key, i = key - first;
            add(query, d_score[i], qkv_, at(key_row, 1, kv_head));
            add(at(key_row, 1, kv_head), d_score[i], qkv_, query);
            add(at(key_row, 2, kv_head), p[i], d_out_, out);
        }
    }

    AttentionShape s_;
    DType dtype_;
    Values qkv_, d_out_, d_qkv_;
};

/// Columns [first, first + count) of a buffer: the gradients of queries, keys and values differ in magnitude.
Values columns_of(const TestBuffer& buffer, int64_t first, int64_t count) {
    const Tensor tensor = buffer.tensor();
    const Values values = buffer.values();
    Values part;
    for (int64_t row = 0; row < tensor.shape[0]; ++row)
        for (int64_t i = first; i < first + count; ++i) part.push_back(values[row * tensor.shape[1] + i]);
    return part;
}

/// A score's rounding, a part of its size, is a part of its probability: the honest error grows with the scores.
void expect_as_good(const Results& ours, const Results& cpu, const Results& truth, const TestBuffer& plain_d_qkv,
                    const AttentionShape& s) {
    const double score = std::max(1.0, largest_magnitude(truth.lse.values()));
    {
        SCOPED_TRACE("out");
        expect_as_good_as_cpu(ours.out, cpu.out, truth.out, 16 * score);
    }
    {
        SCOPED_TRACE("lse");
        expect_as_good_as_cpu(ours.lse, cpu.lse, truth.lse);
    }
    EXPECT_TRUE(ours.d_qkv.intact());
    const int64_t queries = s.NH * s.HD, keys = s.NKV * s.HD;
    const int64_t parts[3][2] = {{0, queries}, {queries, keys}, {queries + keys, keys}};
    const double slack = 64 * score * 0x1p-24 * largest_magnitude(truth.d_qkv.values());
    for (const auto& [first, count] : parts) {
        const Values exact = columns_of(truth.d_qkv, first, count);
        const double honest_error = std::max(largest_error(columns_of(cpu.d_qkv, first, count), exact),
                                             largest_error(columns_of(plain_d_qkv, first, count), exact));
        EXPECT_LE(largest_error(columns_of(ours.d_qkv, first, count), exact),
                  allowed_error(ours.d_qkv.dtype(), exact, honest_error) + slack)
            << "columns from " << first;
    }
}

void check(DType dtype, const AttentionShape& s, double stddev, Backend& backend = cuda_backend()) {
    SCOPED_TRACE(
        fmt::format("{} B={} T={} NH={} NKV={} HD={} W={}", name_of(dtype), s.B, s.T, s.NH, s.NKV, s.HD, s.window));
    const Operands x(dtype, s, stddev);
    const Results cpu = on_cpu(x, s), truth = on_cpu(Operands(DType::F32, x), s);
    const TestBuffer plain(dtype, s.B * s.T, s.qkv_columns(), PlainAttention(x, s).d_qkv());
    std::vector<std::byte> expected;
    cuda::for_each_seed([&] {
        const Results ours = on_cuda(x, s, backend);
        if (expected.empty()) {
            expected = ours.bytes();
            expect_as_good(ours, cpu, truth, plain, s);
        }
        EXPECT_TRUE(ours.bytes() == expected) << "other bits than under the first schedule";
        EXPECT_TRUE(ours.in_place.bytes() == ours.d_qkv.bytes()) << "other bits in the place of qkv";
    });
}

const AttentionShape kShapes[] = {
    {1, 1, 1, 1, 16},
    {2, 1, 4, 2, 64},
    {2, 17, 4, 2, 32},
    {1, 64, 4, 4, 64},
    {2, 65, 3, 1, 16},
    {1, 128, 2, 1, 128},
    {1, 200, 4, 2, 64},
    {1, 200, 1, 1, 80},
    {2, 65, 2, 2, 80},
    {1, 65, 3, 1, 128},
    {2, 17, 2, 1, 20},
    {1, 130, 1, 1, 5},
    {1, 300, 1, 1, 64},
    {1, 100, 6, 1, 32},
    {1, 17, 4, 4, 128},
    {1, 65, 2, 2, 1},
    {1, 70, 2, 1, 66},
    // Windows: of one token, within a tile, of a tile, over several tiles, wider than the sequence; another scale.
    {2, 40, 2, 1, 16, 1},
    {1, 200, 2, 1, 32, 12},
    {1, 300, 2, 1, 64, 64},
    {1, 330, 1, 1, 16, 129},
    {1, 200, 2, 1, 128, 33},
    {1, 100, 2, 2, 20, 1000},
    {1, 140, 2, 1, 64, 0, 0.5f},
    // Heads that are several, and no multiple of that, at a time in the place of qkv; so few channels are not aligned.
    {1, 70, 7, 7, 16},
    {2, 40, 12, 4, 5},
};

class CudaAttention : public testing::TestWithParam<AttentionShape> {};

}  // namespace

TEST_P(CudaAttention, Fp32IsAsGoodAsTheCpus) { check(DType::F32, GetParam(), 1.0); }
TEST_P(CudaAttention, Bf16IsAsGoodAsTheCpus) { check(DType::BF16, GetParam(), 1.0); }

INSTANTIATE_TEST_SUITE_P(Shapes, CudaAttention, testing::ValuesIn(kShapes), [](const auto& info) {
    const AttentionShape& s = info.param;
    const std::string window = s.window > 0 ? fmt::format("W{}", s.window) : s.scale != 0 ? "scaled" : "";
    return fmt::format("B{}T{}NH{}NKV{}HD{}{}", s.B, s.T, s.NH, s.NKV, s.HD, window);
});

TEST(CudaAttentionScores, LargeOnesStayFinite) {
    // Scores up to about 1e4: all but one probability of most rows underflow.
    check(DType::F32, {1, 140, 2, 1, 64}, 50.0);
    check(DType::BF16, {1, 140, 2, 1, 64}, 30.0);
}

TEST(CudaAttentionScores, EnormousOnesPickTheLargest) {
    // Scores of 1e36 with either sign, some equal.
    const AttentionShape s{1, 100, 1, 1, 1};
    Operands x(DType::F32, s, 1.0);
    Values qkv(3 * s.T), d_out(s.T, 0.0);
    for (int64_t n = 0; n < s.T; ++n) {
        qkv[3 * n] = n == 0 ? 0.0 : 1e18;
        qkv[3 * n + 1] = n % 10 == 3 ? 1e18 : n % 2 ? 0.0 : -1e18;
        qkv[3 * n + 2] = static_cast<double>(n);
    }
    d_out[12] = 2;
    x.qkv.set(qkv);
    x.d_out.set(d_out);
    const Results y = on_cuda(x, s);
    EXPECT_EQ(y.out.values()[2], 1.0);
    EXPECT_EQ(y.lse.values()[2], 0.0);
    EXPECT_EQ(y.out.values()[12], 3.0);
    EXPECT_NEAR(y.out.values()[99], 48.0, 1e-4);  // the mean of 3, 13, .. 93
    for (int64_t n = 0; n < s.T; ++n) EXPECT_EQ(y.d_qkv.values()[3 * n + 2], n == 3 ? 2.0 : 0.0) << n;
}

TEST(CudaAttentionScores, NanStaysInTheRowsThatSeeIt) {
    const AttentionShape s{1, 150, 1, 1, 16};
    for (const DType dtype : kActivationTypes) {
        const Operands x(dtype, s, 1.0);
        const Results clean = on_cuda(x, s);
        Values qkv = x.qkv.values();
        qkv[100 * s.qkv_columns() + s.HD] = std::numeric_limits<double>::quiet_NaN();  // a key at position 100
        x.qkv.set(qkv);
        const Results y = on_cuda(x, s);
        const Values out = y.out.values(), lse = y.lse.values(), clean_out = clean.out.values();
        for (int64_t n = 0; n < s.T; ++n) {
            EXPECT_EQ(std::isnan(out[n * s.HD]), n >= 100) << n;
            EXPECT_EQ(std::isnan(lse[n]), n >= 100) << n;
            if (n < 100) {
                EXPECT_EQ(out[n * s.HD], clean_out[n * s.HD]) << n;
            }
        }
    }
}

// The kernels for compute capability 9.0: heads of 64 and 128 channels, rows that do not fill tiles, grouped heads,
// windows; what they leave to the portable ones is tested above.
const AttentionShape kHopperShapes[] = {
    {2, 1, 4, 2, 64},        {1, 65, 2, 2, 64},           {1, 127, 2, 1, 128},
    {2, 200, 4, 2, 64},      {1, 300, 2, 1, 128},         {1, 400, 1, 1, 64, 129},
    {1, 330, 2, 1, 128, 33}, {1, 140, 2, 1, 64, 0, 0.5f}, {2, 70, 12, 4, 64},
};

class CudaHopperAttention : public testing::TestWithParam<AttentionShape> {};

TEST_P(CudaHopperAttention, IsAsGoodAsTheCpus) { check(DType::BF16, GetParam(), 1.0, hopper_backend()); }

INSTANTIATE_TEST_SUITE_P(Shapes, CudaHopperAttention, testing::ValuesIn(kHopperShapes), [](const auto& info) {
    const AttentionShape& s = info.param;
    return fmt::format("T{}NH{}NKV{}HD{}W{}{}", s.T, s.NH, s.NKV, s.HD, s.window, s.scale != 0 ? "scaled" : "");
});

TEST(CudaHopperScores, LargeScoresStayFinite) { check(DType::BF16, {1, 140, 2, 1, 64}, 30.0, hopper_backend()); }

}  // namespace llmc
