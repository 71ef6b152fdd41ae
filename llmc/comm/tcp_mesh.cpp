#include "llmc/comm/tcp_mesh.h"

#include "llmc/base/error.h"
#include "llmc/base/log.h"
#include "llmc/comm/address.h"
#include "llmc/comm/link.h"

#include <algorithm>
#include <poll.h>
#include <random>
#include <utility>

namespace llmc {
namespace {

constexpr uint64_t kLongestHello = 4096;
constexpr double kAtATime = 5;  ///< Seconds for one address, or one stranger.
constexpr double kTick = 0.05;

/// Where a rank listens for the others.
struct Place {
    int port = 0;
    std::vector<std::string> addresses;  ///< Beside the one its control connection came from.
};

std::string to_text(const Place& place) {
    std::vector<std::string> fields = {std::to_string(place.port)};
    fields.insert(fields.end(), place.addresses.begin(), place.addresses.end());
    return pack(fields);
}

Place place_of(const Control& control, int rank, const std::string& text) {
    const auto fields = unpack(text);
    Place place = {static_cast<int>(to_integer(fields->at(0)).value_or(0)), {control.member(rank).address}};
    place.addresses.insert(place.addresses.end(), fields->begin() + 1, fields->end());
    return place;
}

class Mesh {
  public:
    explicit Mesh(Control& control)
        : control_(control),
          deadline_(now_seconds() + control.timeout_seconds()),
          sockets_(static_cast<size_t>(control.size())) {}

    std::vector<Socket> connect();

  private:
    void connect_to_rank(int rank, const Place& place);
    Link try_to_connect(const std::string& address, int port, std::string* why) const;
    void accept_higher_ranks();
    void accept_one();

    Control& control_;
    double deadline_;
    Socket listener_;
    std::string token_;
    std::vector<Socket> sockets_;
};

/// Every rank connects to those before it, once they listen, and accepts those after it.
std::vector<Socket> Mesh::connect() {
    int error = 0;
    listener_ = listen_on(0, &error);
    if (!listener_) fail("rank {} cannot listen for other ranks: {}", control_.rank(), words_of(error));
    std::random_device random;
    token_ = control_.broadcast(fmt::format("{:08x}{:08x}", random(), random()));
    const std::vector<std::string> places = control_.all_gather(to_text({port_of(listener_), interface_addresses()}));
    for (int rank = 0; rank < control_.rank(); ++rank) {
        connect_to_rank(rank, place_of(control_, rank, places[static_cast<size_t>(rank)]));
    }
    accept_higher_ranks();
    control_.all_gather("");  // No data before everybody has heard the last word of the meeting.
    return std::move(sockets_);
}

void Mesh::connect_to_rank(int rank, const Place& place) {
    std::string where, why = "no time to try";
    while (now_seconds() < deadline_) {
        for (const std::string& address : place.addresses) {
            control_.require_alive();
            where = with_port(address, place.port);
            if (Link link = try_to_connect(address, place.port, &why)) {
                sockets_[static_cast<size_t>(rank)] = link.release();
                return;
            }
        }
        pause_for(kTick, deadline_);
    }
    fail("{} cannot reach {} at {} within {} s ({}); is there a firewall between their hosts?",
         control_.name_of(control_.rank()), control_.name_of(rank), where, control_.timeout_seconds(), why);
}

Link Mesh::try_to_connect(const std::string& address, int port, std::string* why) const {
    const double until = std::min(deadline_, now_seconds() + kAtATime);
    Socket socket = llmc::connect_to(address, port, until - now_seconds(), why);
    if (!socket) return {};
    Link link(std::move(socket));
    link.send(MessageType::Hello, pack({token_, std::to_string(control_.rank())}));
    const std::optional<Message> answer = link.await(deadline_);
    if (answer && answer->type == MessageType::Welcome) return link;
    *why = "it gave no answer";
    return {};
}

void Mesh::accept_higher_ranks() {
    for (;;) {
        int absent = control_.rank() + 1;
        while (absent < control_.size() && sockets_[static_cast<size_t>(absent)]) ++absent;
        if (absent == control_.size()) return;
        control_.require_alive();
        if (now_seconds() >= deadline_) {
            fail("{} did not connect to {} within {} s; is there a firewall between their hosts?",
                 control_.name_of(absent), control_.name_of(control_.rank()), control_.timeout_seconds());
        }
        pollfd entry = {listener_.descriptor(), POLLIN, 0};
        if (poll(&entry, 1, static_cast<int>(kTick * 1000)) > 0) accept_one();
    }
}

void Mesh::accept_one() {
    Link link(accept_from(listener_));
    if (!link) return;
    link.limit_length(kLongestHello);
    const std::optional<Message> hello = link.await(std::min(deadline_, now_seconds() + kAtATime));
    const auto fields = hello ? unpack(hello->payload) : std::nullopt;
    if (!fields || fields->size() != 2 || fields->at(0) != token_ || !link.exchange()) return;
    const int64_t rank = to_integer(fields->at(1)).value_or(0);
    if (rank <= control_.rank() || rank >= control_.size()) return;
    link.send(MessageType::Welcome, "");
    sockets_[static_cast<size_t>(rank)] = link.release();
}

}  // namespace

std::vector<Socket> connect_mesh(Control& control) { return Mesh(control).connect(); }

}  // namespace llmc
