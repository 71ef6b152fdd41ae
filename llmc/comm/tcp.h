// The transport without any library: a TCP connection between every two ranks, and a thread that moves bytes between
// them and memory of the host while the caller computes.
#pragma once

#include "llmc/comm/control.h"
#include "llmc/comm/transport.h"

#include <memory>

namespace llmc {

/// Connects all ranks with each other; all of them make this call. `control` must outlive the transport.
std::unique_ptr<Transport> make_tcp_transport(Control& control);

}  // namespace llmc
