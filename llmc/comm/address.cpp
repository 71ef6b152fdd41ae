#include "llmc/comm/address.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <string_view>

namespace llmc {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }

bool is_of_names(char c) {
    return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' || c == '_' || c == '.';
}

std::string wrong_with_ipv6(const std::string& text) {
    in6_addr address = {};
    const std::string without_zone = text.substr(0, text.find('%'));
    if (inet_pton(AF_INET6, without_zone.c_str(), &address) != 1) return "is no IPv6 address";
    if (IN6_IS_ADDR_MULTICAST(&address)) return "is a multicast address";
    return "";
}

std::string wrong_with_ipv4(const std::string& text) {
    in_addr address = {};
    if (inet_aton(text.c_str(), &address) == 0) return "is no IPv4 address";
    const uint32_t number = ntohl(address.s_addr);
    return IN_MULTICAST(number) || number == INADDR_BROADCAST ? "is a multicast or broadcast address" : "";
}

/// RFC 1035, and the underscores that containers have.
std::string wrong_with_name(std::string_view name) {
    constexpr size_t kLongestName = 253, kLongestLabel = 63;
    if (name.ends_with('.')) name.remove_suffix(1);
    if (name.size() > kLongestName) return "is longer than a host's name can be";
    for (size_t begin = 0; begin <= name.size();) {
        const size_t end = std::min(name.find('.', begin), name.size());
        if (end == begin || end - begin > kLongestLabel || name[begin] == '-') return "is no name of a host";
        begin = end + 1;
    }
    return "";
}

}  // namespace

std::string wrong_with_address(const std::string& text) {
    if (const size_t scheme = text.find("://"); scheme != std::string::npos) {
        return fmt::format("is a URL; leave out '{}' and what follows the host", text.substr(0, scheme + 3));
    }
    const auto colons = std::count(text.begin(), text.end(), ':');
    const size_t last = text.rfind(':');
    const bool ends_in_port = colons > 0 && last + 1 < text.size() &&
                              std::all_of(text.begin() + static_cast<std::ptrdiff_t>(last) + 1, text.end(), is_digit);
    if (ends_in_port && (colons == 1 || text[last - 1] == ']')) {
        return fmt::format("has a port; give that in MASTER_PORT={}", text.substr(last + 1));
    }
    if (text.starts_with('[') || text.ends_with(']') || colons > 1) return wrong_with_ipv6(without_brackets(text));
    const auto odd = std::find_if_not(text.begin(), text.end(), is_of_names);
    if (odd != text.end()) return "is neither a host's name nor an address";
    const bool is_number = std::all_of(text.begin(), text.end(), [](char c) { return is_digit(c) || c == '.'; });
    return is_number ? wrong_with_ipv4(text) : wrong_with_name(text);
}

std::string without_brackets(const std::string& host) {
    return host.size() > 2 && host.starts_with('[') && host.ends_with(']') ? host.substr(1, host.size() - 2) : host;
}

std::string with_port(const std::string& host, int port) {
    const bool is_ipv6 = host.find(':') != std::string::npos;
    return fmt::format("{}{}{}:{}", is_ipv6 ? "[" : "", host, is_ipv6 ? "]" : "", port);
}

}  // namespace llmc
