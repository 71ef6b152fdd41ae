// Names and addresses of hosts, as people write them in MASTER_ADDR.
#pragma once

#include <string>

namespace llmc {

/// Why this can never be the name or the address of a host that ranks connect to: "is a URL; leave out 'tcp://'". ""
/// where it may be one; whether it is, the network tells. IPv6 addresses may be in brackets, and may have a zone
/// (fe80::1%eth0).
std::string wrong_with_address(const std::string& text);

/// "::1" of "[::1]"; anything else as it is.
std::string without_brackets(const std::string& host);

/// "10.0.0.7:29500", "[::1]:29500".
std::string with_port(const std::string& host, int port);

}  // namespace llmc
