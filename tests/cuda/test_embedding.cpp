// Embeddings. Both directions are sums in a given order, so they must match the CPU backend bit by bit.
#include "tests/cuda/cuda_testing.h"

#include <array>
#include <functional>

namespace llmc {
namespace {

struct Shape {
    int64_t N, T, C, Vp, first_position;
};

// One to three digits of the sort; one tile and several. (The scan's second round is in cuda_on_cpu/test_offsets.)
const Shape kShapes[] = {{1, 1, 1, 1, 0},       {5, 5, 8, 3, 0},          {37, 40, 100, 11, 3},
                         {36, 12, 48, 300, 1},  {130, 65, 768, 5, 0},     {64, 64, 95, 513, 0},
                         {5, 5, 16, 151936, 0}, {1100, 275, 12, 1000, 0}, {700, 700, 1, 300000, 0},
                         {2600, 650, 4, 300, 0}};

struct Case {
    Case(DType dtype, const Shape& s_, uint32_t item = 0)
        : s(s_),
          tokens(random_integers(s.N, s.Vp, 1)),
          wte(random_buffer(dtype, s.Vp, s.C, 1, 2)),
          wpe(random_buffer(dtype, s.T + s.first_position, s.C, 1, 3)),
          first(std::vector<int32_t>{static_cast<int32_t>(s.first_position)}),
          d_out(random_buffer(dtype, s.N, s.C, 1, item + 4)),
          out(dtype, s.N, s.C),
          tokens_only(dtype, s.N, s.C),
          d_wte(random_buffer(DType::F32, s.Vp, s.C, 1, 5)),
          d_wpe(random_buffer(DType::F32, s.T, s.C, 1, 6)),
          workspace(workspace_buffer(std::max(cpu_backend().embedding_backward_workspace(s.N, s.C, s.Vp, false),
                                              cuda_backend().embedding_backward_workspace(s.N, s.C, s.Vp, false)))) {}

    template <typename On>
    void run(Backend& backend, On on) const {
        backend.embedding_forward(on(out), on(tokens), on(wte), on(wpe), s.T, on(first), {});
        backend.embedding_forward(on(tokens_only), on(tokens), on(wte), Tensor(), s.T, on(first), {});
        backend.embedding_backward(on(d_wte), on(d_wpe), true, on(d_out), on(tokens), s.T, {}, on(workspace));
        backend.embedding_backward(on(d_wte), Tensor(), true, on(d_out), on(tokens), s.T, {}, on(workspace));
    }
    std::vector<std::byte> results() const { return joined({&out, &tokens_only, &d_wte, &d_wpe}); }

    Shape s;
    TestBuffer tokens, wte, wpe, first, d_out, out, tokens_only, d_wte, d_wpe, workspace;
};

TEST(CudaEmbedding, SameBitsAsCpu) {
    for (const DType dtype : kActivationTypes)
        for (const Shape& s : kShapes) {
            SCOPED_TRACE(fmt::format("{} N={} C={} Vp={}", name_of(dtype), s.N, s.C, s.Vp));
            const Case cpu(dtype, s);
            run_on_cpu([&](Backend& b, auto on) { cpu.run(b, on); });
            cuda::for_each_seed([&] {
                const Case ours(dtype, s);
                run_on_cuda([&](Backend& b, auto on) { ours.run(b, on); });
                EXPECT_TRUE(ours.out.bytes() == cpu.out.bytes());
                EXPECT_TRUE(ours.tokens_only.bytes() == cpu.tokens_only.bytes());
                EXPECT_TRUE(ours.d_wte.bytes() == cpu.d_wte.bytes());
                EXPECT_TRUE(ours.d_wpe.bytes() == cpu.d_wpe.bytes());
            });
        }
}

// Positions of the table that no row has stay as they are: here NaN.
TEST(CudaEmbedding, WritingPositionsIsAddingToZeros) {
    for (const DType dtype : kActivationTypes)
        for (const Shape& s : kShapes) {
            SCOPED_TRACE(fmt::format("{} N={} C={} Vp={}", name_of(dtype), s.N, s.C, s.Vp));
            const Case c(dtype, s), next(dtype, s, 10);
            const TestBuffer d_wte = random_buffer(DType::F32, s.Vp, s.C, 1, 5), untouched(DType::F32, s.T + 3, s.C);
            const TestBuffer written(DType::F32, s.T + 3, s.C), both(DType::F32, s.T + 3, s.C);
            const TestBuffer added = zeros(DType::F32, s.T + 3, s.C), both_added = zeros(DType::F32, s.T + 3, s.C);
            run_on_cuda([&](Backend& b, auto on) {
                const auto run = [&](const Case& of, const TestBuffer& d_wpe, bool adds) {
                    b.embedding_backward(on(d_wte), on(d_wpe), adds, on(of.d_out), on(c.tokens), s.T, {},
                                         on(c.workspace));
                };
                run(c, added, true);
                run(c, written, false);
                run(c, both_added, true);
                run(next, both_added, true);
                run(c, both, false);
                run(next, both, true);
            });
            const int64_t used = std::min(s.T, s.N) * s.C;
            const auto begins_like = [&](const TestBuffer& ours, const TestBuffer& expected) {
                const Values a = ours.values(), b = expected.values();
                return std::equal(a.begin(), a.begin() + used, b.begin());
            };
            EXPECT_TRUE(begins_like(written, added));
            EXPECT_TRUE(begins_like(both, both_added));
            EXPECT_FALSE(begins_like(both, added));
            for (const TestBuffer* ours : {&written, &both}) {
                const std::vector<std::byte> bytes = ours->bytes(), start = untouched.bytes();
                EXPECT_TRUE(std::equal(bytes.begin() + 4 * used, bytes.end(), start.begin() + 4 * used));
                EXPECT_TRUE(ours->intact());
            }
        }
}

TEST(CudaEmbedding, WritingPositionsLeavesTokensAdded) {
    const Shape s = {130, 65, 48, 5, 0};
    for (const DType dtype : kActivationTypes) {
        const Case adding(dtype, s), writing(dtype, s), cpu(dtype, s);
        const auto run = [](const Case& c, bool adds) {
            return [&c, adds](Backend& b, auto on) {
                b.embedding_backward(on(c.d_wte), on(c.d_wpe), adds, on(c.d_out), on(c.tokens), c.s.T, {},
                                     on(c.workspace));
            };
        };
        run_on_cuda(run(adding, true));
        run_on_cuda(run(writing, false));
        run_on_cpu(run(cpu, false));
        EXPECT_TRUE(writing.d_wte.bytes() == adding.d_wte.bytes());
        EXPECT_TRUE(writing.results() == cpu.results());
    }
}

/// With these tokens, whatever order the rows' tokens come in.
void expect_the_bits_of_the_cpu(const Shape& s, const std::function<int32_t(int64_t n)>& token_of) {
    for (const DType dtype : kActivationTypes) {
        SCOPED_TRACE(fmt::format("{} N={} C={} Vp={}", name_of(dtype), s.N, s.C, s.Vp));
        const Case cpu(dtype, s), ours(dtype, s);
        for (const Case* c : {&cpu, &ours}) {
            for (int64_t n = 0; n < s.N; ++n) c->tokens.tensor().as<int32_t>()[n] = token_of(n);
        }
        run_on_cpu([&](Backend& b, auto on) { cpu.run(b, on); });
        run_on_cuda([&](Backend& b, auto on) { ours.run(b, on); });
        EXPECT_TRUE(ours.results() == cpu.results());
    }
}

TEST(CudaEmbedding, OneTokenOnly) {
    expect_the_bits_of_the_cpu({900, 300, 40, 300, 0}, [](int64_t) { return 299; });
}

TEST(CudaEmbedding, AllTokensDiffer) {
    expect_the_bits_of_the_cpu({97, 97, 72, 97, 0}, [](int64_t n) { return static_cast<int32_t>(n * 37 % 97); });
}

// Runs that end before, at and behind the places of a warp, and the rows that it loads together; of whole strips of
// columns, and of others.
TEST(CudaEmbedding, RunsOfAllLengths) {
    constexpr std::array<int64_t, 12> kLengths = {1, 2, 31, 32, 33, 63, 64, 65, 95, 96, 97, 158};
    std::vector<int32_t> tokens;
    for (size_t i = 0; i < kLengths.size(); ++i) {
        tokens.insert(tokens.end(), static_cast<size_t>(kLengths[i]), static_cast<int32_t>(i * 5 % 12));
    }
    const auto N = static_cast<int64_t>(tokens.size());
    for (const int64_t C : {70, 33}) {
        expect_the_bits_of_the_cpu({N, N, C, 12, 0},
                                   [&](int64_t n) { return tokens[static_cast<size_t>(n * 389 % N)]; });
    }
}

}  // namespace
}  // namespace llmc
