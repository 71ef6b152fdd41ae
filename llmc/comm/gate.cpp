#include "llmc/comm/gate.h"

#include "llmc/base/error.h"
#include "llmc/base/log.h"

#include <sodium.h>
#include <algorithm>
#include <map>
#include <string_view>
#include <utility>

namespace llmc {
namespace {

constexpr double kStrangerSeconds = 10;  ///< A rank on a busy host answers within them.
constexpr double kConnectSeconds = 3;    ///< For one address, of several that may be right.
constexpr size_t kMostStrangers = 128;   ///< Beyond, one goes for each that comes: make_room().
constexpr int kAcceptedAtOnce = 64;

constexpr const char* kGate = "gate";
constexpr const char* kGuest = "guest";

}  // namespace

Gate::Gate(std::vector<Socket> listeners, const Secret& secret, std::string purpose)
    : listeners_(std::move(listeners)), secret_(secret), purpose_(std::move(purpose)) {}

void Gate::add_to(std::vector<pollfd>& entries) const {
    for (const Socket& listener : listeners_) entries.push_back({listener.descriptor(), POLLIN, 0});
    for (const Stranger& stranger : strangers_) {
        entries.push_back({stranger.link.socket().descriptor(), stranger.link.events(), 0});
    }
}

std::vector<Guest> Gate::admit() {
    std::vector<Guest> guests;
    std::deque<Stranger> waiting;
    for (Stranger& stranger : strangers_) {
        std::string hello;
        const Answer answer = hear(stranger, &hello);
        if (answer == Answer::Enter) {
            guests.push_back({std::move(stranger.link), std::move(hello)});
        } else if (answer == Answer::Wait) {
            waiting.push_back(std::move(stranger));
        }
    }
    strangers_ = std::move(waiting);
    accept();  // Last: whose Hello is here has entered before anybody makes room.
    return guests;
}

void Gate::accept() {
    const double until = now_seconds() + kStrangerSeconds;
    for (const Socket& listener : listeners_) {
        for (int count = 0; count < kAcceptedAtOnce; ++count) {
            Socket socket;
            try {
                socket = accept_from(listener);
            } catch (const Error&) {  // Too many open files, unless they are those of strangers.
                if (strangers_.empty()) throw;
                make_room();
                continue;
            }
            if (!socket) break;
            if (strangers_.size() >= kMostStrangers) make_room();
            const std::string from = peer_address(socket), ends = ends_within_host(socket);
            Stranger& stranger = strangers_.emplace_back(Stranger{Link(std::move(socket)), from, ends, until});
            stranger.link.expect({{MessageType::Knock, kNonceBytes}});
        }
    }
}

void Gate::make_room() {
    std::map<std::string_view, uint32_t> held;
    for (const Stranger& stranger : strangers_) ++held[stranger.from];
    const auto most =
        std::max_element(held.begin(), held.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
    uint32_t before = randombytes_uniform(most->second);
    const auto is_it = [&](const Stranger& stranger) { return stranger.from == most->first && before-- == 0; };
    strangers_.erase(std::find_if(strangers_.begin(), strangers_.end(), is_it));
}

Gate::Answer Gate::hear(Stranger& stranger, std::string* hello) {
    const bool open = stranger.link.exchange();
    std::optional<Message> message = stranger.link.take();
    if (!message) {
        if (open && now_seconds() < stranger.until) return Answer::Wait;
        if (stranger.was_challenged) note_refused(stranger);
        return Answer::Leave;
    }
    if (message->type == MessageType::Knock) return challenge(stranger, *message) ? Answer::Wait : Answer::Leave;
    const auto fields = unpack(message->payload);
    const bool whole = fields && fields->size() == 2;
    if (!whole || !secret_.accepts(fields->at(0), {kGuest, purpose_, stranger.nonces, stranger.ends, fields->at(1)})) {
        note_refused(stranger);
        return Answer::Leave;
    }
    stranger.link.expect({});
    // Also one who has given up and come again: what he said was long ago.
    if (!open || !stranger.link.exchange()) return Answer::Leave;
    *hello = fields->at(1);
    return Answer::Enter;
}

bool Gate::challenge(Stranger& stranger, const Message& knock) const {
    if (knock.payload.size() != kNonceBytes) return false;
    const std::string nonce = random_nonce();
    stranger.nonces = knock.payload + nonce;
    stranger.was_challenged = true;
    stranger.link.expect({{MessageType::Hello, kLongestHello}});
    const std::string proof = secret_.prove({kGate, purpose_, stranger.nonces, stranger.ends});
    stranger.link.send(MessageType::Challenge, pack({nonce, proof}));
    return true;
}

void Gate::note_refused(const Stranger& stranger) {
    ++refused_;
    last_refused_ = stranger.from;
    spdlog::debug("a connection from {} did not know this job's secret", last_refused_);
}

std::string Gate::remark_on_refused() const {
    if (refused_ == 0) return "";
    const std::string last = last_refused_.empty() ? "" : fmt::format(", the last from {},", last_refused_);
    return fmt::format("; {} connection{}{} did not know this job's secret: is LLMC_JOB_SECRET the same for all ranks?",
                       refused_, refused_ == 1 ? "" : "s", last);
}

Link knock(const std::string& host, int port, const Secret& secret, const std::string& purpose,
           const std::string& hello, double deadline, std::string* why, bool* is_other_job) {
    Socket socket = connect_to(host, port, std::min(kConnectSeconds, deadline - now_seconds()), why);
    if (!socket) return {};
    const std::string ends = ends_within_host(socket);
    Link link(std::move(socket));
    const std::string nonce = random_nonce();
    link.expect({{MessageType::Challenge, pack({nonce, std::string(kProofBytes, '\0')}).size()}});
    link.send(MessageType::Knock, nonce);
    const std::optional<Message> challenge = link.await(deadline);
    const auto fields = challenge ? unpack(challenge->payload) : std::nullopt;
    if (!fields || fields->size() != 2) {
        *why = "something answers there, but it is not a rank of this job";
        return {};
    }
    const std::string nonces = nonce + fields->at(0);
    if (!secret.accepts(fields->at(1), {kGate, purpose, nonces, ends})) {
        *why =
            "something answers there, but it does not know this job's secret: another job, or LLMC_JOB_SECRET is not "
            "the same for all ranks";
        if (is_other_job != nullptr) *is_other_job = true;
        return {};
    }
    link.expect({});
    link.send(MessageType::Hello, pack({secret.prove({kGuest, purpose, nonces, ends, hello}), hello}));
    return link;
}

}  // namespace llmc
