// A training run, described: everything that options leave open is decided here, once, in the one order there is
// (ranks, model, device, type, plan), and is constant from then on. train_gpt.cu makes it, prints it and stores its
// options in the run folder.
#pragma once

#include "llmc/backend/make_backend.h"
#include "llmc/comm/comm.h"
#include "llmc/train/initial_weights.h"
#include "llmc/train/sequences.h"
#include "llmc/train/setup.h"

#include <cstdint>
#include <memory>
#include <vector>

namespace llmc {

/// Closes the transport of a communicator: what is under way between ranks must not outlive the memory it moves.
class TransportGuard {
  public:
    explicit TransportGuard(Comm& comm) : comm_(comm) {}
    ~TransportGuard() { comm_.close_transport(); }
    TransportGuard(const TransportGuard&) = delete;
    TransportGuard& operator=(const TransportGuard&) = delete;

  private:
    Comm& comm_;
};

struct RunDescription {
    Options options;  ///< Of this rank, with what every "auto" became: as config.toml stores them.
    Data data;
    Model model;
    std::unique_ptr<const Sequences> sequences, val_sequences;  ///< Of the data; what is trained on, and validated on.
    std::vector<int32_t> sample_prompt;                         ///< What samples begin with; empty if there are none.
    std::unique_ptr<Backend> backend;
    std::unique_ptr<TransportGuard> transport;  ///< Goes before the backend.
    ChosenPlan chosen;

    const PlannedMemory& memory() const { return chosen.memory; }
    const Plan& plan() const { return chosen.memory.plan; }
};

/// Decides what `given` leaves open, together with the other ranks, and refuses what cannot be. Opens the data and the
/// transport between ranks; allocates nothing on the device but what those need.
std::unique_ptr<const RunDescription> describe_run(const Options& given, const Origin& origin, Comm& comm);

}  // namespace llmc
