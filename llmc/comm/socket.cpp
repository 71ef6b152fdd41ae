#include "llmc/comm/socket.h"

#include "llmc/base/error.h"
#include "llmc/base/log.h"
#include "llmc/comm/address.h"

#include <algorithm>
#include <arpa/inet.h>
#include <array>
#include <cctype>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <ifaddrs.h>
#include <memory>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <set>
#include <string_view>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>
#include <utility>

namespace llmc {
namespace {

constexpr int kBacklog = 1024;

void set(const Socket& socket, int level, int option) {
    const int on = 1;
    setsockopt(socket.descriptor(), level, option, &on, sizeof(on));
}

void set_for_messages(const Socket& socket) {
    set(socket, IPPROTO_TCP, TCP_NODELAY);
    set(socket, SOL_SOCKET, SO_KEEPALIVE);
}

/// Waiting, or another address, does not help.
void require_room(int error) {
    if (error == EMFILE) fail("cannot connect to other ranks: too many open files: raise `ulimit -n`");
    if (error == ENFILE) fail("cannot connect to other ranks: too many open files on this host: raise fs.file-max");
}

Socket new_socket(int family) {
    Socket socket(::socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!socket) require_room(errno);
    return socket;
}

/// An address of IPv4 or IPv6; "" for others.
std::string text_of(const sockaddr* address, socklen_t length) {
    std::array<char, NI_MAXHOST> text = {};
    constexpr int kNumeric = NI_NUMERICHOST;
    if (getnameinfo(address, length, text.data(), text.size(), nullptr, 0, kNumeric) != 0) return "";
    constexpr std::string_view kMapped = "::ffff:";  // IPv4, at a socket that hears both.
    const std::string_view whole = text.data();
    const bool is_mapped = whole.starts_with(kMapped) && whole.find('.') != std::string_view::npos;
    return std::string(is_mapped ? whole.substr(kMapped.size()) : whole);
}

/// Bound, and listening. With IPv6 it hears IPv4, too, where it is bound to all interfaces.
Socket listen_with(const sockaddr* address, socklen_t length, int* error) {
    Socket socket = new_socket(address->sa_family);
    if (!socket) {
        *error = errno;
        return {};
    }
    set(socket, SOL_SOCKET, SO_REUSEADDR);  // The port of a run that has just ended is free.
    const int off = 0;
    const int descriptor = socket.descriptor();
    if (address->sa_family == AF_INET6) setsockopt(descriptor, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
    if (bind(descriptor, address, length) == 0 && listen(descriptor, kBacklog) == 0) return socket;
    *error = errno;
    return {};
}

Socket listen_everywhere(int family, int port, int* error) {
    sockaddr_in6 all6 = {};
    sockaddr_in all4 = {};
    all6.sin6_family = AF_INET6;
    all4.sin_family = AF_INET;
    all6.sin6_port = all4.sin_port = htons(static_cast<uint16_t>(port));
    const bool is_6 = family == AF_INET6;
    const auto* all = is_6 ? reinterpret_cast<const sockaddr*>(&all6) : reinterpret_cast<const sockaddr*>(&all4);
    return listen_with(all, is_6 ? sizeof(all6) : sizeof(all4), error);
}

/// TCP's part of what a name or an address stands for, or nullptr and getaddrinfo()'s error.
using Addresses = std::unique_ptr<addrinfo, void (*)(addrinfo*)>;
Addresses addresses_of(const std::string& host, int port, int* error) {
    addrinfo hints = {};
    hints.ai_family = AF_UNSPEC;
    hints.ai_socktype = SOCK_STREAM;
    addrinfo* first = nullptr;
    *error = getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &first);
    return {*error == 0 ? first : nullptr, freeaddrinfo};
}

/// With `port` 0 all get the port that the system gives the first; EADDRINUSE where another one has it elsewhere.
std::vector<Socket> listen_once(const std::vector<std::string>& hosts, int port, int* error) {
    std::vector<Socket> sockets;
    std::set<std::string> seen;  // Names may have an address twice.
    *error = EADDRNOTAVAIL;
    for (const std::string& host : hosts) {
        int ignored = 0;
        const Addresses addresses = addresses_of(host, port, &ignored);
        for (const addrinfo* each = addresses.get(); each != nullptr; each = each->ai_next) {
            if (!seen.insert(text_of(each->ai_addr, each->ai_addrlen)).second) continue;
            auto* in = reinterpret_cast<sockaddr_in*>(each->ai_addr);  // IPv6 has the port in the same place.
            if (!sockets.empty()) in->sin_port = htons(static_cast<uint16_t>(port_of(sockets[0])));
            int why = 0;
            Socket socket = listen_with(each->ai_addr, each->ai_addrlen, &why);
            if (socket) {
                sockets.push_back(std::move(socket));
            } else if (why == EADDRINUSE || why == EACCES) {  // Else it is none of this host's.
                *error = why;
                return {};
            }
        }
    }
    return sockets;
}

void require_room_for_one() { new_socket(AF_INET); }

/// Whether a connection that was begun is there within `seconds`; errno says why not.
bool finish_connecting(const Socket& socket, double seconds) {
    pollfd entry = {socket.descriptor(), POLLOUT, 0};
    const int ready = poll(&entry, 1, static_cast<int>(std::max(1.0, seconds * 1000)));
    if (ready <= 0) {
        errno = ETIMEDOUT;
        return false;
    }
    int error = 0;
    socklen_t length = sizeof(error);
    getsockopt(socket.descriptor(), SOL_SOCKET, SO_ERROR, &error, &length);
    errno = error;
    return error == 0;
}

}  // namespace

Socket::Socket(Socket&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}

Socket& Socket::operator=(Socket&& other) noexcept {
    std::swap(descriptor_, other.descriptor_);
    return *this;
}

void Socket::close() {
    if (descriptor_ >= 0) ::close(std::exchange(descriptor_, -1));
}

void raise_file_limit() {
    rlimit limit = {};
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == limit.rlim_max) return;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);  // Whether it was enough shows where a file is to be opened.
}

Socket listen_on(int port, int* error) {
    Socket socket = listen_everywhere(AF_INET6, port, error);
    const bool has_no_ipv6 =
        !socket && (*error == EAFNOSUPPORT || *error == EADDRNOTAVAIL || *error == EPROTONOSUPPORT);
    return has_no_ipv6 ? listen_everywhere(AF_INET, port, error) : std::move(socket);
}

std::vector<Socket> listen_at(const std::vector<std::string>& hosts, int port, int* error) {
    constexpr int kTries = 20;
    for (int left = port == 0 ? kTries : 1;; --left) {
        std::vector<Socket> sockets = listen_once(hosts, port, error);
        if (!sockets.empty() || *error != EADDRINUSE || left == 1) return sockets;
    }
}

int port_of(const Socket& socket) {
    sockaddr_in6 address = {};  // The port is where IPv4 has it.
    socklen_t length = sizeof(address);
    getsockname(socket.descriptor(), reinterpret_cast<sockaddr*>(&address), &length);
    return ntohs(address.sin6_port);
}

Socket accept_from(const Socket& listener) {
    Socket socket(accept4(listener.descriptor(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (socket) {
        set_for_messages(socket);
    } else {
        require_room(errno);
    }
    return socket;
}

Socket connect_to(const std::string& host, int port, double seconds, std::string* why) {
    require_room_for_one();  // Before the look-up, which opens files, too.
    int error = 0;
    const Addresses addresses = addresses_of(host, port, &error);
    if (error != 0) {
        if (error == EAI_SYSTEM) require_room(errno);
        *why = fmt::format("unknown host: {}", gai_strerror(error));
        return {};
    }
    const addrinfo* first = addresses.get();
    const double deadline = now_seconds() + seconds;
    int left = 0;
    for (const addrinfo* each = first; each != nullptr; each = each->ai_next) ++left;
    for (const addrinfo* each = first; each != nullptr; each = each->ai_next, --left) {
        Socket socket = new_socket(each->ai_family);
        const bool begun =
            socket && (connect(socket.descriptor(), each->ai_addr, each->ai_addrlen) == 0 || errno == EINPROGRESS);
        if (begun && finish_connecting(socket, (deadline - now_seconds()) / left)) {
            set_for_messages(socket);
            return socket;
        }
        *why = words_of(errno);
    }
    return {};
}

std::string peer_address(const Socket& socket) {
    sockaddr_storage address = {};
    socklen_t length = sizeof(address);
    getpeername(socket.descriptor(), reinterpret_cast<sockaddr*>(&address), &length);
    return text_of(reinterpret_cast<const sockaddr*>(&address), length);
}

std::string own_address(const Socket& socket) {
    sockaddr_storage address = {};
    socklen_t length = sizeof(address);
    getsockname(socket.descriptor(), reinterpret_cast<sockaddr*>(&address), &length);
    return text_of(reinterpret_cast<const sockaddr*>(&address), length);
}

std::string ends_within_host(const Socket& socket) {
    const std::string own = own_address(socket), peer = peer_address(socket);
    if (own != peer && !is_loopback(own) && !is_loopback(peer)) return "";  // A name may mean 127.0.1.1.
    sockaddr_in6 address = {};
    socklen_t length = sizeof(address);
    getpeername(socket.descriptor(), reinterpret_cast<sockaddr*>(&address), &length);
    const std::string here = with_port(own, port_of(socket)), there = with_port(peer, ntohs(address.sin6_port));
    return std::min(here, there) + " " + std::max(here, there);
}

bool is_loopback(const std::string& address) {
    in_addr number = {};
    if (inet_aton(address.c_str(), &number) != 0) return ntohl(number.s_addr) >> 24 == IN_LOOPBACKNET;  // Also "127.1".
    return address == "::1" || address == "localhost";
}

std::vector<std::string> interface_addresses() {
    ifaddrs* first = nullptr;
    if (getifaddrs(&first) != 0) return {};
    const std::unique_ptr<ifaddrs, void (*)(ifaddrs*)> owner(first, freeifaddrs);
    std::vector<std::string> addresses, of_ipv6;
    for (const ifaddrs* entry = first; entry != nullptr; entry = entry->ifa_next) {
        if (entry->ifa_addr == nullptr || (entry->ifa_flags & IFF_UP) == 0) continue;
        if ((entry->ifa_flags & IFF_LOOPBACK) != 0) continue;
        if (entry->ifa_addr->sa_family == AF_INET) {
            addresses.push_back(text_of(entry->ifa_addr, sizeof(sockaddr_in)));
        } else if (entry->ifa_addr->sa_family == AF_INET6) {
            const auto* address = reinterpret_cast<const sockaddr_in6*>(entry->ifa_addr);
            if (IN6_IS_ADDR_LINKLOCAL(&address->sin6_addr)) continue;  // Means another one on every host.
            of_ipv6.push_back(text_of(entry->ifa_addr, sizeof(sockaddr_in6)));
        }
    }
    addresses.insert(addresses.end(), of_ipv6.begin(), of_ipv6.end());
    return addresses;
}

std::string words_of(int error) {
    std::string words = std::strerror(error);
    if (words.size() > 1 && std::islower(static_cast<unsigned char>(words[1])) != 0) {
        words[0] = static_cast<char>(std::tolower(static_cast<unsigned char>(words[0])));
    }
    return words;
}

void pause_for(double seconds, double deadline) {
    const double most = std::min(seconds, deadline - now_seconds());
    if (most > 0) poll(nullptr, 0, static_cast<int>(most * 1000) + 1);
}

WakeUp::WakeUp() : event_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
    if (!event_) fail("cannot watch over other ranks: eventfd: {}", words_of(errno));
}

void WakeUp::notify() const {
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = write(event_.descriptor(), &one, sizeof(one));  // Full means notified.
}

void WakeUp::clear() const {
    uint64_t count = 0;
    [[maybe_unused]] const ssize_t bytes = read(event_.descriptor(), &count, sizeof(count));
}

}  // namespace llmc
