// What the tests of documents that share a sequence have in common on both backends: the documents, and operations on
// all of them at once against the same on each alone. A runner is called with operation(backend, on), where on(buffer)
// is the tensor to use.
#pragma once

#include "tests/backend/backend_testing.h"

#include <spdlog/fmt/fmt.h>

#include <memory>
#include <string>
#include <vector>

namespace llmc {

/// Lengths of the documents of each sequence; every sequence has the same length.
using DocumentLengths = std::vector<std::vector<int64_t>>;

struct DocumentsCase {
    DocumentLengths lengths;
    int64_t NH, NKV, HD, window = 0;

    int64_t B() const { return static_cast<int64_t>(lengths.size()); }
    int64_t T() const {
        int64_t slots = 0;
        for (const int64_t length : lengths[0]) slots += length;
        return slots;
    }
    AttentionShape shape() const { return {B(), T(), NH, NKV, HD, window}; }
    std::string name() const { return fmt::format("B{}T{}H{}K{}D{}W{}", B(), T(), NH, NKV, HD, window); }

    /// For every row the slot where its document begins.
    std::vector<int32_t> starts() const {
        std::vector<int32_t> starts;
        for (const std::vector<int64_t>& sequence : lengths) {
            int32_t slot = 0;
            for (const int64_t length : sequence) {
                starts.insert(starts.end(), static_cast<size_t>(length), slot);
                slot += static_cast<int32_t>(length);
            }
        }
        return starts;
    }
    /// Rows [first, first + count) of every document.
    struct Rows {
        int64_t first, count;
    };
    std::vector<Rows> documents() const {
        std::vector<Rows> rows;
        int64_t first = 0;
        for (const std::vector<int64_t>& sequence : lengths) {
            for (const int64_t length : sequence) {
                rows.push_back({first, length});
                first += length;
            }
        }
        return rows;
    }
};

inline TestBuffer rows_of(const TestBuffer& buffer, const DocumentsCase::Rows& rows) {
    const Tensor all = buffer;
    TestBuffer part(buffer.dtype(), rows.count, all.shape[1]);
    const Tensor wanted = all.row_range(rows.first, rows.count);
    std::memcpy(part.tensor().data, wanted.data, static_cast<size_t>(wanted.bytes()));
    return part;
}

/// Both passes of attention; the backward also in the place of its input.
struct AttentionResults {
    TestBuffer out, lse, d_qkv;

    template <typename Runner>
    AttentionResults(const Runner& run, AttentionShape shape, const TestBuffer& qkv, const TestBuffer& d_out,
                     const TestBuffer* documents)
        : out(qkv.dtype(), shape.B * shape.T, shape.NH * shape.HD),
          lse(DType::F32, shape.B * shape.T, shape.NH),
          d_qkv(qkv.dtype(), shape.B * shape.T, shape.qkv_columns()) {
        std::unique_ptr<TestBuffer> forward, backward, backward_in_place;
        const TestBuffer in_place = rows_of(qkv, {0, shape.B * shape.T});
        run([&](Backend& backend, const auto& on) {
            forward =
                std::make_unique<TestBuffer>(workspace_buffer(backend.attention_forward_workspace(qkv.dtype(), shape)));
            backward = std::make_unique<TestBuffer>(
                workspace_buffer(backend.attention_backward_workspace(qkv.dtype(), shape, /*in_place=*/false)));
            backward_in_place = std::make_unique<TestBuffer>(
                workspace_buffer(backend.attention_backward_workspace(qkv.dtype(), shape, /*in_place=*/true)));
            if (documents != nullptr) shape.documents = on(*documents);
            backend.attention_forward(on(out), on(lse), on(qkv), shape, on(*forward));
            backend.attention_backward(on(d_qkv), on(d_out), on(qkv), on(out), on(lse), shape, on(*backward));
            backend.attention_backward(on(in_place), on(d_out), on(in_place), on(out), on(lse), shape,
                                       on(*backward_in_place));
            backend.synchronize();
        });
        EXPECT_TRUE(in_place.bytes() == d_qkv.bytes()) << "other bits in the place of the input";
        EXPECT_TRUE(in_place.intact() && backward_in_place->intact());
        EXPECT_TRUE(out.intact() && lse.intact() && d_qkv.intact() && forward->intact() && backward->intact());
    }
};

struct AttentionInputs {
    TestBuffer qkv, d_out;
    AttentionInputs(DType dtype, const AttentionShape& s)
        : qkv(random_buffer(dtype, s.B * s.T, s.qkv_columns(), 1, 1)),
          d_out(random_buffer(dtype, s.B * s.T, s.NH * s.HD, 1, 2)) {}
};

/// Documents in one call give the bits of each in a call of its own.
template <typename Runner>
void expect_attention_as_alone(const Runner& run, DType dtype, const DocumentsCase& c) {
    SCOPED_TRACE(fmt::format("{} {}", name_of(dtype), c.name()));
    const AttentionInputs x(dtype, c.shape());
    const TestBuffer starts(c.starts());
    const AttentionResults together(run, c.shape(), x.qkv, x.d_out, &starts);
    for (const DocumentsCase::Rows& rows : c.documents()) {
        AttentionShape shape = c.shape();
        shape.B = 1, shape.T = rows.count;
        const AttentionResults alone(run, shape, rows_of(x.qkv, rows), rows_of(x.d_out, rows), nullptr);
        EXPECT_TRUE(rows_of(together.out, rows).bytes() == alone.out.bytes()) << "out from row " << rows.first;
        EXPECT_TRUE(rows_of(together.lse, rows).bytes() == alone.lse.bytes()) << "lse from row " << rows.first;
        EXPECT_TRUE(rows_of(together.d_qkv, rows).bytes() == alone.d_qkv.bytes()) << "d_qkv from row " << rows.first;
    }
}

/// Tiles of other documents are not looked at: what they hold would spoil every sum.
template <typename Runner>
void expect_others_unread(const Runner& run, DType dtype, const DocumentsCase& c, size_t which) {
    SCOPED_TRACE(fmt::format("{} {}", name_of(dtype), c.name()));
    const AttentionInputs x(dtype, c.shape());
    const TestBuffer starts(c.starts());
    const AttentionResults expected(run, c.shape(), x.qkv, x.d_out, &starts);
    const DocumentsCase::Rows own = c.documents()[which];
    for (int64_t n = 0; n < c.B() * c.T(); ++n) {
        if (n >= own.first && n < own.first + own.count) continue;
        for (const TestBuffer* buffer : {&x.qkv, &x.d_out}) {
            const Tensor row = buffer->tensor().row_range(n, 1);
            std::memset(row.data, 0xff, static_cast<size_t>(row.bytes()));  // NaN
        }
    }
    const AttentionResults results(run, c.shape(), x.qkv, x.d_out, &starts);
    EXPECT_TRUE(rows_of(results.out, own).bytes() == rows_of(expected.out, own).bytes());
    EXPECT_TRUE(rows_of(results.lse, own).bytes() == rows_of(expected.lse, own).bytes());
    EXPECT_TRUE(rows_of(results.d_qkv, own).bytes() == rows_of(expected.d_qkv, own).bytes());
}

/// Positions begin anew with every document.
template <typename Runner>
void expect_rope_as_alone(const Runner& run, DType dtype, const DocumentsCase& c) {
    SCOPED_TRACE(fmt::format("{} {}", name_of(dtype), c.name()));
    const TestBuffer starts(c.starts()), table = random_buffer(DType::F32, c.T(), c.HD / 2 * 2, 1, 3);
    for (const bool inverse : {false, true}) {
        const auto turned = [&](const TestBuffer& qkv, AttentionShape shape, const TestBuffer* documents) {
            TestBuffer result = rows_of(qkv, {0, shape.B * shape.T});
            run([&](Backend& backend, const auto& on) {
                if (documents != nullptr) shape.documents = on(*documents);
                backend.rope(on(result), on(table), shape, 0, inverse);
            });
            return result;
        };
        const TestBuffer qkv = random_buffer(dtype, c.B() * c.T(), c.shape().qkv_columns(), 1, 4);
        const TestBuffer together = turned(qkv, c.shape(), &starts);
        for (const DocumentsCase::Rows& rows : c.documents()) {
            AttentionShape shape = c.shape();
            shape.B = 1, shape.T = rows.count;
            const TestBuffer alone = turned(rows_of(qkv, rows), shape, nullptr);
            EXPECT_TRUE(rows_of(together, rows).bytes() == alone.bytes()) << "from row " << rows.first;
        }
    }
}

/// Both passes, against plain loops: sums are in the order of the rows.
template <typename Runner>
void expect_embedding_by_position(const Runner& run, DType dtype, const DocumentsCase& c, int64_t C) {
    SCOPED_TRACE(fmt::format("{} {} C{}", name_of(dtype), c.name(), C));
    const int64_t N = c.B() * c.T(), Vp = 19;
    const std::vector<int32_t> token = random_integers(N, Vp, 1), start = c.starts();
    const TestBuffer tokens(token), starts(start), wte = random_buffer(dtype, Vp, C, 1, 2);
    const TestBuffer wpe = random_buffer(dtype, c.T() + 3, C, 1, 3), d_out = random_buffer(dtype, N, C, 1, 4);
    const TestBuffer out(dtype, N, C);
    const Values w = wte.values(), p = wpe.values(), d = d_out.values();
    for (const bool adds : {false, true}) {
        const TestBuffer d_wte = random_buffer(DType::F32, Vp, C, 1, 5);
        const TestBuffer d_wpe = random_buffer(DType::F32, c.T() + 3, C, 1, 6);
        Values sum(static_cast<size_t>(N * C)), by_token = d_wte.values(), by_position = d_wpe.values();
        if (!adds) std::fill_n(by_position.begin(), c.T() * C, 0.0);
        const auto add = [](double& total, double x) { total = static_cast<float>(total) + static_cast<float>(x); };
        for (int64_t i = 0; i < N * C; ++i) {
            const int64_t n = i / C, column = i % C, position = n % c.T() - start[n];
            sum[i] = static_cast<float>(w[token[n] * C + column]) + static_cast<float>(p[position * C + column]);
            add(by_token[token[n] * C + column], d[i]);
            add(by_position[position * C + column], d[i]);
        }
        std::unique_ptr<TestBuffer> workspace;
        run([&](Backend& backend, const auto& on) {
            workspace = std::make_unique<TestBuffer>(
                workspace_buffer(backend.embedding_backward_workspace(N, C, Vp, /*has_documents=*/true)));
            backend.embedding_forward(on(out), on(tokens), on(wte), on(wpe), c.T(), 0, on(starts));
            backend.embedding_backward(on(d_wte), on(d_wpe), adds, on(d_out), on(tokens), c.T(), on(starts),
                                       on(*workspace));
        });
        EXPECT_TRUE(out.bytes() == TestBuffer(dtype, N, C, sum).bytes());
        EXPECT_EQ(largest_error(d_wte.values(), by_token), 0);
        EXPECT_EQ(largest_error(d_wpe.values(), by_position), 0);
        EXPECT_TRUE(out.intact() && d_wte.intact() && d_wpe.intact() && workspace->intact());
    }
}

template <typename Runner>
void expect_rows_gathered(const Runner& run, DType dtype, int64_t C) {
    SCOPED_TRACE(fmt::format("{} C{}", name_of(dtype), C));
    const TestBuffer x = random_buffer(dtype, 7, C, 1, 1);
    const std::vector<int32_t> row = {3, -1, 0, 6, 6, -1};
    const TestBuffer rows(row), out(dtype, static_cast<int64_t>(row.size()), C);
    run([&](Backend& backend, const auto& on) { backend.gather_rows(on(out), on(x), on(rows)); });
    const Values values = x.values();
    Values expected;
    for (const int32_t from : row) {
        for (int64_t c = 0; c < C; ++c) expected.push_back(from < 0 ? 0 : values[from * C + c]);
    }
    EXPECT_EQ(out.values(), expected);
    EXPECT_TRUE(out.intact());
}

}  // namespace llmc
