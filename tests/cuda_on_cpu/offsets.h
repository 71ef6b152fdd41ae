// Operations on tensors of more than 2^32 elements, of which only a few rows exist: the first, those around elements
// 2^31 and 2^32, and the last. Only the blocks that touch them run, and what they give must be what the same kernel
// gives on a tensor of these rows alone. Sparse memory (dev/cuda_on_cpu/sparse_memory.h) makes it possible.
#pragma once

#include "dev/cuda_on_cpu/control.h"
#include "dev/cuda_on_cpu/sparse_memory.h"
#include "tests/cuda/cuda_testing.h"

#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

namespace llmc {

/// Numbers of rows, ascending.
using Places = std::vector<int64_t>;

/// What one test runs.
struct OffsetCase {
    std::string name;
    /// All kernels that it launches, and for each how many elements the largest tensor has that it indexes.
    std::map<std::string, int64_t> kernels;
    std::function<void()> run;
};

std::vector<OffsetCase> offset_cases_of_elements();
std::vector<OffsetCase> offset_cases_of_rows();
std::vector<OffsetCase> offset_cases_of_sums();
std::vector<OffsetCase> offset_cases_of_attention();

/// Of the test that runs: the kernels that were launched, and the sizes of its huge tensors.
inline std::set<std::string> launched_kernels;
inline std::set<int64_t> huge_counts;

/// A tensor that lies in sparse memory; zeros where nothing was set.
class HugeTensor {
  public:
    HugeTensor(DType dtype, int64_t rows, int64_t columns = 1) : view_(dtype, nullptr, rows, columns) {
        view_.data = cuda_on_cpu::allocate_sparse(static_cast<size_t>(view_.bytes()));
        CHECK(view_.data != nullptr, rows, columns);
        huge_counts.insert(view_.count());
    }
    ~HugeTensor() { cuda_on_cpu::free_sparse(view_.data); }
    HugeTensor(const HugeTensor&) = delete;

    const Tensor& tensor() const { return view_; }
    operator Tensor() const { return view_; }
    char* row(int64_t place) const { return static_cast<char*>(view_.row_range(place, 1).data); }
    size_t row_bytes() const { return static_cast<size_t>(view_.shape[1] * size_of(view_.dtype)); }

    /// Row i of `rows` goes to row places[i], or is compared with it.
    void set(const Places& places, const TestBuffer& rows) const {
        for (size_t i = 0; i < places.size(); ++i) std::memcpy(row(places[i]), row_of(rows, i), row_bytes());
    }
    void expect(const Places& places, const TestBuffer& rows, const std::string& what) const {
        for (size_t i = 0; i < places.size(); ++i) {
            EXPECT_EQ(std::memcmp(row(places[i]), row_of(rows, i), row_bytes()), 0)
                << what << ", row " << places[i] << " of " << view_.shape[0];
        }
    }

  private:
    const char* row_of(const TestBuffer& rows, size_t i) const {
        return static_cast<const char*>(rows.tensor().data) + i * row_bytes();
    }

    Tensor view_;
};

/// All elements as one dimension.
inline Tensor flat(const Tensor& tensor) { return {tensor.dtype, tensor.data, tensor.count()}; }

/// Which blocks of a launch run.
using Choice = cuda_on_cpu::BlockChooser;

/// All of them; not many.
std::vector<uint64_t> all_blocks(const cuda_on_cpu::Grid& grid);

/// Those of some rows, where the blocks of the first dimension share out N rows in order, `rows_per_block` or a part of
/// one to each, and the other dimensions are short.
Choice blocks_of_rows(int64_t N, const Places& places, int64_t rows_per_block = 1);

/// work() with the blocks that `choices` chooses by kernel; of others those that `rest` chooses.
void with_blocks(const std::map<std::string, Choice>& choices, const std::function<void()>& work,
                 const Choice& rest = all_blocks);

/// -3 .. 3.
TestBuffer whole_numbers(DType dtype, int64_t rows, int64_t columns, uint32_t item);

/// Two rows each at the start, around elements 2^31 and 2^32 of tensors with so many columns, and at the end.
Places interesting_rows(int64_t N, const std::vector<int64_t>& columns);

// ---- operations whose rows have nothing to do with each other -----------------------------------------------------

struct RowOperand {
    enum class Fill {
        Nothing,
        Normals,
        Whole,  ///< Small whole numbers, whose sums and products are exact in any order.
        Ones,
        Integers,  ///< int32 below `limit`.
        Bytes,
        Rows  ///< int32: the numbers of rows of the other operands, in another order.
    };
    std::string name;
    DType dtype;
    int64_t columns;
    Fill fill = Fill::Normals;
    int64_t limit = 0;
};

/// operation(backend, operands, on, places): `on` gives tensors of buffers that are the same for both sizes, `places`
/// what rows the operands' rows are; empty where they are all.
using OnBuffer = std::function<Tensor(const TestBuffer&)>;
using RowOperation =
    std::function<void(Backend&, const std::vector<Tensor>&, const OnBuffer& on, const Places& places)>;

/// All kernels of the operation share out rows as blocks_of_rows() says, but those of `others`.
void expect_rows(int64_t N, int64_t rows_per_block, const std::vector<RowOperand>& operands,
                 const RowOperation& operation, const std::map<std::string, Choice>& others = {});

}  // namespace llmc
