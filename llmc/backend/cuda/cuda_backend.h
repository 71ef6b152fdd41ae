// The CUDA backend: hand-written kernels, cuBLASLt for matrix products, one stream for all of it but copies that run
// beside it. Each operation family has its own file, named like its CPU twin; the contract of every operation is in
// backend.h. Nothing here waits for the device but copy_to_host() and synchronize(). Reductions over rows have two
// stages in a fixed order, never atomics; this is what makes results the same bits every time.
#pragma once

#include "llmc/backend/backend.h"
#include "llmc/backend/cuda/copies.h"

#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include <map>
#include <memory>
#include <optional>
#include <string>

namespace llmc::cuda {

class PreparedMatmuls;
class Recordings;
class Staging;

/// Asks for a backend without a device.
struct PlanningOnly {};

class CudaBackend final : public Backend {
  public:
    /// Device `index` of those this process may use. Fails, saying why, if it cannot be used.
    explicit CudaBackend(int index);
    /// No device: only the sizes of workspaces may be asked for, to plan on a machine without a GPU.
    explicit CudaBackend(PlanningOnly);
    ~CudaBackend() override;

    // device.cpp
    DeviceInfo info() const override;
    std::string why_unsupported(const AttentionShape& shape) const override;
    void set_arithmetic(const Arithmetic& arithmetic) override;
    std::string why_no_hopper() const override;
    void* allocate(int64_t bytes, const std::string& what) override;
    void release(void* memory) override;
    void copy_to_device(Tensor destination, const void* source) override;
    void copy_to_host(void* destination, Tensor source) override;
    const void* host_view(Tensor tensor) const override { return is_host_memory(tensor.data) ? tensor.data : nullptr; }
    void zero(Tensor out) override;
    void synchronize() override;
    bool on_gpu() const override { return true; }
    void* stream() override { return stream_; }
    TimeMark mark() override;
    double seconds_between(const TimeMark& first, const TimeMark& second) override;

    // copies.cpp
    void* allocate_host(int64_t bytes, const std::string& what) override;
    bool is_host_memory(const void* memory) const;
    void release_host(void* memory) override;
    CopyTicket copy_out(void* host, Tensor x) override;
    CopyTicket copy_in(Tensor out, const void* host) override;
    void wait_copy(CopyTicket copy) override;

    // recordings.cpp
    void repeat(const void* key, const std::function<void()>& work) override;
    void forget(const void* key) override;

    // convert.cu
    void convert(Tensor out, Tensor x) override;
    /// What CUDA says of loading one of our kernels: an error if this build has none for the device. Else the
    /// architecture that its machine code is for, and of the PTX it comes from, as 10 * major + minor.
    static cudaError_t try_kernels(int* code, int* ptx);

    // embedding.cu
    void embedding_forward(Tensor out, Tensor tokens, Tensor wte, Tensor wpe, int64_t T, FirstPosition first,
                           Tensor documents) override;
    void embedding_backward(Tensor d_wte, Tensor d_wpe, bool adds, Tensor d_out, Tensor tokens, int64_t T,
                            Tensor documents, Tensor workspace) override;
    int64_t embedding_backward_workspace(int64_t N, int64_t C, int64_t Vp, bool has_documents) const override;

    // norm.cu
    void layernorm_forward(Tensor out, Tensor mean, Tensor rstd, Tensor x, Tensor weight, Tensor bias,
                           float epsilon) override;
    void layernorm_backward(Tensor d_x, bool accumulate, Tensor d_weight, Tensor d_bias, bool adds, Tensor d_out,
                            Tensor x, Tensor mean, Tensor rstd, Tensor weight, Tensor workspace) override;
    void rmsnorm_forward(Tensor out, Tensor rstd, Tensor x, Tensor weight, float epsilon) override;
    void rmsnorm_backward(Tensor d_x, bool accumulate, Tensor d_weight, bool adds, Tensor d_out, Tensor x, Tensor rstd,
                          Tensor weight, Tensor workspace) override;
    int64_t norm_backward_workspace(int64_t N, int64_t C) const override;

    // head_norm.cu
    void head_norm_forward(Tensor out, Tensor rstd, Tensor qkv, Tensor q_weight, Tensor k_weight,
                           const AttentionShape& shape, float epsilon) override;
    void head_norm_backward(Tensor d_qkv, Tensor d_q_weight, Tensor d_k_weight, bool adds, Tensor d_out, Tensor qkv,
                            Tensor rstd, Tensor q_weight, Tensor k_weight, const AttentionShape& shape,
                            Tensor workspace) override;
    int64_t head_norm_backward_workspace(int64_t N, int64_t HD) const override;

    // matmul.cpp; the kernel of a bias gradient by itself is in column_sum.cu
    void matmul_forward(Tensor out, Tensor x, Tensor weight, Tensor bias, Tensor residual, Tensor workspace) override;
    void matmul_backward_input(Tensor d_x, Tensor d_out, Tensor weight, Tensor workspace) override;
    void matmul_backward_weight(Tensor d_weight, Tensor d_bias, bool adds, Tensor d_out, Tensor x,
                                Tensor workspace) override;
    int64_t matmul_workspace(DType activations, int64_t N, int64_t OC, int64_t IC) const override;
    FusionAnswer fuses(const FusionQuery& query) const override;
    void input_gradient_and_activation(ActivationFunction activation, Tensor d_pre, Tensor d_act, Tensor d_out,
                                       Tensor weight, Tensor pre, Tensor workspace) override;
    void weight_and_bias_gradient(Tensor d_weight, Tensor d_bias, bool adds, Tensor d_out, Tensor x,
                                  Tensor workspace) override;
    void matmul_and_activation(ActivationFunction activation, Tensor act_out, Tensor out, Tensor x, Tensor weight,
                               Tensor bias, Tensor workspace) override;
    void matmul_and_rope(Tensor out, Tensor x, Tensor weight, Tensor bias, Tensor workspace,
                         const RopeRows& rows) override;

    // gemm_algorithms.cpp
    void offer_own_gemms(bool offered) override;
    std::vector<GemmAlgorithm> own_gemms(const std::vector<GemmQuery>& queries) const override;
    GemmAlgorithms gemm_algorithms() const override;
    void set_gemm_algorithms(const GemmAlgorithms& algorithms) override;
    GemmAlgorithms time_gemms(const std::vector<GemmQuery>& queries, const std::vector<GemmAlgorithm>& known) override;

    // nf4.cu
    void dequantize_nf4(Tensor out, const Nf4Operands& x) override;

    // adapter.cu
    void adapter_down_forward(Tensor z, Tensor x, Tensor a, const AdapterShape& shape, const Dropout& dropout,
                              Tensor workspace) override;
    void adapter_down_backward_weight(Tensor d_a, bool adds, Tensor d_z, Tensor x, const AdapterShape& shape,
                                      const Dropout& dropout, Tensor workspace) override;
    void adapter_down_backward_input(Tensor d_x, Tensor d_z, Tensor a, const AdapterShape& shape,
                                     const Dropout& dropout, Tensor workspace) override;
    void adapter_up_forward(Tensor out, Tensor z, Tensor b, const AdapterShape& shape, Tensor workspace) override;
    void adapter_up_backward_weight(Tensor d_b, bool adds, Tensor d_out, Tensor z, const AdapterShape& shape,
                                    Tensor workspace) override;
    void adapter_up_backward_input(Tensor d_z, Tensor d_out, Tensor b, const AdapterShape& shape,
                                   Tensor workspace) override;
    int64_t adapter_workspace(int64_t N, int64_t rows, int64_t columns) const override;

    // dropout.cu
    void dropout(Tensor out, Tensor x, Tensor residual, const Dropout& dropout) override;

    // rope.cu
    void rope(Tensor qkv, Tensor table, const AttentionShape& shape, FirstPosition first, bool inverse) override;

    // attention.cu, attention_backward.cu
    void attention_forward(Tensor out, Tensor lse, Tensor qkv, const AttentionShape& shape, Tensor workspace) override;
    void attention_backward(Tensor d_qkv, Tensor d_out, Tensor qkv, Tensor out, Tensor lse, const AttentionShape& shape,
                            Tensor workspace) override;
    int64_t attention_forward_workspace(DType activations, const AttentionShape& shape) const override;
    int64_t attention_backward_workspace(DType activations, const AttentionShape& shape, bool in_place) const override;

    // verify_kernels.cpp
    bool hopper_kernels_agree(int64_t HD) override;
    bool own_gemms_agree() override;

    // attention_cached.cu
    void attention_cached(Tensor out, Tensor k_cache, Tensor v_cache, Tensor qkv, const AttentionShape& shape,
                          FirstPosition first, Tensor workspace) override;
    int64_t attention_cached_workspace(const AttentionShape& shape, int64_t maxT) const override;

    // activation.cu
    void gelu_forward(Tensor out, Tensor x) override;
    void gelu_backward(Tensor d_x, Tensor d_out, Tensor x) override;
    void gelu_exact_forward(Tensor out, Tensor x) override;
    void gelu_exact_backward(Tensor d_x, Tensor d_out, Tensor x) override;
    void swiglu_forward(Tensor out, Tensor gate_up) override;
    void swiglu_backward(Tensor d_gate_up, Tensor d_out, Tensor gate_up) override;

    // rows.cu
    void gather_rows(Tensor out, Tensor x, Tensor rows) override;

    // cross_entropy.cu
    void cross_entropy(Tensor losses, Tensor logits, Tensor targets, int64_t V, Tensor d_scale) override;
    void accumulate_loss(Tensor total, bool adds, Tensor losses) override;

    // gradient_sums.cu
    void add(Tensor out, Tensor x) override;
    void add_rounded(Tensor out, bool adds, Tensor x, std::span<const ParameterRange> ranges, uint64_t seed,
                     Tensor controls) override;
    void square_sums(Tensor sums, Tensor gradients, int64_t chunk) override;
    void global_norm(Tensor norm, Tensor sums, Tensor pieces, const NormLayout& layout) override;

    // optimizer.cu; optimizer_formats.cu where anything is not in fp32
    void begin_update(Tensor factors, Tensor controls, Tensor norm, const OptimizerSettings& settings) override;
    void update(const UpdateOperands& operands, std::span<const ParameterRange> ranges,
                const OptimizerSettings& settings, Tensor factors) override;

  private:
    /// Of a product with this key; without words where there is no algorithm.
    GemmAlgorithm time_gemm(const GemmQuery& query, const GemmKey& key);

    int device_ = 0;
    bool hopper_ = false;  ///< Attention runs on the kernels for capability 9.0 (attention_hopper.h) where it can.
    bool tf32_ = false;    ///< See Arithmetic.
    bool offers_own_gemms_ = false;
    std::string kernels_;      ///< Which of the build's run on it: "for sm_90", "from PTX of compute_90".
    int multiprocessors_ = 0;  ///< Grids of persistent blocks are multiples of it; results never depend on it.
    cudaStream_t stream_ = nullptr;
    std::unique_ptr<PreparedMatmuls> matmuls_;
    std::unique_ptr<Recordings> recordings_;
    std::unique_ptr<Staging> staging_;
    std::optional<Copies> copies_;                ///< Made with the first memory of the host.
    std::map<const char*, int64_t> host_memory_;  ///< Sizes of what allocate_host() gave, by begin.
    int64_t held_at_start_ = 0;  ///< Bytes of the device in use before our first allocation: others', and CUDA's own.
};

}  // namespace llmc::cuda
