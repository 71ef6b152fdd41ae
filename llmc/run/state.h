// The buffers of a run on a device: parameters, gradients, AdamW's moments, master weights, the arena. Each is one
// contiguous allocation, made before the first step and never again.
#pragma once

#include "llmc/run/memory.h"

#include <memory>
#include <string>

namespace llmc {

/// One allocation of a backend, released with the object.
class DeviceBuffer {
  public:
    DeviceBuffer() = default;
    DeviceBuffer(Backend& backend, int64_t bytes, const std::string& what);
    ~DeviceBuffer();
    DeviceBuffer(DeviceBuffer&& other) noexcept;
    DeviceBuffer& operator=(DeviceBuffer&& other) noexcept;

    char* data() const { return data_; }
    int64_t bytes() const { return bytes_; }

  private:
    Backend* backend_ = nullptr;
    char* data_ = nullptr;
    int64_t bytes_ = 0;
};

/// Ends an allocation of a backend in host memory.
struct ReleaseHost {
    Backend* backend = nullptr;
    void operator()(char* memory) const { backend->release_host(memory); }
};

class State {
  public:
    /// Allocates everything on the device, zeroed. `arena_bytes` is the largest arena of the plans that will run.
    State(Backend& backend, const Model& model, DType dtype, int64_t T, int64_t arena_bytes, bool training);

    /// Memory of the host, besides, for a plan that copies tensors out. Executors ask for it when they are made, which
    /// is before the first of them runs; their plans share it.
    void reserve_host(int64_t bytes);

    /// Draws the initial parameters: counter-based, so the values depend on the seed, the tensor's place in the table
    /// and the element only.
    void initialise(uint64_t seed);

    /// A parameter tensor, its gradient, and other flat buffers, by row of Model::parameters (kNone: an empty tensor).
    Tensor parameter(int index) const;
    Tensor gradient(int index) const;

    /// fp32 values of a parameter row: of the master weights where there are some. For checkpoints.
    Tensor master_or_parameter(int index) const;
    Tensor moment_m(int index) const;
    Tensor moment_v(int index) const;
    /// After fp32 values were loaded into the masters: rounds them into the parameters. Nothing to do in fp32.
    void round_masters();

    Tensor all_parameters() const;
    Tensor all_gradients() const { return flat(gradients_); }
    Tensor all_masters() const { return flat(master_); }
    Tensor all_m() const { return flat(moments_, 0); }
    Tensor all_v() const { return flat(moments_, model_.parameter_elements); }

    Tensor rope_table() const { return rope_table_view_; }
    Tensor loss_sum() const;   ///< (1) fp64.
    Tensor grad_norm() const;  ///< (1) fp64.
    Tensor norm_workspace() const;
    char* arena() const { return arena_.data(); }
    char* host() const { return host_.get(); }  ///< Of reserve_host().

    const Model& model() const { return model_; }
    Backend& backend() const { return backend_; }
    DType dtype() const { return dtype_; }
    /// Sum of all allocations on the device.
    int64_t allocated_bytes() const;

  private:
    Tensor flat(const DeviceBuffer& buffer, int64_t first = 0) const;
    Tensor row(const Tensor& flat_tensor, int index) const;

    Backend& backend_;
    const Model& model_;
    DType dtype_;
    DeviceBuffer parameters_, gradients_, moments_, master_, rope_, scalars_, arena_;
    std::unique_ptr<char, ReleaseHost> host_;
    int64_t host_bytes_ = 0;
    Tensor rope_table_view_;
};

/// The parameter table as ranges with one weight decay each, neighbours merged.
std::vector<ParameterRange> parameter_ranges(const Model& model);

}  // namespace llmc
