// Embeddings against plain loops. Both directions are sums in a given order, so they must match bit by bit.
#include "tests/backend/backend_testing.h"

namespace llmc {
namespace {

struct Shape {
    int64_t N, T, C, Vp, first_position;
};

const Shape kShapes[] = {{1, 1, 1, 1, 0},      {5, 5, 8, 3, 0},        {37, 40, 100, 11, 3}, {36, 12, 48, 300, 1},
                         {130, 65, 768, 5, 0}, {256, 64, 1000, 50, 0}, {5, 5, 16, 50304, 0}};

void for_each_shape(const std::function<void(DType, const Shape&)>& test) {
    for (const DType dtype : kActivationTypes)
        for (const Shape& shape : kShapes) {
            SCOPED_TRACE(fmt::format("{} N={} C={} Vp={}", name_of(dtype), shape.N, shape.C, shape.Vp));
            test(dtype, shape);
        }
}

TEST(Embedding, Forward) {
    cpu::CpuBackend backend(2);
    for_each_shape([&](DType dtype, const Shape& s) {
        const std::vector<int32_t> token = random_integers(s.N, s.Vp, 1);
        const TestBuffer tokens(token), wte = random_buffer(dtype, s.Vp, s.C, 1, 2);
        const TestBuffer wpe = random_buffer(dtype, s.T + s.first_position, s.C, 1, 3);
        const Values w = wte.values(), p = wpe.values();
        for (const bool positions : {true, false}) {
            Values expected(s.N * s.C);
            for (int64_t i = 0; i < s.N * s.C; ++i) {
                const int64_t n = i / s.C, c = i % s.C, position = s.first_position + n % s.T;
                const float token_part = static_cast<float>(w[token[n] * s.C + c]);
                expected[i] = positions ? token_part + static_cast<float>(p[position * s.C + c]) : token_part;
            }
            const TestBuffer out(dtype, s.N, s.C), rounded(dtype, s.N, s.C, expected);
            backend.embedding_forward(out, tokens, wte, positions ? wpe.tensor() : Tensor(), s.T, s.first_position, {});
            EXPECT_TRUE(out.bytes() == rounded.bytes());
            EXPECT_TRUE(out.intact());
        }
    });
}

TEST(Embedding, BackwardAddsInRowOrder) {
    cpu::CpuBackend backend(2);
    for_each_shape([&](DType dtype, const Shape& s) {
        const std::vector<int32_t> token = random_integers(s.N, s.Vp, 1);
        const TestBuffer tokens(token), d_out = random_buffer(dtype, s.N, s.C, 1, 2);
        const Values d = d_out.values();
        for (const bool positions : {true, false}) {
            const TestBuffer d_wte = random_buffer(DType::F32, s.Vp, s.C, 1, 3);
            const TestBuffer d_wpe = random_buffer(DType::F32, s.T, s.C, 1, 4);
            Values by_token = d_wte.values(), by_position = d_wpe.values();
            const auto add = [](double& sum, double x) { sum = static_cast<float>(sum) + static_cast<float>(x); };
            for (int64_t i = 0; i < s.N * s.C; ++i) {
                const int64_t n = i / s.C, c = i % s.C;
                add(by_token[token[n] * s.C + c], d[i]);
                if (positions) add(by_position[n % s.T * s.C + c], d[i]);
            }
            const TestBuffer workspace = workspace_buffer(backend.embedding_backward_workspace(s.N, s.C, s.Vp, false));
            backend.embedding_backward(d_wte, positions ? d_wpe.tensor() : Tensor(), true, d_out, tokens, s.T, {},
                                       workspace);
            EXPECT_EQ(largest_error(d_wte.values(), by_token), 0);
            EXPECT_EQ(largest_error(d_wpe.values(), by_position), 0);
            EXPECT_TRUE(d_wte.intact() && d_wpe.intact() && workspace.intact());
        }
    });
}

/// A table that began as NaN, and of which no row after the first `rows` was written.
void expect_rows_beyond_untouched(const TestBuffer& table, int64_t rows) {
    const Tensor all = table;
    const std::vector<std::byte> bytes = table.bytes();
    const auto beyond = bytes.begin() + rows * all.shape[1] * size_of(all.dtype);
    EXPECT_TRUE(std::all_of(beyond, bytes.end(), [](std::byte byte) { return byte == std::byte{0xff}; }));
}

TEST(Embedding, WritingPositionsIsAddingToZeros) {
    for (const int threads : {1, 2, 3}) {
        cpu::CpuBackend backend(threads);
        for_each_shape([&](DType dtype, const Shape& s) {
            const TestBuffer tokens(random_integers(s.N, s.Vp, 1)), d_out = random_buffer(dtype, s.N, s.C, 1, 2);
            const TestBuffer workspace = workspace_buffer(backend.embedding_backward_workspace(s.N, s.C, s.Vp, false));
            const TestBuffer d_wte = random_buffer(DType::F32, s.Vp, s.C, 1, 3);
            const TestBuffer d_wte_beside = random_buffer(DType::F32, s.Vp, s.C, 1, 3);
            const TestBuffer written(DType::F32, s.T + 3, s.C), added = zeros(DType::F32, s.T + 3, s.C);
            backend.embedding_backward(d_wte, added, true, d_out, tokens, s.T, {}, workspace);
            backend.embedding_backward(d_wte_beside, written, false, d_out, tokens, s.T, {}, workspace);
            EXPECT_TRUE(d_wte_beside.bytes() == d_wte.bytes());  // Tokens are added to in both.
            const int64_t rows = std::min(s.T, s.N);
            expect_rows_beyond_untouched(written, rows);
            const Values ours = written.values(), expected = added.values();
            EXPECT_TRUE(std::equal(ours.begin(), ours.begin() + rows * s.C, expected.begin()));
            EXPECT_TRUE(written.intact() && d_wte_beside.intact() && workspace.intact());
        });
    }
}

TEST(Embedding, AddingAfterWritingIsTheSumOfBoth) {
    cpu::CpuBackend backend(2);
    for_each_shape([&](DType dtype, const Shape& s) {
        const TestBuffer tokens(random_integers(s.N, s.Vp, 1)), d_wte = zeros(DType::F32, s.Vp, s.C);
        const TestBuffer workspace = workspace_buffer(backend.embedding_backward_workspace(s.N, s.C, s.Vp, false));
        const TestBuffer d_wpe(DType::F32, s.T, s.C);
        const int64_t rows = std::min(s.T, s.N);
        Values expected(static_cast<size_t>(rows * s.C), 0.0);
        for (const uint32_t micro_batch : {0, 1}) {
            const TestBuffer d_out = random_buffer(dtype, s.N, s.C, 1, 2 + micro_batch);
            backend.embedding_backward(d_wte, d_wpe, micro_batch > 0, d_out, tokens, s.T, {}, workspace);
            const Values d = d_out.values();
            for (int64_t i = 0; i < s.N * s.C; ++i) {  // In row order, rounded at every step.
                double& sum = expected[i / s.C % s.T * s.C + i % s.C];
                sum = static_cast<float>(sum) + static_cast<float>(d[i]);
            }
        }
        const Values ours = d_wpe.values();
        EXPECT_TRUE(std::equal(expected.begin(), expected.end(), ours.begin()));
        expect_rows_beyond_untouched(d_wpe, rows);
    });
}

TEST(Embedding, ThreadCountDoesNotMatter) {
    const int64_t N = 900, T = 300, C = 384, Vp = 300;
    std::vector<int32_t> token = random_integers(N, Vp, 1);
    for (int64_t n = 0; n < N; n += 4) token[n] = 32;  // One token much more frequent than the others.
    const TestBuffer tokens(token);
    for (const DType dtype : kActivationTypes)
        expect_same_bits_at_every_thread_count([&](Backend& backend) {
            const TestBuffer wte = random_buffer(dtype, Vp, C, 1, 2), wpe = random_buffer(dtype, T, C, 1, 3);
            const TestBuffer out(dtype, N, C), d_out = random_buffer(dtype, N, C, 1, 4);
            const TestBuffer d_wte = random_buffer(DType::F32, Vp, C, 1, 5),
                             d_wpe = random_buffer(DType::F32, T, C, 1, 6);
            const TestBuffer workspace = workspace_buffer(backend.embedding_backward_workspace(N, C, Vp, false));
            backend.embedding_forward(out, tokens, wte, wpe, T, 0, {});
            backend.embedding_backward(d_wte, d_wpe, true, d_out, tokens, T, {}, workspace);
            return joined({&out, &d_wte, &d_wpe});
        });
}

}  // namespace
}  // namespace llmc
