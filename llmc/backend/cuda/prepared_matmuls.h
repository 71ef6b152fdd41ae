// cuBLASLt calls with everything decided once per product: layouts, epilogue, algorithm. The algorithm is the library's
// first choice, or what it was told (base/gemm_algorithms.h), our own kernel (gemm_hopper.h) or another of the
// library's, and never one that was timed on the way: the same product gets the same algorithm in every run, and so the
// same bits.
#pragma once

#include "llmc/backend/cuda/gemm_hopper.h"
#include "llmc/base/gemm_algorithms.h"

#include <cublasLt.h>

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace llmc::cuda {

struct MatmulOperands {
    void* d = nullptr;
    const void* a = nullptr;
    const void* b = nullptr;
    /// The bias, where its gradient goes, or what GELU's derivative is taken at; at a multiple of 16 bytes.
    const void* of_epilogue = nullptr;
    const void* c = nullptr;  ///< May be d.
    bool ignores_c = false;   ///< Of a shape that adds C: does not, this time. The algorithm is the same.
    void* workspace = nullptr;
    int64_t workspace_bytes = 0;
    Applied applied = Applied::Nothing;  ///< By our own kernel alone.
    void* activated = nullptr;
    const void* pre = nullptr;
    HopperRope rope = {};
};

class PreparedMatmuls {
  public:
    explicit PreparedMatmuls(int multiprocessors);
    ~PreparedMatmuls();
    PreparedMatmuls(const PreparedMatmuls&) = delete;
    PreparedMatmuls& operator=(const PreparedMatmuls&) = delete;

    /// Whether operands in fp32 are rounded to TF32, for the tensor cores.
    void set_tf32(bool tf32) { tf32_ = tf32; }

    /// Of operands whose addresses are multiples of 128.
    GemmKey key_of(const GemmShape& shape, int64_t workspace_bytes) const;

    /// Whether the library has an algorithm. It is asked once. By any thread: several search for plans.
    bool can(const GemmKey& key) { return call_of(key) != nullptr; }

    /// False where something is to be applied, and the product's algorithm does not do it: then d is there.
    bool run(const GemmShape& shape, const MatmulOperands& operands, cudaStream_t stream);

    /// "cuBLASLt 13.1.0".
    static std::string library();
    /// Of all products that run() or can() has met, and those of choose(), by key.
    std::vector<GemmAlgorithm> algorithms() const;
    /// Takes this algorithm for its product from now on. False where the library refuses it, or our own kernel does not
    /// form the product.
    bool choose(const GemmAlgorithm& algorithm);
    /// The library's first algorithm, or the fastest of the first eight where that takes less than 97 % of its time.
    /// The operands are overwritten; c is d.
    GemmAlgorithm fastest(const GemmKey& key, const MatmulOperands& operands, cudaStream_t stream) const;
    /// Whether our own kernel forms the product.
    static bool own_takes(const GemmKey& key);
    /// Whether it does, and takes less than 97 % of the time of this algorithm and, where
    /// operands.applied is something, `activate`.
    bool own_is_faster(const GemmAlgorithm& library, const MatmulOperands& operands,
                       const std::function<void()>& activate, cudaStream_t stream) const;

  private:
    struct Call;
    using Algorithm = cublasLtMatmulAlgo_t;
    static constexpr float kWorthIt = 0.97f;

    const Call* call_of(const GemmKey& key);
    std::vector<Algorithm> best_of_library(const Call& call, const GemmKey& key, int most) const;
    cublasStatus_t start(const Call& call, const Algorithm& algorithm, const GemmShape& shape,
                         const MatmulOperands& operands, cudaStream_t stream) const;
    void start_own(const GemmShape& shape, const MatmulOperands& operands, cudaStream_t stream) const;
    float milliseconds(const Call& call, const Algorithm& algorithm, const GemmShape& shape,
                       const MatmulOperands& operands, cudaStream_t stream) const;

    int multiprocessors_;
    bool tf32_ = false;
    cublasLtHandle_t handle_ = nullptr;
    std::mutex asking_;                               ///< Held while calls_ is looked into by call_of().
    std::map<GemmKey, std::unique_ptr<Call>> calls_;  ///< Null: the library has no algorithm.
};

}  // namespace llmc::cuda
