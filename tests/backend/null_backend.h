// A backend that computes nothing: it records the calls and the allocations. Plans, options and the executor are tested
// on it, and forwards per operation are counted with it, without touching a number.
#pragma once

#include "llmc/backend/backend.h"

#include <map>
#include <string>
#include <unordered_map>
#include <vector>

namespace llmc {

class NullBackend : public Backend {
  public:
    /// Scratch bytes every operation pretends to need.
    explicit NullBackend(int64_t workspace_bytes = 0) : workspace_bytes_(workspace_bytes) {}
    ~NullBackend() override;

    const std::vector<std::string>& calls() const { return calls_; }
    int64_t count(const std::string& call) const;
    /// What fuses() answers from now on.
    void set_fusion(const FusionAnswer& answer, Fusion of = Fusion::ActivationAndWeightGradient) {
        fusions_[of] = answer;
    }
    int64_t allocated_bytes() const { return allocated_bytes_; }
    int64_t peak_allocated_bytes() const { return peak_allocated_bytes_; }
    int64_t host_bytes() const { return host_bytes_; }
    /// Every copy_out and copy_in, in order; its place in the list is its ticket.
    struct Copy {
        bool out = false;
        const void* device = nullptr;
        const void* host = nullptr;
        int64_t bytes = 0;
        int waits = 0;  ///< How often it was waited for.
    };
    const std::vector<Copy>& copies() const { return copies_; }

    DeviceInfo info() const override;
    void* allocate(int64_t bytes, const std::string& what) override;
    void release(void* memory) override;
    void* allocate_host(int64_t bytes, const std::string& what) override;
    void release_host(void* memory) override;
    CopyTicket copy_out(void* host, Tensor x) override;
    CopyTicket copy_in(Tensor out, const void* host) override;
    void wait_copy(CopyTicket copy) override;
    void copy_to_device(Tensor, const void*) override { record("copy_to_device"); }
    void copy_to_host(void* destination, Tensor source) override;
    const void* host_view(Tensor) const override { return nullptr; }
    void zero(Tensor) override { record("zero"); }
    void convert(Tensor, Tensor) override { record("convert"); }
    void synchronize() override { record("synchronize"); }

    void embedding_forward(Tensor, Tensor, Tensor, Tensor, int64_t, FirstPosition, Tensor) override {
        record("embedding_forward");
    }
    void embedding_backward(Tensor, Tensor, bool, Tensor, Tensor, int64_t, Tensor, Tensor) override {
        record("embedding_backward");
    }
    int64_t embedding_backward_workspace(int64_t, int64_t, int64_t, bool) const override { return workspace_bytes_; }

    void layernorm_forward(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, float) override { record("norm_forward"); }
    void layernorm_backward(Tensor, bool, Tensor, Tensor, bool, Tensor, Tensor, Tensor, Tensor, Tensor,
                            Tensor) override {
        record("norm_backward");
    }
    void rmsnorm_forward(Tensor, Tensor, Tensor, Tensor, float) override { record("norm_forward"); }
    void rmsnorm_backward(Tensor, bool, Tensor, bool, Tensor, Tensor, Tensor, Tensor, Tensor) override {
        record("norm_backward");
    }
    int64_t norm_backward_workspace(int64_t, int64_t) const override { return workspace_bytes_; }
    void head_norm_forward(Tensor, Tensor, Tensor, Tensor, Tensor, const AttentionShape&, float) override {
        record("head_norm_forward");
    }
    void head_norm_backward(Tensor, Tensor, Tensor, bool, Tensor, Tensor, Tensor, Tensor, Tensor, const AttentionShape&,
                            Tensor) override {
        record("head_norm_backward");
    }
    int64_t head_norm_backward_workspace(int64_t, int64_t) const override { return workspace_bytes_; }

    /// Recorded with the weight's address, so that repeats of one layer's operation can be told from other layers'.
    void matmul_forward(Tensor, Tensor, Tensor weight, Tensor, Tensor, Tensor) override;
    void adapter_down_forward(Tensor, Tensor, Tensor, const AdapterShape&, const Dropout&, Tensor) override {
        record("adapter_down_forward");
    }
    void adapter_down_backward_weight(Tensor, bool, Tensor, Tensor, const AdapterShape&, const Dropout&,
                                      Tensor) override {
        record("adapter_down_backward_weight");
    }
    void adapter_down_backward_input(Tensor, Tensor, Tensor, const AdapterShape&, const Dropout&, Tensor) override {
        record("adapter_down_backward_input");
    }
    void adapter_up_forward(Tensor, Tensor, Tensor, const AdapterShape&, Tensor) override {
        record("adapter_up_forward");
    }
    void adapter_up_backward_weight(Tensor, bool, Tensor, Tensor, const AdapterShape&, Tensor) override {
        record("adapter_up_backward_weight");
    }
    void adapter_up_backward_input(Tensor, Tensor, Tensor, const AdapterShape&, Tensor) override {
        record("adapter_up_backward_input");
    }
    int64_t adapter_workspace(int64_t, int64_t, int64_t) const override { return workspace_bytes_; }

    void dropout(Tensor, Tensor, Tensor, const Dropout&) override { record("dropout"); }
    void dequantize_nf4(Tensor, const Nf4Operands&) override { record("dequantize_nf4"); }
    void matmul_backward_input(Tensor, Tensor, Tensor, Tensor) override { record("matmul_backward_input"); }
    void matmul_backward_weight(Tensor, Tensor, bool, Tensor, Tensor, Tensor) override {
        record("matmul_backward_weight");
    }
    int64_t matmul_workspace(DType, int64_t, int64_t, int64_t) const override { return workspace_bytes_; }
    /// Forward matmuls with this weight.
    int64_t matmuls_with(const void* weight) const;

    void rope(Tensor, Tensor, const AttentionShape&, FirstPosition, bool inverse) override {
        record(inverse ? "rope_backward" : "rope_forward");
    }
    void attention_forward(Tensor, Tensor, Tensor, const AttentionShape&, Tensor) override {
        record("attention_forward");
    }
    void attention_backward(Tensor, Tensor, Tensor, Tensor, Tensor, const AttentionShape&, Tensor) override {
        record("attention_backward");
    }
    int64_t attention_forward_workspace(DType, const AttentionShape&) const override { return workspace_bytes_; }
    int64_t attention_backward_workspace(DType, const AttentionShape&, bool) const override { return workspace_bytes_; }
    void attention_cached(Tensor, Tensor, Tensor, Tensor, const AttentionShape&, FirstPosition, Tensor) override {
        record("attention_cached");
    }

    void gelu_forward(Tensor, Tensor) override { record("gelu_forward"); }
    void gelu_backward(Tensor, Tensor, Tensor) override { record("gelu_backward"); }
    void gelu_exact_forward(Tensor, Tensor) override { record("gelu_exact_forward"); }
    void gelu_exact_backward(Tensor, Tensor, Tensor) override { record("gelu_exact_backward"); }
    void swiglu_forward(Tensor, Tensor) override { record("swiglu_forward"); }
    void swiglu_backward(Tensor, Tensor, Tensor) override { record("swiglu_backward"); }

    FusionAnswer fuses(const FusionQuery& query) const override {
        const auto answer = fusions_.find(query.fusion);
        return answer == fusions_.end() ? FusionAnswer() : answer->second;
    }
    void activation_and_weight_gradient(const ActivationAndWeightGradient&) override {
        record("activation_and_weight_gradient");
    }
    void input_gradient_and_activation(ActivationFunction, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor) override {
        record("input_gradient_and_activation");
    }
    void weight_and_bias_gradient(Tensor, Tensor, bool, Tensor, Tensor, Tensor) override {
        record("weight_and_bias_gradient");
    }
    void matmul_and_activation(ActivationFunction, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor) override {
        record("matmul_and_activation");
    }

    void gather_rows(Tensor, Tensor, Tensor) override { record("gather_rows"); }
    void cross_entropy(Tensor, Tensor, Tensor, int64_t, Tensor) override { record("cross_entropy"); }
    void accumulate_loss(Tensor, bool, Tensor) override { record("accumulate_loss"); }

    void add(Tensor, Tensor) override { record("add"); }
    void add_rounded(Tensor, bool, Tensor, std::span<const ParameterRange>, uint64_t, Tensor) override {
        record("add_rounded");
    }
    void square_sums(Tensor, Tensor, int64_t) override { record("square_sums"); }
    void global_norm(Tensor, Tensor, Tensor, const NormLayout&) override { record("global_norm"); }
    void begin_update(Tensor, Tensor, Tensor, const OptimizerSettings&) override { record("begin_update"); }
    void update(const UpdateOperands&, std::span<const ParameterRange>, const OptimizerSettings&, Tensor) override {
        record("update");
    }

  private:
    void record(const char* call) { calls_.emplace_back(call); }
    void* reserve(int64_t bytes, const std::string& what);
    int64_t give_back(void* memory);

    int64_t workspace_bytes_;
    std::map<Fusion, FusionAnswer> fusions_;
    std::vector<std::string> calls_;
    std::map<const void*, int64_t> matmuls_;
    std::unordered_map<void*, int64_t> allocations_;
    int64_t allocated_bytes_ = 0, peak_allocated_bytes_ = 0, host_bytes_ = 0;
    std::vector<Copy> copies_;
};

}  // namespace llmc
