#include "llmc/comm/socket.h"

#include "llmc/base/error.h"
#include "llmc/base/log.h"

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

Socket new_socket() {
    Socket socket(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!socket) require_room(errno);
    return socket;
}

std::string text_of(const in_addr& address) {
    std::array<char, INET_ADDRSTRLEN> text = {};
    inet_ntop(AF_INET, &address, text.data(), text.size());
    return text.data();
}

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
    Socket socket = new_socket();
    set(socket, SOL_SOCKET, SO_REUSEADDR);  // The port of a run that has just ended is free.
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_ANY);
    const auto* generic = reinterpret_cast<const sockaddr*>(&address);
    if (bind(socket.descriptor(), generic, sizeof(address)) == 0 && listen(socket.descriptor(), kBacklog) == 0) {
        return socket;
    }
    *error = errno;
    return {};
}

int port_of(const Socket& socket) {
    sockaddr_in address = {};
    socklen_t length = sizeof(address);
    getsockname(socket.descriptor(), reinterpret_cast<sockaddr*>(&address), &length);
    return ntohs(address.sin_port);
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
    Socket socket = new_socket();  // Before the look-up, which opens files, too.
    addrinfo hints = {};
    hints.ai_family = AF_INET;
    hints.ai_socktype = SOCK_STREAM;
    addrinfo* found = nullptr;
    if (const int error = getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found); error != 0) {
        if (error == EAI_SYSTEM) require_room(errno);
        *why = fmt::format("unknown host: {}", gai_strerror(error));
        return {};
    }
    const std::unique_ptr<addrinfo, void (*)(addrinfo*)> owner(found, freeaddrinfo);
    const bool begun = connect(socket.descriptor(), found->ai_addr, found->ai_addrlen) == 0 || errno == EINPROGRESS;
    if (begun && finish_connecting(socket, seconds)) {
        set_for_messages(socket);
        return socket;
    }
    *why = words_of(errno);
    return {};
}

std::string peer_address(const Socket& socket) {
    sockaddr_in address = {};
    socklen_t length = sizeof(address);
    getpeername(socket.descriptor(), reinterpret_cast<sockaddr*>(&address), &length);
    return text_of(address.sin_addr);
}

bool is_loopback(const std::string& address) { return address.starts_with("127."); }

std::vector<std::string> interface_addresses() {
    ifaddrs* first = nullptr;
    if (getifaddrs(&first) != 0) return {};
    const std::unique_ptr<ifaddrs, void (*)(ifaddrs*)> owner(first, freeifaddrs);
    std::vector<std::string> addresses;
    for (const ifaddrs* entry = first; entry != nullptr; entry = entry->ifa_next) {
        if (entry->ifa_addr == nullptr || entry->ifa_addr->sa_family != AF_INET) continue;
        if ((entry->ifa_flags & IFF_UP) == 0 || (entry->ifa_flags & IFF_LOOPBACK) != 0) continue;
        addresses.push_back(text_of(reinterpret_cast<const sockaddr_in*>(entry->ifa_addr)->sin_addr));
    }
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
