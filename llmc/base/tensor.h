// Tensor: a trivially copyable, non-owning view {dtype, shape, data}. Always contiguous and row-major; the arena (or a
// buffer of the training state) owns the bytes. Up to three dimensions; most operations see a tensor as rows x cols,
// where cols is the last dimension.
#pragma once

#include "llmc/base/check.h"
#include "llmc/base/dtype.h"

#include <array>
#include <cstdint>
#include <type_traits>

namespace llmc {

struct Tensor {
    DType dtype = DType::F32;
    std::array<int64_t, 3> shape = {0, 1, 1};
    void* data = nullptr;

    Tensor() = default;
    Tensor(DType type, void* memory, int64_t d0, int64_t d1 = 1, int64_t d2 = 1)
        : dtype(type), shape{d0, d1, d2}, data(memory) {}

    int64_t count() const { return shape[0] * shape[1] * shape[2]; }
    int64_t bytes() const { return count() * size_of(dtype); }
    explicit operator bool() const { return data != nullptr; }

    /// The elements, with the type checked.
    template <typename T>
    T* as() const {
        CHECK(dtype == dtype_of<std::remove_const_t<T>>(), name_of(dtype));
        return static_cast<T*>(data);
    }

    /// Rows [first, first + rows) of a two-dimensional tensor.
    Tensor row_range(int64_t first, int64_t rows) const {
        CHECK(shape[2] == 1 && first >= 0 && first + rows <= shape[0], first, rows, shape[0]);
        auto* base = static_cast<char*>(data) + first * shape[1] * size_of(dtype);
        return {dtype, base, rows, shape[1]};
    }
};
static_assert(std::is_trivially_copyable_v<Tensor>, "a tensor is a view; it must stay as cheap as a pointer");

}  // namespace llmc
