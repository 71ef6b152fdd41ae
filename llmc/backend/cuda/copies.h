// Copies between the device and the host that run beside the kernels: a stream for each direction, tied to the main one
// by events, which is also what makes them part of a recording (recordings.h).
#pragma once

#include "llmc/backend/backend.h"

#include <cuda_runtime_api.h>

#include <cstdint>
#include <vector>

namespace llmc::cuda {

class Copies {
  public:
    /// `stream`: what the copies run beside.
    explicit Copies(cudaStream_t stream);
    ~Copies();
    Copies(const Copies&) = delete;
    Copies& operator=(const Copies&) = delete;

    CopyTicket out(void* host, Tensor x);
    CopyTicket in(Tensor out, const void* host);
    void wait(CopyTicket copy);

  private:
    CopyTicket begin(cudaStream_t beside, void* to, const void* from, int64_t bytes, cudaMemcpyKind kind);
    CopyTicket free_ticket();

    cudaStream_t stream_;
    cudaStream_t out_ = nullptr, in_ = nullptr;
    cudaEvent_t reached_ = nullptr;   ///< Where the main stream was when the last copy was begun.
    std::vector<cudaEvent_t> done_;   ///< By ticket.
    std::vector<CopyTicket> unused_;  ///< Tickets that have been waited for.
};

}  // namespace llmc::cuda
