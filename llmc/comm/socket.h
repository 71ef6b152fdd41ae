// TCP sockets (IPv4 and IPv6) that close themselves and never block: what link.h (messages) and tcp.h (bulk data) are
// made of. Nothing here throws for what a network may do; a reason comes back as text. That the process, or its host,
// has too many open files is an Error.
#pragma once

#include <string>
#include <vector>

namespace llmc {

/// A descriptor that is closed at the end of its life.
class Socket {
  public:
    Socket() = default;
    explicit Socket(int descriptor) : descriptor_(descriptor) {}
    ~Socket() { close(); }
    Socket(Socket&& other) noexcept;
    Socket& operator=(Socket&& other) noexcept;

    explicit operator bool() const { return descriptor_ >= 0; }
    int descriptor() const { return descriptor_; }
    void close();

  private:
    int descriptor_ = -1;
};

/// Every rank is a connection or two of each other one: this process may have as many open files as the system lets it.
void raise_file_limit();

/// Listens on all interfaces, for both kinds of addresses where the system has IPv6; port 0 lets the system choose.
/// Without success no socket, and `error` is errno.
Socket listen_on(int port, int* error);
/// Listens on these addresses alone, at the same port, also those that names have; of them on those that this host has.
/// Without success no socket, and `error` is errno: EADDRNOTAVAIL where the host has none of them.
std::vector<Socket> listen_at(const std::vector<std::string>& hosts, int port, int* error);
int port_of(const Socket& socket);

/// The next connection that waits at a listening socket; no socket if none does.
Socket accept_from(const Socket& listener);
/// Connects within `seconds`, to the first of the host's addresses that answers. Without success no socket, and `why`
/// says so in words: "connection refused".
Socket connect_to(const std::string& host, int port, double seconds, std::string* why);

/// The other end's address, "10.0.0.7" or "fd00::7", and this one's.
std::string peer_address(const Socket& socket);
std::string own_address(const Socket& socket);
/// Both ends of a connection that does not leave this host, "127.0.0.1:2000 127.0.0.1:3000", the same text at either;
/// "" between hosts, where one end may know the other by another address.
std::string ends_within_host(const Socket& socket);
/// Of an address, or of the name "localhost".
bool is_loopback(const std::string& address);
/// Addresses of this host's interfaces that are up, without loopback and those of one link only; IPv4 first.
std::vector<std::string> interface_addresses();
/// "connection refused": the system's words for an error, without a capital.
std::string words_of(int error);

/// Sleeps, at most until `deadline` (now_seconds()).
void pause_for(double seconds, double deadline);

/// Wakes a thread that waits in poll().
class WakeUp {
  public:
    WakeUp();
    int descriptor() const { return event_.descriptor(); }
    void notify() const;
    void clear() const;

  private:
    Socket event_;
};

}  // namespace llmc
