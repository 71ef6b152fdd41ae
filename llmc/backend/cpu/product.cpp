// product.h: the right operand's part of the summed dimension is packed whole (it stays in the second cache), the left
// operand's a row of tiles at a time (it stays in the first), just before it is used. Every element is the sum, over
// the parts in their order, of the sums of the parts, each one chain of multiply-adds in a register.
#include "llmc/backend/cpu/product.h"

#include "llmc/backend/cpu/product_pack.h"
#include "llmc/base/check.h"

#include <array>

namespace llmc::cpu {
namespace {

/// Where a tile's sums go: out = sum + earlier + bias + added, the last three where they are.
template <typename T>
struct TileEnd {
    const float* earlier = nullptr;  ///< Sums of the parts before, if they are not in `added`.
    float* sums = nullptr;           ///< Where the next part finds these, instead of in `out`.
    int64_t sums_stride = 0;
    const T* added = nullptr;  ///< The residual, or C.
    const T* bias = nullptr;
    T* out = nullptr;
    int64_t stride = 0;  ///< Of `added` and `out`.

    void put(Vec sum, int64_t row, int64_t col) const {
        if (earlier) sum += load(earlier + row * sums_stride + col);
        if (sums) return store(sums + row * sums_stride + col, sum);
        if (bias) sum += load_elements(bias + col);
        if (added) sum += load_elements(added + row * stride + col);
        store_elements(out + row * stride + col, sum);
    }

    /// Fetches what put() will read and write while the sums are formed.
    void prefetch(int64_t row, int rows, int64_t col) const {
        for (int64_t i = row; i < row + rows; ++i) {
            for (int j = 0; j < kTileVectors; ++j) {
                if (sums) __builtin_prefetch(sums + i * sums_stride + col + j * kLanes, 1);
                if (!sums) __builtin_prefetch(out + i * stride + col + j * kLanes, 1);
            }
        }
    }

    /// The first `count` lanes alone: by the same operations, on copies.
    void put_part(Vec sum, int64_t row, int64_t col, int64_t count) const {
        if (earlier) sum += load(earlier + row * sums_stride + col);
        if (sums) return store(sums + row * sums_stride + col, sum);  // Its rows are whole vectors.
        const auto bytes = static_cast<size_t>(count) * sizeof(T);
        T part[kLanes] = {};
        if (bias) {
            std::memcpy(part, bias + col, bytes);
            sum += load_elements(part);
        }
        if (added) {
            std::memcpy(part, added + row * stride + col, bytes);
            sum += load_elements(part);
        }
        store_elements(part, sum);
        std::memcpy(out + row * stride + col, part, bytes);
    }
};

/// Rows of tiles at the lower edge are computed by the smallest of these that has room for what is left.
constexpr int kRowCounts[] = {1, 2, 4, 8, kTileRows};

int rows_computed(int64_t present) {
    for (const int rows : kRowCounts)
        if (rows >= present) return std::min(rows, kTileRows);
    return kTileRows;
}

template <typename Product, LeftForm form, int rows, typename T>
void tile(const TileEnd<T>& end, const Unit* left, const Unit* right, int64_t depth, int64_t row, int64_t col,
          int64_t rows_present, int64_t columns, Fetcher& fetcher) {
    Vec sums[kTileRows][kTileVectors];
    if (rows_present == rows) end.prefetch(row, rows, col);
    multiply_tile<Product, form, rows, kTileVectors>(sums, left, right, depth, fetcher);
    if (rows_present == rows && columns >= kTileColumns) {
#pragma GCC unroll 16
        for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 4
            for (int j = 0; j < kTileVectors; ++j) end.put(sums[i][j], row + i, col + j * kLanes);
        }
        return;
    }
    for (int64_t i = 0; i < rows_present; ++i) {
        for (int j = 0; j < kTileVectors && j * kLanes < columns; ++j) {
            const int64_t count = std::min<int64_t>(kLanes, columns - j * kLanes);
            end.put_part(sums[i][j], row + i, col + j * kLanes, count);
        }
    }
}

template <typename Product, LeftForm form, typename T>
using TileFunction = void (*)(const TileEnd<T>&, const Unit*, const Unit*, int64_t, int64_t, int64_t, int64_t, int64_t,
                              Fetcher&);

template <typename Product, LeftForm form, typename T>
TileFunction<Product, form, T> tile_of(int rows) {
    if (rows == 1) return tile<Product, form, 1, T>;
    if (rows == 2) return tile<Product, form, 2, T>;
    if (rows == 4) return tile<Product, form, 4, T>;
    if constexpr (kTileRows > 8) {
        if (rows == 8) return tile<Product, form, 8, T>;
    }
    return tile<Product, form, kTileRows, T>;
}

/// The parts of the summed dimension: equal, in units, up to rounding.
int64_t part_units(int64_t units, int64_t most) {
    return std::min(units, round_up(ceil_div(units, ceil_div(units, most)), kLanes));
}

/// Of the rows of the left operand after those at `row`, spread over `times`.
template <LeftForm form, typename T>
Fetcher fetch_left(PackSource<T> a, int64_t row, int64_t m, int64_t begin, int64_t count, int64_t times) {
    constexpr int64_t kLine = 64 / sizeof(T);
    const int64_t next = row + kTileRows, stride = a.stride * static_cast<int64_t>(sizeof(T));
    if (next >= m) return {};
    if constexpr (form == LeftForm::Rows)
        return {a.at(next, begin), ceil_div(count, kLine), 64, std::min<int64_t>(kTileRows, m - next), stride, times};
    return {a.at(begin, std::min(next + kTileRows, m) - 1), 1, 0, count, stride, times};
}

struct Scratch {
    Unit* right;
    Unit* left;
    float* sums;
};

template <typename Product, LeftForm form, typename In, typename Out>
void run(const GemmSpec& spec, int64_t part, const ProductOperands& x, const Scratch& scratch) {
    const PackSource<In> a{static_cast<const In*>(x.a), spec.lda}, b{static_cast<const In*>(x.b), spec.ldb};
    auto* const c = static_cast<Out*>(x.c);
    const auto* const residual = static_cast<const Out*>(x.residual);
    const int64_t per_part = part * Product::kPerUnit;
    for (int64_t begin = 0; begin < spec.k; begin += per_part) {
        const int64_t count = std::min(per_part, spec.k - begin), depth = ceil_div(count, Product::kPerUnit);
        const bool first = begin == 0, last = begin + count == spec.k;
        TileEnd<Out> end{.sums_stride = round_up(spec.n, kTileColumns), .out = c, .stride = spec.ldc};
        if (scratch.sums) {
            end.earlier = first ? nullptr : scratch.sums;
            end.sums = last ? nullptr : scratch.sums;
        }
        const bool begins_out = scratch.sums ? last : first;
        if (begins_out) {
            end.added = residual ? residual : spec.accumulate ? c : nullptr;
            end.bias = static_cast<const Out*>(spec.bias ? x.bias : nullptr);
        } else {
            end.added = c;
        }
        (spec.transpose_b ? pack_right_columns<Product, In> : pack_right_rows<Product, In>)(scratch.right, b, 0, spec.n,
                                                                                            begin, count);
        for (int64_t row = 0; row < spec.m; row += kTileRows) {
            const int64_t present = std::min<int64_t>(kTileRows, spec.m - row);
            const int rows = rows_computed(present);
            if constexpr (form == LeftForm::Rows)
                pack_left_rows<Product>(scratch.left, a, row, present, rows, begin, count);
            else
                pack_left_columns<Product>(scratch.left, a, row, present, spec.m - row, begin, count);
            const auto compute = tile_of<Product, form, Out>(rows);
            Fetcher fetcher = fetch_left<form>(a, row, spec.m, begin, count,
                                               ceil_div(spec.n, kTileColumns) * ceil_div(depth, kFetchEvery));
            const Unit* right = scratch.right;
            for (int64_t col = 0; col < spec.n; col += kTileColumns, right += panel_units(depth))
                compute(end, scratch.left, right, depth, row, col, present, spec.n - col, fetcher);
        }
    }
}

/// Pieces of the scratch memory; without memory, it only counts.
class Carving {
  public:
    explicit Carving(void* memory) : memory_(static_cast<char*>(memory)) {}
    char* take(int64_t bytes) {
        char* piece = memory_ ? memory_ + bytes_ : nullptr;
        bytes_ += round_up(bytes, 4096) + 256;  // Not all at the same place of a page, nor of the first cache.
        return piece;
    }
    int64_t bytes() const { return bytes_; }

  private:
    char* memory_;
    int64_t bytes_ = 0;
};

int64_t units_of(const GemmSpec& spec, ProductKind kind) { return ceil_div(spec.k, kind == ProductKind::Bf16 ? 2 : 1); }

/// Sums of several parts of the summed dimension need fp32 memory of their own unless C can hold them.
Scratch carve(Carving& carving, const GemmSpec& spec, const ProductRule& rule) {
    const int64_t units = units_of(spec, rule.kind), part = std::min(units, rule.depth);
    const int64_t columns = round_up(spec.n, kTileColumns);
    Scratch scratch = {};
    scratch.right = reinterpret_cast<Unit*>(carving.take(columns / kTileColumns * panel_units(part) * 4));
    scratch.left = reinterpret_cast<Unit*>(carving.take(std::max(kTileRows * kRowStep, kColumnStep * kMaxDepth) * 4));
    if (units > part && spec.c != DType::F32) {
        scratch.sums = reinterpret_cast<float*>(carving.take(spec.m * columns * 4));
    }
    return scratch;
}

template <typename Product, typename In>
void run(const GemmSpec& spec, const ProductRule& rule, const ProductOperands& operands, void* memory) {
    Carving carving(memory);
    const Scratch scratch = carve(carving, spec, rule);
    const int64_t part = part_units(units_of(spec, rule.kind), rule.depth);
    const auto with = [&]<LeftForm form>() {
        if (spec.c == DType::F32)
            run<Product, form, In, float>(spec, part, operands, scratch);
        else
            run<Product, form, In, bf16>(spec, part, operands, scratch);
    };
    spec.transpose_a ? with.template operator()<LeftForm::Columns>() : with.template operator()<LeftForm::Rows>();
}

}  // namespace

bool product_has_bf16_dots() {
#if defined(__AVX512BF16__)
    return true;
#else
    return false;
#endif
}

int64_t product_scratch_bytes(const GemmSpec& spec, const ProductRule& rule) {
    Carving carving(nullptr);
    carve(carving, spec, rule);
    return carving.bytes();
}

void run_product(const GemmSpec& spec, const ProductRule& rule, const ProductOperands& operands, void* scratch) {
    CHECK(rule.depth > 0 && rule.depth <= kMaxDepth, rule.depth);
    CHECK(!spec.bias || operands.bias != nullptr);
    CHECK(!operands.bias || spec.ab == spec.c, "a bias of another type than the output");
    if (rule.kind == ProductKind::Bf16) {
        CHECK(spec.ab == DType::BF16 && product_has_bf16_dots(), name_of(spec.ab));
#if defined(__AVX512BF16__)
        run<Bf16Product, bf16>(spec, rule, operands, scratch);
#endif
        return;
    }
    CHECK(rule.kind == ProductKind::Fp32);
    if (spec.ab == DType::F32)
        run<Fp32Product, float>(spec, rule, operands, scratch);
    else
        run<Fp32Product, bf16>(spec, rule, operands, scratch);
}

}  // namespace llmc::cpu
