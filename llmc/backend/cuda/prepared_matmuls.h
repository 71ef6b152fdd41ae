// cuBLASLt calls with everything decided once per shape: layouts, epilogue, algorithm. The algorithm is the library's
// first choice and never a timed one: the same shape gets the same algorithm in every run, and so the same bits.
#pragma once

#include "llmc/base/dtype.h"

#include <cublasLt.h>

#include <array>
#include <cstdint>
#include <map>
#include <memory>

namespace llmc::cuda {

/// D (m, n) = op(A) op(B) [+ bias down the columns] [+ C], column-major as the library counts. A and B have the type
/// `input`; D, C and bias the type `output`; products are summed in fp32.
struct MatmulShape {
    int64_t m = 0, n = 0, k = 0;
    bool transpose_a = false, transpose_b = false;
    DType input = DType::F32, output = DType::F32;
    bool has_bias = false;
    bool adds_c = false;
    auto operator<=>(const MatmulShape&) const = default;
};

struct MatmulOperands {
    void* d = nullptr;
    const void* a = nullptr;
    const void* b = nullptr;
    const void* bias = nullptr;
    const void* c = nullptr;  ///< May be d.
    bool ignores_c = false;   ///< Of a shape that adds C: does not, this time. The algorithm is the same.
    void* workspace = nullptr;
    int64_t workspace_bytes = 0;
};

class PreparedMatmuls {
  public:
    PreparedMatmuls();
    ~PreparedMatmuls();
    PreparedMatmuls(const PreparedMatmuls&) = delete;
    PreparedMatmuls& operator=(const PreparedMatmuls&) = delete;

    /// Whether operands in fp32 are rounded to TF32, for the tensor cores.
    void set_tf32(bool tf32);

    void run(const MatmulShape& shape, const MatmulOperands& operands, cudaStream_t stream);

  private:
    struct Call;
    /// Shape, alignments of A, B, C and D in bytes, bytes of workspace.
    struct Key {
        MatmulShape shape;
        std::array<uint32_t, 4> alignment;
        int64_t workspace_bytes;
        auto operator<=>(const Key&) const = default;
    };
    std::unique_ptr<Call> prepare(const Key& key) const;

    bool tf32_ = false;
    cublasLtHandle_t handle_ = nullptr;
    std::map<Key, std::unique_ptr<Call>> calls_;
};

}  // namespace llmc::cuda
