// NCCL: the transport for buckets in memory of GPUs, one GPU per rank. It works on a stream of its own beside the
// backend's, tied to it by events: no call waits on the host. The library is opened when it is first needed
// (nccl_library.h).
#pragma once

#include "llmc/backend/backend.h"
#include "llmc/comm/transport.h"

#include <memory>
#include <string>

namespace llmc {

/// What the ranks of one transport have in common: made by one of them, sent to the others. Bytes, not text.
std::string make_nccl_id();

/// Called by all ranks at once, each with the backend of its own GPU, on the thread that computes. The backend must
/// outlive the transport.
std::unique_ptr<Transport> make_nccl_transport(const std::string& id, int rank, int size, Backend& backend);

}  // namespace llmc
