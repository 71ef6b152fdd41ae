// Kernels that sum over rows, on tensors of more than 2^32 elements, nearly all of them zeros. The others are small
// whole numbers, so that sums are exact, whoever adds them up.
#include "tests/cuda_on_cpu/offsets.h"

#include <numeric>

namespace llmc {
namespace {

using Fill = RowOperand::Fill;

constexpr int64_t kColumns = 2048, kRows = (1 << 21) + 64, kCount = kRows * kColumns;
constexpr int64_t kGroups = 512;  ///< Of rows, in which norms sum.

/// What an operation gives at both sizes beside its rows.
class BothSums {
  public:
    void keep(Backend& backend, const Tensor& tensor) {
        values_.emplace_back(static_cast<size_t>(tensor.count()));
        backend.copy_to_host(values_.back().data(), tensor);
    }
    /// They were kept in the same order at both.
    ~BothSums() {
        const size_t half = values_.size() / 2;
        EXPECT_TRUE(half > 0 && values_.size() % 2 == 0);
        for (size_t i = 0; i < half; ++i) EXPECT_EQ(values_[i], values_[half + i]) << i;
    }

  private:
    std::vector<std::vector<float>> values_;
};

/// A workspace of zeros: what blocks that did not run would have given.
constexpr int64_t kNormPartials = kGroups * 2 * kColumns;

void run_norm_backward() {
    for (const DType dtype : kActivationTypes) {
        const TestBuffer weight = whole_numbers(dtype, kColumns, 1, 21);
        const TestBuffer d_weight = zeros(DType::F32, kColumns), d_bias = zeros(DType::F32, kColumns);
        BothSums sums;
        expect_rows(kRows, ceil_div(kRows, kGroups),
                    {{"d_x", dtype, kColumns, Fill::Nothing},
                     {"d_out", dtype, kColumns, Fill::Whole},
                     {"x", dtype, kColumns, Fill::Whole},
                     {"mean", DType::F32, 1, Fill::Nothing},
                     {"rstd", DType::F32, 1, Fill::Ones}},
                    [&](Backend& b, const auto& x, const auto& on, auto&) {
                        const HugeTensor workspace(DType::F32, kNormPartials);
                        b.layernorm_backward(x[0], false, on(d_weight), on(d_bias), false, x[1], x[2], flat(x[3]),
                                             flat(x[4]), on(weight), workspace);
                        sums.keep(b, on(d_weight));
                        sums.keep(b, on(d_bias));
                    },
                    {{"sum_partials_kernel", all_blocks}});
    }
}

void run_head_norm_backward() {
    const DType dtype = DType::BF16;
    const TestBuffer q_weight = whole_numbers(dtype, 64, 1, 21), k_weight = whole_numbers(dtype, 64, 1, 22);
    const TestBuffer d_q = zeros(DType::F32, 64), d_k = zeros(DType::F32, 64);
    BothSums sums;
    expect_rows(kRows, ceil_div(kRows, kGroups),
                {{"d_qkv", dtype, kColumns, Fill::Nothing},
                 {"d_out", dtype, kColumns, Fill::Whole},
                 {"qkv", dtype, kColumns, Fill::Whole},
                 {"rstd", DType::F32, 24, Fill::Ones}},
                [&](Backend& b, const auto& x, const auto& on, auto&) {
                    const AttentionShape shape = {.B = 1, .T = x[0].shape[0], .NH = 16, .NKV = 8, .HD = 64};
                    const HugeTensor workspace(DType::F32, kNormPartials);
                    b.head_norm_backward(x[0], on(d_q), on(d_k), false, x[1], x[2], x[3], on(q_weight), on(k_weight),
                                         shape, workspace);
                    sums.keep(b, on(d_q));
                    sums.keep(b, on(d_k));
                },
                {{"sum_partials_kernel", all_blocks}});
}

constexpr int64_t kBiasColumns = 128, kBiasRows = (1 << 25) + 64, kBiasGroups = 1024;

void run_column_sums() {
    for (const DType dtype : kActivationTypes) {
        const TestBuffer d_bias = zeros(DType::F32, kBiasColumns);
        BothSums sums;
        expect_rows(kBiasRows, ceil_div(kBiasRows, kBiasGroups), {{"d_out", dtype, kBiasColumns, Fill::Whole}},
                    [&](Backend& b, const auto& x, const auto& on, auto&) {
                        const HugeTensor workspace(DType::F32, kBiasGroups * kBiasColumns);
                        b.matmul_backward_weight({}, on(d_bias), false, x[0], {}, workspace);
                        sums.keep(b, on(d_bias));
                    },
                    {{"sum_partials_kernel", all_blocks}});
    }
}

// ---- adapters -------------------------------------------------------------------------------------------------------

constexpr int64_t kTokens = 2048, kIn = 1 << 24, kRank = 32, kTokenGroups = 8;

/// Blocks of both kernels that have to do with these columns, 128 at a time.
void run_adapter_sums() {
    const Places tokens = {0, 127, 128, 255, 256, kTokens - 1}, columns = {0, kIn / 2, kIn - 128};
    const HugeTensor d_a(DType::F32, kRank, kIn), d_z(DType::F32, kTokens, kRank), x(DType::BF16, kTokens, kIn);
    const HugeTensor workspace(DType::F32, kTokenGroups * kRank * kIn);
    const auto n = static_cast<int64_t>(tokens.size());
    const TestBuffer z = whole_numbers(DType::F32, n, kRank, 1), values = whole_numbers(DType::BF16, n, 3 * 128, 2);
    d_z.set(tokens, z);
    for (int64_t i = 0; i < n; ++i)
        for (int64_t part = 0; part < 3; ++part)
            std::memcpy(x.tensor().as<bf16>() + tokens[i] * kIn + columns[part],
                        values.tensor().as<bf16>() + (i * 3 + part) * 128, 128 * sizeof(bf16));
    const Choice of_sums = [&](const cuda_on_cpu::Grid& grid) {
        std::vector<uint64_t> blocks;
        for (int64_t group = 0; group < kTokenGroups; ++group)
            for (const int64_t column : columns)
                for (uint64_t y = 0; y < grid.y; ++y)
                    blocks.push_back(static_cast<uint64_t>(group * (kIn / 128) + column / 128) + grid.x * y);
        return blocks;
    };
    const Choice of_partials = [&](const cuda_on_cpu::Grid&) {
        std::vector<uint64_t> blocks;
        for (int64_t r = 0; r < kRank; ++r)
            for (const int64_t column : columns)
                for (int64_t k = 0; k < 128; k += 32)
                    blocks.push_back(static_cast<uint64_t>((r * kIn + column + k) / 32));
        return blocks;
    };
    const AdapterShape shape = {kRank, {{0, kIn, 1}}};
    with_blocks({{"sum_kernel", of_sums}, {"sum_partials_kernel", of_partials}},
                [&] { cuda_backend().adapter_down_backward_weight(d_a, false, d_z, x, shape, {}, workspace); });
    const Values of_z = z.values(), of_x = values.values();
    for (int64_t r = 0; r < kRank; ++r)
        for (int64_t k = 0; k < 3 * 128; ++k) {
            double sum = 0;
            for (int64_t i = 0; i < n; ++i) sum += of_z[i * kRank + r] * of_x[i * 3 * 128 + k];
            ASSERT_EQ(d_a.tensor().as<float>()[r * kIn + columns[k / 128] + k % 128], sum) << r << " " << k;
        }
}

// ---- the embedding's backward
// -----------------------------------------------------------------------------------------

constexpr int64_t kTile = 512, kDigits = 512;  ///< Of the sort: rows of a tile, values of a digit.
constexpr int64_t kPlaces = 32;                ///< Of the sorted rows: whose runs one warp adds up.

/// As many rows as there may be, of one column. The sort's first pass reads four tiles of them, and writes the last
/// four tiles, where the other passes go on; the sums of the counts, which one block makes of all tiles, are made here.
constexpr int64_t kMostRows = INT32_MAX;

void run_sort_of_most_rows() {
    constexpr int64_t N = kMostRows;
    const Places tiles = {0, 1, N / kTile / 2, N / kTile};
    const HugeTensor d_wte(DType::F32, N), d_wpe(DType::F32, N), d_out(DType::F32, N), tokens(DType::I32, N);
    const HugeTensor workspace(DType::U8, cuda_backend().embedding_backward_workspace(N, 1, N, false));
    std::map<int32_t, double> expected;
    std::vector<int32_t> sorted;
    Places rows;
    for (const int64_t tile : tiles)
        for (int64_t n = tile * kTile; n < std::min(N, (tile + 1) * kTile); ++n) {
            const auto draw = uniform(7, RngStream::Test, 5, n % 997);  // Some tokens come several times.
            const auto token = static_cast<int32_t>(1 + draw * static_cast<double>(N - 2));
            tokens.tensor().as<int32_t>()[n] = token;
            d_out.tensor().as<float>()[n] = static_cast<float>(n % 7 - 3);
            expected[token] += static_cast<double>(n % 7 - 3);
            sorted.push_back(token);
            rows.push_back(n);
        }
    ASSERT_EQ((N - static_cast<int64_t>(sorted.size())) % kTile, 0);
    Places in_tiles = tiles;
    const Choice of_tiles = [&](const cuda_on_cpu::Grid& grid) {
        const std::vector<uint64_t> blocks(in_tiles.begin(), in_tiles.end());
        if (grid.kernel.find("scatter") != std::string::npos)
            in_tiles = {N / kTile - 3, N / kTile - 2, N / kTile - 1, N / kTile};
        return blocks;
    };
    const Choice scan_here = [&](const cuda_on_cpu::Grid&) {
        auto* const totals = reinterpret_cast<int32_t*>(static_cast<char*>(workspace.tensor().data) +
                                                        4 * round_up(N * size_of(DType::I32), kTensorAlignment));
        int32_t* const counts = totals + kDigits;
        auto before = static_cast<int32_t>(N - static_cast<int64_t>(sorted.size()));  // Rows that are not here.
        for (int64_t digit = 0; digit < kDigits; ++digit) {
            for (const int64_t tile : in_tiles)
                before += std::exchange(counts[digit * ceil_div(N, kTile) + tile], before);
            totals[digit] = std::exchange(before, 0);
        }
        return std::vector<uint64_t>();
    };
    Places places(sorted.size());
    std::iota(places.begin(), places.end(), N - static_cast<int64_t>(sorted.size()));
    with_blocks({{"count_digits_kernel", of_tiles},
                 {"scan_kernel", scan_here},
                 {"scatter_kernel", of_tiles},
                 {"add_runs_kernel", blocks_of_rows(N, places, 4 * kPlaces)},
                 {"sum_by_position_kernel", blocks_of_rows(N, rows)}},
                [&] { cuda_backend().embedding_backward(d_wte, d_wpe, false, d_out, tokens, N, {}, workspace); });
    launched_kernels.erase("scan_kernel");  // None of its blocks ran.
    for (const auto& [token, sum] : expected) ASSERT_EQ(d_wte.tensor().as<float>()[token], sum) << token;
    for (const int64_t n : rows) ASSERT_EQ(d_wpe.tensor().as<float>()[n], static_cast<float>(n % 7 - 3)) << n;
}

/// Many columns: the whole sort runs.
constexpr int64_t kWide = 16384, kWideRows = (1 << 18) + 64;

void run_embedding_backward() {
    constexpr int64_t N = kWideRows, C = kWide;
    const HugeTensor d_wte(DType::F32, N, C), d_wpe(DType::F32, N, C), d_out(DType::BF16, N, C);
    const HugeTensor tokens(DType::I32, N), documents(DType::I32, N);
    const HugeTensor workspace(DType::U8, cuda_backend().embedding_backward_workspace(N, C, N, true));
    huge_counts.insert(kDigits * ceil_div(N, kTile));  // In the workspace.
    const Places places = interesting_rows(N, {C});
    const auto n = static_cast<int64_t>(places.size());
    const TestBuffer gradients = whole_numbers(DType::BF16, n, C, 1);
    d_out.set(places, gradients);
    const Values values = gradients.values();
    // Rows of the same token or position add up; all other rows are zeros of token 0, in documents of their own.
    std::map<int64_t, Values> by_token, by_position;
    const auto add = [&](Values& sum, int64_t i) {
        sum.resize(static_cast<size_t>(C));
        for (int64_t c = 0; c < C; ++c) sum[c] += values[i * C + c];
    };
    for (int64_t i = 0; i < n; ++i) {
        const int64_t row = places[i], token = i % 3 == 0 ? N - 1 : places[i] / 2 + 5;
        const int64_t document = i % 2 == 0 ? 0 : std::max<int64_t>(0, row - 3);
        tokens.tensor().as<int32_t>()[row] = static_cast<int32_t>(token);
        documents.tensor().as<int32_t>()[row] = static_cast<int32_t>(document);
        add(by_token[token], i);
        add(by_position[row - document], i);
    }
    // Blocks that have the beginnings of these runs in the sorted rows.
    const auto of_runs = [&](const std::map<int64_t, Values>& sums, const std::function<int64_t(int64_t row)>& key_of) {
        Places begins;
        for (const auto& [key, sum] : sums) {
            int64_t smaller = 0;
            for (int64_t row = 0; row < N; ++row) smaller += key_of(row) < key;
            begins.push_back(smaller);
        }
        return blocks_of_rows(N, begins, kPlaces);
    };
    const auto token_of = [&](int64_t row) { return tokens.tensor().as<int32_t>()[row]; };
    const auto position_of = [&](int64_t row) { return row - documents.tensor().as<int32_t>()[row]; };
    with_blocks({{"add_runs_kernel", of_runs(by_token, token_of)}},
                [&] { cuda_backend().embedding_backward(d_wte, {}, true, d_out, tokens, N, documents, workspace); });
    with_blocks({{"add_runs_kernel", of_runs(by_position, position_of)}},
                [&] { cuda_backend().embedding_backward({}, d_wpe, true, d_out, tokens, N, documents, workspace); });
    const auto compare = [&](const HugeTensor& ours, const std::map<int64_t, Values>& exact) {
        for (const auto& [row, sum] : exact) {
            const auto* const got = ours.tensor().as<float>() + row * C;
            EXPECT_TRUE(std::equal(sum.begin(), sum.end(), got)) << row;
        }
    };
    compare(d_wte, by_token);
    compare(d_wpe, by_position);
    // And of sequences without documents.
    with_blocks({{"sum_by_position_kernel", blocks_of_rows(N, places)}},
                [&] { cuda_backend().embedding_backward({}, d_wpe, false, d_out, {}, N, {}, {}); });
    d_wpe.expect(places, converted(DType::F32, gradients), "d_wpe");
}

// ---- one block ------------------------------------------------------------------------------------------------------

constexpr int64_t kLosses = 1 << 24;

void run_loss_sum() {
    const HugeTensor losses(DType::F32, kLosses);
    const Places places = {0, 1, kLosses / 2, kLosses - 2, kLosses - 1};
    losses.set(places, TestBuffer(DType::F32, 5, 1, Values{1, 2, 3, 4, 5}));
    TestBuffer total(DType::F64, 1);
    OnDevice device;
    with_blocks({}, [&] { cuda_backend().accumulate_loss(device(total), false, losses); });
    device.fetch();
    EXPECT_EQ(total.values()[0], 15);
}

constexpr NormLayout kNormLayout = {.ranks = 2, .buckets = 3, .stride = int64_t{1} << 30};

void run_norm() {
    const HugeTensor sums(DType::F64, kNormLayout.count());
    const TestBuffer pieces(std::vector<int32_t>{5, 3, 4}), norm(DType::F64, 1);
    double exact = 0;
    for (int64_t bucket = 0; bucket < 3; ++bucket) {
        const int64_t piece = pieces.tensor().as<int32_t>()[bucket];
        for (int64_t chunk = 0; chunk < 2 * piece; ++chunk) {
            const double value = static_cast<double>(bucket * 10 + chunk + 1);
            sums.tensor().as<double>()[kNormLayout.index(bucket, chunk, piece)] = value;
            exact += value;
        }
    }
    OnDevice device;
    with_blocks({}, [&] { cuda_backend().global_norm(device(norm), sums, device(pieces), kNormLayout); });
    device.fetch();
    EXPECT_EQ(norm.values()[0], std::sqrt(exact));
}

}  // namespace

std::vector<OffsetCase> offset_cases_of_sums() {
    constexpr int64_t kWideCount = kWideRows * kWide;
    return {
        {"NormBackward", {{"norm_backward_kernel", kCount}, {"sum_partials_kernel", kNormPartials}}, run_norm_backward},
        {"HeadNormBackward",
         {{"head_norm_backward_kernel", kCount}, {"sum_partials_kernel", kNormPartials}},
         run_head_norm_backward},
        {"ColumnSums",
         {{"partial_sums_kernel", kBiasRows * kBiasColumns}, {"sum_partials_kernel", kBiasGroups * kBiasColumns}},
         run_column_sums},
        {"AdapterWeights",
         {{"sum_kernel", kTokens * kIn}, {"sum_partials_kernel", kTokenGroups * kRank * kIn}},
         run_adapter_sums},
        {"MostRows",
         {{"count_digits_kernel", kMostRows},
          {"scatter_kernel", kMostRows},
          {"add_runs_kernel", kMostRows},
          {"sum_by_position_kernel", kMostRows}},
         run_sort_of_most_rows},
        {"EmbeddingBackward",
         {{"count_digits_kernel", kWideRows},
          {"scan_kernel", kDigits * ceil_div(kWideRows, kTile)},
          {"scatter_kernel", kWideRows},
          {"add_runs_kernel", kWideCount},
          {"positions_kernel", kWideRows},
          {"sum_by_position_kernel", kWideCount}},
         run_embedding_backward},
        {"LossSum", {{"accumulate_loss_kernel", kLosses}}, run_loss_sum},
        {"GlobalNorm", {{"norm_kernel", kNormLayout.count()}}, run_norm},
    };
}

}  // namespace llmc
