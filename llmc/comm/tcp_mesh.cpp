#include "llmc/comm/tcp_mesh.h"

#include "llmc/base/error.h"
#include "llmc/base/log.h"
#include "llmc/comm/address.h"
#include "llmc/comm/gate.h"

#include <algorithm>
#include <optional>
#include <poll.h>
#include <utility>

namespace llmc {
namespace {

constexpr double kTick = 0.05;
constexpr double kAnswerSeconds = 10;  ///< Then another address is tried: at this one may be somebody who is silent.

/// For one rank's gate alone: who passes on what he hears cannot lead to another's.
std::string purpose_of(int rank) { return fmt::format("mesh {}", rank); }

/// Where a rank listens for the others.
struct Place {
    int port = 0;
    std::vector<std::string> addresses;
};

std::string to_text(const Place& place) {
    std::vector<std::string> fields = {std::to_string(place.port)};
    fields.insert(fields.end(), place.addresses.begin(), place.addresses.end());
    return pack(fields);
}

class Mesh {
  public:
    explicit Mesh(Control& control)
        : control_(control),
          deadline_(now_seconds() + control.timeout_seconds()),
          sockets_(static_cast<size_t>(control.size())) {}

    std::vector<Socket> connect();

  private:
    std::vector<Socket> listen(Place* place) const;
    Place place_of(int rank, const std::string& text) const;
    void connect_to_rank(int rank, const Place& place);
    Socket try_to_connect(int rank, const std::string& address, int port, std::string* why) const;
    void accept_higher_ranks(Gate& gate);
    void accept(Guest guest);

    Control& control_;
    double deadline_;
    std::vector<Socket> sockets_;
};

/// Every rank connects to those before it, once they listen, and accepts those after it.
std::vector<Socket> Mesh::connect() {
    Place own;
    Gate gate(listen(&own), control_.secret(), purpose_of(control_.rank()));
    const std::vector<std::string> places = control_.all_gather(to_text(own));
    for (int rank = 0; rank < control_.rank(); ++rank) {
        connect_to_rank(rank, place_of(rank, places[static_cast<size_t>(rank)]));
    }
    accept_higher_ranks(gate);
    control_.all_gather("");  // No data before everybody has heard the last word of the meeting.
    return std::move(sockets_);
}

/// On the interfaces of the control connections. A rank that has only the loopback with rank 0, where others are on
/// other hosts, cannot know by which of its interfaces they will come.
std::vector<Socket> Mesh::listen(Place* place) const {
    place->addresses = control_.own_addresses();
    const auto is_elsewhere = [](const std::string& address) { return !address.empty() && !is_loopback(address); };
    bool others_elsewhere = false;
    for (int rank = 0; rank < control_.size(); ++rank) others_elsewhere |= is_elsewhere(control_.member(rank).address);
    const bool reachable = std::any_of(place->addresses.begin(), place->addresses.end(), is_elsewhere);
    int error = 0;
    std::vector<Socket> listeners;
    if (reachable || !others_elsewhere) {
        listeners = listen_at(place->addresses, 0, &error);
    } else {
        if (Socket socket = listen_on(0, &error)) listeners.push_back(std::move(socket));
        const std::vector<std::string> all = interface_addresses();
        place->addresses.insert(place->addresses.begin(), all.begin(), all.end());
    }
    if (listeners.empty()) fail("rank {} cannot listen for other ranks: {}", control_.rank(), words_of(error));
    place->port = port_of(listeners[0]);
    return listeners;
}

/// First the address that its control connection came from.
Place Mesh::place_of(int rank, const std::string& text) const {
    const auto fields = unpack(text);
    if (!fields || fields->empty()) fail("{} does not say where it listens", control_.name_of(rank));
    Place place = {static_cast<int>(to_integer(fields->at(0)).value_or(0)), {control_.member(rank).address}};
    place.addresses.insert(place.addresses.end(), fields->begin() + 1, fields->end());
    return place;
}

void Mesh::connect_to_rank(int rank, const Place& place) {
    std::string where, why = "no time to try";
    while (now_seconds() < deadline_) {
        for (const std::string& address : place.addresses) {
            control_.require_alive();
            where = with_port(address, place.port);
            if (Socket socket = try_to_connect(rank, address, place.port, &why)) {
                sockets_[static_cast<size_t>(rank)] = std::move(socket);
                return;
            }
        }
        pause_for(kTick, deadline_);
    }
    fail("{} cannot reach {} at {} within {} s ({}); is there a firewall between their hosts?",
         control_.name_of(control_.rank()), control_.name_of(rank), where, control_.timeout_seconds(), why);
}

/// The other rank answers when it has connected to those before it.
Socket Mesh::try_to_connect(int rank, const std::string& address, int port, std::string* why) const {
    const std::string hello = std::to_string(control_.rank());
    const double until = std::min(deadline_, now_seconds() + kAnswerSeconds);
    Link link = knock(address, port, control_.secret(), purpose_of(rank), hello, until, why);
    if (!link) return {};
    link.expect({{MessageType::Welcome, 0}});
    const std::optional<Message> answer = link.await(deadline_);
    if (answer) return link.release();
    *why = "it gave no answer";
    return {};
}

void Mesh::accept_higher_ranks(Gate& gate) {
    for (;;) {
        int absent = control_.rank() + 1;
        while (absent < control_.size() && sockets_[static_cast<size_t>(absent)]) ++absent;
        if (absent == control_.size()) return;
        control_.require_alive();
        if (now_seconds() >= deadline_) {
            fail("{} did not connect to {} within {} s{}; is there a firewall between their hosts?",
                 control_.name_of(absent), control_.name_of(control_.rank()), control_.timeout_seconds(),
                 gate.remark_on_refused());
        }
        std::vector<pollfd> entries;
        gate.add_to(entries);
        poll(entries.data(), entries.size(), static_cast<int>(kTick * 1000));
        for (Guest& guest : gate.admit()) accept(std::move(guest));
    }
}

void Mesh::accept(Guest guest) {
    const int64_t rank = to_integer(guest.hello).value_or(0);
    if (rank <= control_.rank() || rank >= control_.size()) return;
    guest.link.send(MessageType::Welcome, "");
    if (!guest.link.flush(deadline_)) return;
    sockets_[static_cast<size_t>(rank)] = guest.link.release();
}

}  // namespace

std::vector<Socket> connect_mesh(Control& control) { return Mesh(control).connect(); }

}  // namespace llmc
