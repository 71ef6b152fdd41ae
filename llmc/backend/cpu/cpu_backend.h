// The CPU backend: OpenMP over fixed blocks of work, single-threaded library GEMMs inside a block, vectorised loops for
// the rest. A block's extent never depends on the thread count, and no two blocks add to the same element except in a
// fixed order afterwards; this is what makes results independent of --threads. Each operation family has its own file,
// named like its CUDA twin; the contract of every operation is in backend.h.
#pragma once

#include "llmc/backend/backend.h"
#include "llmc/backend/cpu/product_rule.h"
#include "llmc/base/process_limits.h"

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

namespace llmc::cpu {

class CpuBackend : public Backend {
  public:
    /// `threads` = 0: one per physical core this process may run on. `products`: a row of product_rule.h.
    explicit CpuBackend(int threads, std::string_view products = "auto");
    ~CpuBackend() override;

    const ProductRules& products() const { return products_; }

    // device.cpp
    DeviceInfo info() const override;
    void* allocate(int64_t bytes, const std::string& what) override;
    void release(void* memory) override;
    void copy_to_device(Tensor destination, const void* source) override;
    void copy_to_host(void* destination, Tensor source) override;
    void* allocate_host(int64_t bytes, const std::string& what) override { return allocate(bytes, what); }
    void release_host(void* memory) override { release(memory); }
    const void* host_view(Tensor tensor) const override { return tensor.data; }
    void zero(Tensor out) override;
    void convert(Tensor out, Tensor x) override;
    void synchronize() override {}

    // embedding.cpp
    void embedding_forward(Tensor out, Tensor tokens, Tensor wte, Tensor wpe, int64_t T, FirstPosition first,
                           Tensor documents) override;
    void embedding_backward(Tensor d_wte, Tensor d_wpe, bool adds, Tensor d_out, Tensor tokens, int64_t T,
                            Tensor documents, Tensor workspace) override;
    int64_t embedding_backward_workspace(int64_t N, int64_t C, int64_t Vp, bool has_documents) const override;

    // norm.cpp
    void layernorm_forward(Tensor out, Tensor mean, Tensor rstd, Tensor x, Tensor weight, Tensor bias,
                           float epsilon) override;
    void layernorm_backward(Tensor d_x, bool accumulate, Tensor d_weight, Tensor d_bias, bool adds, Tensor d_out,
                            Tensor x, Tensor mean, Tensor rstd, Tensor weight, Tensor workspace) override;
    void rmsnorm_forward(Tensor out, Tensor rstd, Tensor x, Tensor weight, float epsilon) override;
    void rmsnorm_backward(Tensor d_x, bool accumulate, Tensor d_weight, bool adds, Tensor d_out, Tensor x, Tensor rstd,
                          Tensor weight, Tensor workspace) override;
    int64_t norm_backward_workspace(int64_t N, int64_t C) const override;

    // head_norm.cpp
    void head_norm_forward(Tensor out, Tensor rstd, Tensor qkv, Tensor q_weight, Tensor k_weight,
                           const AttentionShape& shape, float epsilon) override;
    void head_norm_backward(Tensor d_qkv, Tensor d_q_weight, Tensor d_k_weight, bool adds, Tensor d_out, Tensor qkv,
                            Tensor rstd, Tensor q_weight, Tensor k_weight, const AttentionShape& shape,
                            Tensor workspace) override;
    int64_t head_norm_backward_workspace(int64_t N, int64_t HD) const override;

    // matmul.cpp
    void matmul_forward(Tensor out, Tensor x, Tensor weight, Tensor bias, Tensor residual, Tensor workspace) override;
    void matmul_backward_input(Tensor d_x, Tensor d_out, Tensor weight, Tensor workspace) override;
    void matmul_backward_weight(Tensor d_weight, Tensor d_bias, bool adds, Tensor d_out, Tensor x,
                                Tensor workspace) override;
    int64_t matmul_workspace(DType activations, int64_t N, int64_t OC, int64_t IC) const override;

    // nf4.cpp
    void dequantize_nf4(Tensor out, const Nf4Operands& x) override;

    // adapter.cpp
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

    // dropout.cpp
    void dropout(Tensor out, Tensor x, Tensor residual, const Dropout& dropout) override;

    // rope.cpp
    void rope(Tensor qkv, Tensor table, const AttentionShape& shape, FirstPosition first, bool inverse) override;

    // attention.cpp
    void attention_forward(Tensor out, Tensor lse, Tensor qkv, const AttentionShape& shape, Tensor workspace) override;
    void attention_backward(Tensor d_qkv, Tensor d_out, Tensor qkv, Tensor out, Tensor lse, const AttentionShape& shape,
                            Tensor workspace) override;
    int64_t attention_forward_workspace(DType activations, const AttentionShape& shape) const override;
    int64_t attention_backward_workspace(DType activations, const AttentionShape& shape, bool in_place) const override;

    // attention_cached.cpp
    void attention_cached(Tensor out, Tensor k_cache, Tensor v_cache, Tensor qkv, const AttentionShape& shape,
                          FirstPosition first, Tensor workspace) override;

    // activation.cpp
    void gelu_forward(Tensor out, Tensor x) override;
    void gelu_backward(Tensor d_x, Tensor d_out, Tensor x) override;
    void gelu_exact_forward(Tensor out, Tensor x) override;
    void gelu_exact_backward(Tensor d_x, Tensor d_out, Tensor x) override;
    void swiglu_forward(Tensor out, Tensor gate_up) override;
    void swiglu_backward(Tensor d_gate_up, Tensor d_out, Tensor gate_up) override;

    // activation_and_weight_gradient.cpp
    FusionAnswer fuses(const FusionQuery& query) const override;
    void activation_and_weight_gradient(const ActivationAndWeightGradient& operands) override;

    // rows.cpp
    void gather_rows(Tensor out, Tensor x, Tensor rows) override;

    // cross_entropy.cpp
    void cross_entropy(Tensor losses, Tensor logits, Tensor targets, int64_t V, Tensor d_scale) override;
    void accumulate_loss(Tensor total, bool adds, Tensor losses) override;

    // gradient_sums.cpp
    void add(Tensor out, Tensor x) override;
    void add_rounded(Tensor out, bool adds, Tensor x, std::span<const ParameterRange> ranges, uint64_t seed,
                     Tensor controls) override;
    void square_sums(Tensor sums, Tensor gradients, int64_t chunk) override;
    void global_norm(Tensor norm, Tensor sums, Tensor pieces, const NormLayout& layout) override;

    // optimizer.cpp
    void begin_update(Tensor factors, Tensor controls, Tensor norm, const OptimizerSettings& settings) override;
    void update(const UpdateOperands& operands, std::span<const ParameterRange> ranges,
                const OptimizerSettings& settings, Tensor factors) override;

  private:
    int threads_;
    const ProductRules& products_;
    std::optional<ProcessLimit> own_limit_;           ///< At the beginning: what is planned by it stays within it.
    std::unordered_map<void*, int64_t> allocations_;  ///< Start and mapped bytes of everything allocate() gave out.
};

/// Memory of this machine as info() has it, without a backend.
DeviceInfo host_memory();

}  // namespace llmc::cpu
