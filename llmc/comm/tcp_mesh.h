// A TCP connection between every two ranks, for the data of tcp.h.
#pragma once

#include "llmc/comm/control.h"
#include "llmc/comm/socket.h"

#include <vector>

namespace llmc {

/// By rank; the own one is closed. All ranks make this call. Errors name the rank that cannot be reached.
std::vector<Socket> connect_mesh(Control& control);

}  // namespace llmc
