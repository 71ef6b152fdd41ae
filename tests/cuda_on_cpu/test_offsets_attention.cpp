// Attention beyond 2^32 elements: one sequence of millions of positions, and many sequences.
//
// A sequence of zeros has a few chunks of three tiles of numbers, and a window that is shorter than a tile: what the
// middle tile of a chunk gives is what it gives in a sequence of the chunk alone. Chunks begin at multiples of the
// largest tile of any kernel.
#include "tests/cuda_on_cpu/offsets.h"

namespace llmc {
namespace {

constexpr int64_t kTile = 128, kChunk = 3 * kTile;

/// The last head of one sequence is looked at in each chunk.
struct Chunk {
    int64_t b, first;    ///< Position.
    int64_t begin, end;  ///< Of the rows, in the chunk, that a sequence of the chunk alone has, too.
};

struct Setting {
    AttentionShape shape;
    std::vector<Chunk> chunks;
    int64_t rows;  ///< Of a chunk.
};

/// Where the tiles of the kernels are in their grids.
enum class Tiles { First, Second };

class AttentionOffsets {
  public:
    AttentionOffsets(Backend& backend, DType dtype, const Setting& setting)
        : backend_(backend),
          dtype_(dtype),
          setting_(setting),
          qkv_(dtype, N(), shape().qkv_columns()),
          d_qkv_(dtype, N(), shape().qkv_columns()),
          out_(dtype, N(), shape().NH * shape().HD),
          d_out_(dtype, N(), shape().NH * shape().HD),
          lse_(DType::F32, N(), shape().NH),
          workspace_(DType::F32, backend.attention_backward_workspace(dtype, shape(), /*in_place=*/true) / 4),
          documents_(DType::I32, N()) {
        for (size_t i = 0; i < setting.chunks.size(); ++i) {
            const auto item = static_cast<uint32_t>(3 * i + 1);
            numbers_.push_back(random_buffer(dtype, setting.rows, shape().qkv_columns(), 1, item));
            d_numbers_.push_back(random_buffer(dtype, setting.rows, shape().NH * shape().HD, 1, item + 1));
            qkv_.set(places(i), numbers_.back());
            d_out_.set(places(i), d_numbers_.back());
        }
    }

    /// Both passes, the backward also in the place of qkv. With documents, one begins in the middle tile of every
    /// chunk.
    void run(Tiles tiles, bool with_documents) {
        AttentionShape whole = shape();
        if (with_documents) {
            for (size_t i = 0; i < setting_.chunks.size(); ++i)
                for (int64_t row = 0; row < setting_.rows; ++row)
                    documents_.tensor().as<int32_t>()[places(i)[row]] =
                        static_cast<int32_t>(setting_.chunks[i].first + document_of(row));
            whole.documents = flat(documents_);
        }
        const auto run_blocks = [&](const std::function<void()>& work) {
            with_blocks(
                {{"attention_rows_kernel", by_tile(Tiles::First, shape(), setting_.chunks)},
                 {"place_key_gradients_kernel", by_row()}},
                [&] { work(), backend_.synchronize(); }, by_tile(tiles, shape(), setting_.chunks));
        };
        run_blocks([&] {
            backend_.attention_forward(out_, lse_, qkv_, whole, {});
            backend_.attention_backward(d_qkv_, d_out_, qkv_, out_, lse_, whole, workspace_);
        });
        std::vector<Alone> alone;
        for (size_t i = 0; i < setting_.chunks.size(); ++i) {
            alone.push_back(run_alone(i, tiles, with_documents));
            compare(i, alone[i], d_qkv_);
        }
        run_blocks([&] { backend_.attention_backward(qkv_, d_out_, qkv_, out_, lse_, whole, workspace_); });
        for (size_t i = 0; i < setting_.chunks.size(); ++i) {
            compare(i, alone[i], qkv_);
            qkv_.set(places(i), numbers_[i]);
        }
    }

  private:
    const AttentionShape& shape() const { return setting_.shape; }
    int64_t N() const { return shape().B * shape().T; }
    /// Of row `row` of a chunk, in the chunk; those before the first chunk's begin with it.
    int64_t document_of(int64_t row) const { return row < setting_.rows / 2 + 11 ? 0 : setting_.rows / 2 + 11; }
    Places places(size_t i) const {
        Places rows;
        const Chunk& chunk = setting_.chunks[i];
        for (int64_t row = 0; row < setting_.rows; ++row) rows.push_back(chunk.b * shape().T + chunk.first + row);
        return rows;
    }

    /// Blocks of the chunks' tiles, in tensors of `shape`, of the last key/value head and its queries' heads. Kernels
    /// that walk keys begin with the last tile.
    Choice by_tile(Tiles tiles, const AttentionShape& shape, const std::vector<Chunk>& chunks) const {
        return [this, tiles, shape, chunks](const cuda_on_cpu::Grid& grid) {
            const auto is_of = [&](const char* word) { return grid.kernel.find(word) != std::string::npos; };
            const bool first = tiles == Tiles::First || is_of("_rows_kernel");
            const bool from_the_end = is_of("forward") || is_of("queries");
            const auto all_tiles = static_cast<int64_t>(first ? grid.x : grid.y);
            const auto heads = static_cast<int64_t>(first ? grid.y : grid.x / static_cast<uint64_t>(shape.B));
            const int64_t rows_of_tile = ceil_div(shape.T, all_tiles);
            const int64_t of_group = is_of("keys") ? 1 : shape.NH / shape.NKV;
            std::set<uint64_t> blocks;
            for (const Chunk& chunk : chunks)
                for (int64_t at = chunk.first; at < chunk.first + setting_.rows; at += rows_of_tile)
                    for (int64_t h = heads - of_group; h < heads; ++h) {
                        const int64_t in_order = at / rows_of_tile;
                        const int64_t tile = from_the_end ? all_tiles - 1 - in_order : in_order;
                        const int64_t x = first ? tile : chunk.b * heads + h, y = first ? h : tile;
                        const int64_t z = first ? chunk.b : 0;
                        blocks.insert(static_cast<uint64_t>(x) +
                                      grid.x * (static_cast<uint64_t>(y) + grid.y * static_cast<uint64_t>(z)));
                    }
            return std::vector<uint64_t>(blocks.begin(), blocks.end());
        };
    }

    /// Blocks of the chunks' rows where keys' and values' gradients are put in place: 256 threads, 16 bytes to each, of
    /// one row after the other.
    Choice by_row() const {
        return [this](const cuda_on_cpu::Grid&) {
            const int64_t of_row = 2 * shape().kv_heads_in_place() * shape().HD;
            const int64_t of_block = 256 * 16 / size_of(dtype_);
            std::set<uint64_t> blocks;
            for (size_t i = 0; i < setting_.chunks.size(); ++i)
                for (const int64_t row : places(i))
                    for (int64_t at = row * of_row / of_block; at * of_block < (row + 1) * of_row; ++at)
                        blocks.insert(static_cast<uint64_t>(at));
            return std::vector<uint64_t>(blocks.begin(), blocks.end());
        };
    }

    /// What the last head of a chunk gives in a sequence of the chunk alone.
    struct Alone {
        TestBuffer out, lse, d_qkv;
    };
    Alone run_alone(size_t i, Tiles tiles, bool with_documents) const {
        AttentionShape shape = setting_.shape;
        shape.B = 1, shape.T = setting_.rows;
        Alone result = {TestBuffer(dtype_, shape.T, shape.NH * shape.HD), TestBuffer(DType::F32, shape.T, shape.NH),
                        TestBuffer(dtype_, shape.T, shape.qkv_columns())};
        std::vector<int32_t> starts;
        for (int64_t row = 0; row < shape.T; ++row) starts.push_back(static_cast<int32_t>(document_of(row)));
        const TestBuffer documents(starts);
        const TestBuffer workspace =
            workspace_buffer(backend_.attention_backward_workspace(dtype_, shape, /*in_place=*/false));
        OnDevice device;
        for (const TestBuffer* buffer : std::initializer_list<const TestBuffer*>{
                 &result.out, &result.lse, &result.d_qkv, &documents, &workspace, &numbers_[i], &d_numbers_[i]})
            device(*buffer);
        cuda_backend().synchronize();  // Its stream may be another than the backend's.
        if (with_documents) shape.documents = device(documents);
        const std::vector<Chunk> all = {{.b = 0, .first = 0, .begin = 0, .end = shape.T}};
        with_blocks(
            {{"attention_rows_kernel", by_tile(Tiles::First, shape, all)}},
            [&] {
                const Tensor out = device(result.out), lse = device(result.lse), qkv = device(numbers_[i]);
                backend_.attention_forward(out, lse, qkv, shape, {});
                backend_.attention_backward(device(result.d_qkv), device(d_numbers_[i]), qkv, out, lse, shape,
                                            device(workspace));
                backend_.synchronize();
            },
            by_tile(tiles, shape, all));
        device.fetch();
        return result;
    }

    void compare(size_t i, const Alone& alone, const HugeTensor& gradient) const {
        SCOPED_TRACE(fmt::format("{} chunk {}", name_of(dtype_), i));
        const int64_t NKV = shape().NKV, HD = shape().HD, columns = shape().NH * HD, of_keys = columns + (NKV - 1) * HD;
        compare_columns(i, out_, alone.out, columns - HD, HD, "out");
        compare_columns(i, lse_, alone.lse, shape().NH - 1, 1, "lse");
        compare_columns(i, gradient, alone.d_qkv, columns - HD, HD, "d_queries");
        compare_columns(i, gradient, alone.d_qkv, of_keys, HD, "d_keys");
        compare_columns(i, gradient, alone.d_qkv, of_keys + NKV * HD, HD, "d_values");
    }

    /// Columns [first, first + count), those of the last head, of the rows that both have.
    void compare_columns(size_t i, const HugeTensor& huge, const TestBuffer& small, int64_t first, int64_t count,
                         const char* what) const {
        const Tensor x = huge.tensor(), y = small.tensor();
        const int64_t size = size_of(x.dtype);
        for (int64_t row = setting_.chunks[i].begin; row < setting_.chunks[i].end; ++row) {
            const char* const ours = huge.row(places(i)[row]) + first * size;
            const char* const alone = static_cast<const char*>(y.data) + (row * y.shape[1] + first) * size;
            ASSERT_EQ(std::memcmp(ours, alone, static_cast<size_t>(count * size)), 0) << what << ", row " << row;
        }
    }

    Backend& backend_;
    DType dtype_;
    const Setting& setting_;
    HugeTensor qkv_, d_qkv_, out_, d_out_, lse_, workspace_, documents_;
    std::vector<TestBuffer> numbers_, d_numbers_;
};

/// As many positions as the kernels for capability 9.0 take; 2^33 elements of qkv.
const Setting& long_sequence() {
    static const Setting setting = [] {
        constexpr int64_t T = 65535 * kTile;
        Setting result;
        result.shape = {.B = 1, .T = T, .NH = 8, .NKV = 4, .HD = 64, .window = 100};
        result.rows = kChunk;
        const int64_t columns = result.shape.qkv_columns();
        result.chunks = {{0, 0, 0, 2 * kTile}, {0, T - kChunk, kTile, kChunk}};
        for (const int64_t element : {int64_t{1} << 31, int64_t{1} << 32})
            result.chunks.push_back({0, element / columns / kChunk * kChunk, kTile, 2 * kTile});
        return result;
    }();
    return setting;
}

/// As many as a launch takes.
const Setting& many_sequences() {
    static const Setting setting = [] {
        constexpr int64_t B = 65535, T = kTile;
        Setting result;
        result.shape = {.B = B, .T = T, .NH = 8, .NKV = 4, .HD = 64};
        result.rows = T;
        const int64_t elements = T * result.shape.qkv_columns();
        for (const int64_t b : {int64_t{0}, (int64_t{1} << 31) / elements, (int64_t{1} << 32) / elements - 1, B - 1})
            result.chunks.push_back({b, 0, 0, T});
        return result;
    }();
    return setting;
}

int64_t count_of(const Setting& setting) { return setting.shape.B * setting.shape.T * setting.shape.qkv_columns(); }

void run_attention(Backend& backend, DType dtype, Tiles tiles) {
    AttentionOffsets(backend, dtype, many_sequences()).run(tiles, false);
    AttentionOffsets of_long(backend, dtype, long_sequence());
    // Only the portable kernels of bf16 are others for windows than for documents.
    if (dtype == DType::BF16 && tiles == Tiles::First) of_long.run(tiles, false);
    of_long.run(tiles, true);
}

// ---- more sequences than a launch takes ----------------------------------------------------------------------------

constexpr int64_t kSequences = 65535 + 7;

/// Sequences of one position, which give their values; their gradients go to the values alone.
void run_parts() {
    const AttentionShape shape = {.B = kSequences, .T = 1, .NH = 1, .NKV = 1, .HD = 64};
    const Places places = {0, 1, 65534, 65535, 65536, kSequences - 1};
    const auto n = static_cast<int64_t>(places.size());
    const TestBuffer values = random_buffer(DType::BF16, n, 64, 1, 1),
                     d_values = random_buffer(DType::BF16, n, 64, 1, 2);
    const HugeTensor qkv(DType::BF16, kSequences, 3 * 64), d_qkv(DType::BF16, kSequences, 3 * 64);
    const HugeTensor out(DType::BF16, kSequences, 64), d_out(DType::BF16, kSequences, 64), lse(DType::F32, kSequences);
    const HugeTensor workspace(DType::F32,
                               cuda_backend().attention_backward_workspace(DType::BF16, shape, /*in_place=*/true) / 4);
    const auto value = [&](const HugeTensor& tensor, int64_t place) {
        return tensor.row(place) + 2 * 64 * sizeof(bf16);
    };
    const auto expected = [&](const TestBuffer& rows, int64_t i) { return rows.tensor().as<bf16>() + i * 64; };
    for (int64_t i = 0; i < n; ++i) std::memcpy(value(qkv, places[i]), expected(values, i), 64 * sizeof(bf16));
    d_out.set(places, d_values);
    const Choice choice = [&](const cuda_on_cpu::Grid& grid) {
        std::set<uint64_t> blocks;
        for (const int64_t place : places)
            if (const auto b = static_cast<uint64_t>(place % 65535); b < grid.z)
                for (uint64_t x = 0; x < grid.x; ++x) blocks.insert(x + grid.x * b);
        return std::vector<uint64_t>(blocks.begin(), blocks.end());
    };
    with_blocks(
        {},
        [&] {
            cuda_backend().attention_forward(out, lse, qkv, shape, {});
            cuda_backend().attention_backward(d_qkv, d_out, qkv, out, lse, shape, workspace);
            cuda_backend().attention_backward(qkv, d_out, qkv, out, lse, shape, workspace);
        },
        choice);
    out.expect(places, values, "out");
    for (int64_t i = 0; i < n; ++i) {
        EXPECT_EQ(std::memcmp(value(d_qkv, places[i]), expected(d_values, i), 64 * sizeof(bf16)), 0) << places[i];
        EXPECT_EQ(std::memcmp(value(qkv, places[i]), expected(d_values, i), 64 * sizeof(bf16)), 0) << places[i];
    }
}

// ---- a cache
// ---------------------------------------------------------------------------------------------------------

constexpr int64_t kPositions = (1 << 18) + 64, kCacheHeads = 128, kCacheColumns = kCacheHeads * 128;

/// What a token's heads have of each part of 512 positions: two sums and a head's channels.
constexpr int64_t kPartNumbers = kCacheHeads * ceil_div(kPositions, 512) * (128 + 2);

/// A new token at the end of a cache, of which it sees a hundred positions.
void run_cache() {
    constexpr int64_t kSeen = 100, kNew = 1, kFirst = kPositions - kNew;
    const AttentionShape shape = {.B = 1, .T = kNew, .NH = kCacheHeads, .NKV = kCacheHeads, .HD = 128, .window = kSeen};
    const HugeTensor keys(DType::BF16, kPositions, kCacheColumns), values(DType::BF16, kPositions, kCacheColumns);
    // The same positions modulo the kernel's pieces, at the end and at the start of a cache.
    constexpr int64_t kAlone = kFirst % 1024 + 1024;
    const TestBuffer qkv = random_buffer(DType::BF16, kNew, shape.qkv_columns(), 1, 1);
    const TestBuffer old_keys = random_buffer(DType::BF16, kSeen, kCacheColumns, 1, 2);
    const TestBuffer old_values = random_buffer(DType::BF16, kSeen, kCacheColumns, 1, 3);
    const HugeTensor few_keys(DType::BF16, kAlone + kNew, kCacheColumns);
    const HugeTensor few_values(DType::BF16, kAlone + kNew, kCacheColumns);
    Places at_end, at_start;
    for (int64_t i = 0; i < kSeen; ++i) at_end.push_back(kFirst - kSeen + i), at_start.push_back(kAlone - kSeen + i);
    keys.set(at_end, old_keys), values.set(at_end, old_values);
    few_keys.set(at_start, old_keys), few_values.set(at_start, old_values);
    const TestBuffer out(DType::BF16, kNew, kCacheColumns), alone(DType::BF16, kNew, kCacheColumns);
    const TestBuffer first(std::vector<int32_t>{kFirst}), other(std::vector<int32_t>{kAlone});
    const HugeTensor parts(DType::F32, cuda_backend().attention_cached_workspace(shape, kPositions) / 4);
    const Choice last_parts = [](const cuda_on_cpu::Grid& grid) {
        std::vector<uint64_t> blocks;
        for (uint64_t z = grid.z < 3 ? 0 : grid.z - 3; z < grid.z; ++z)
            for (uint64_t i = 0; i < grid.x * grid.y; ++i) blocks.push_back(i + grid.x * grid.y * z);
        return blocks;
    };
    OnDevice device;
    with_blocks({{"attention_cached_kernel", last_parts}}, [&] {
        cuda_backend().attention_cached(device(out), keys, values, device(qkv), shape, device(first), parts);
        cuda_backend().attention_cached(device(alone), few_keys, few_values, device(qkv), shape, device(other), parts);
    });
    device.fetch();
    EXPECT_TRUE(out.bytes() == alone.bytes());
    EXPECT_EQ(std::memcmp(keys.row(kFirst), few_keys.row(kAlone), kNew * keys.row_bytes()), 0);
    EXPECT_EQ(std::memcmp(values.row(kFirst), few_values.row(kAlone), kNew * values.row_bytes()), 0);
}

}  // namespace

std::vector<OffsetCase> offset_cases_of_attention() {
    const int64_t count = count_of(long_sequence());
    return {
        {"AttentionFp32",
         {{"attention_forward_fp32_kernel", count},
          {"attention_rows_kernel", count / 2},
          {"attention_backward_keys_fp32_kernel", count},
          {"attention_backward_queries_fp32_kernel", count},
          {"place_key_gradients_kernel", count}},
         [] { run_attention(cuda_backend(), DType::F32, Tiles::First); }},
        {"Attention",
         {{"attention_forward_kernel", count},
          {"attention_rows_kernel", count / 2},
          {"attention_backward_keys_kernel", count},
          {"attention_backward_queries_kernel", count},
          {"place_key_gradients_kernel", count}},
         [] { run_attention(cuda_backend(), DType::BF16, Tiles::First); }},
        {"AttentionHopper",
         {{"attention_forward_hopper_kernel", count},
          {"attention_rows_kernel", count / 2},
          {"attention_backward_keys_hopper_kernel", count},
          {"attention_backward_queries_hopper_kernel", count},
          {"place_key_gradients_kernel", count}},
         [] { run_attention(hopper_backend(), DType::BF16, Tiles::Second); }},
        {"AttentionInParts",
         {{"attention_forward_kernel", kSequences * 3 * 64},
          {"attention_rows_kernel", kSequences * 64},
          {"attention_backward_keys_kernel", kSequences * 3 * 64},
          {"attention_backward_queries_kernel", kSequences * 3 * 64},
          {"place_key_gradients_kernel", kSequences * 3 * 64}},
         run_parts},
        {"AttentionCached",
         {{"append_kernel", kPositions * kCacheColumns},
          {"attention_cached_kernel", kPositions * kCacheColumns},
          {"join_parts_kernel", kPartNumbers}},
         run_cache},
    };
}

}  // namespace llmc
