#include "llmc/comm/meet.h"

#include "llmc/base/error.h"
#include "llmc/base/log.h"
#include "llmc/comm/address.h"
#include "llmc/comm/gate.h"

#include <algorithm>
#include <cmath>
#include <poll.h>
#include <utility>

namespace llmc {
namespace {

constexpr const char* kPurpose = "meet";
constexpr uint64_t kLongestCause = 64 << 10;
constexpr uint64_t kLongestMember = 1024;  ///< Name and address of a host.
constexpr double kWelcomeSeconds = 5;
constexpr double kLatecomerSeconds = 3;  ///< So long is told that there will be no meeting: ranks start together.

std::string host_in_message(const std::string& host) { return host.substr(0, kLongestMember / 2); }

std::string refusal(const Error& cause) {
    return pack({std::to_string(cause.exit_code()), std::string(cause.what()).substr(0, kLongestCause / 2)});
}

/// With the exit code as another rank has sent it.
Error error_of(const std::string& exit_code, const std::string& cause) {
    return {exit_code == std::to_string(kExitBadUsage) ? kExitBadUsage : kExitFailed, cause};
}

// ---- Rank 0 ----------------------------------------------------------------------------------------------------

/// Those who come through the gate say which rank they are.
class Assembly {
  public:
    Assembly(Meeting& meeting, double timeout_seconds)
        : meeting_(meeting),
          timeout_seconds_(timeout_seconds),
          gate_(std::move(meeting.listeners), meeting.secret, kPurpose),
          members_(static_cast<size_t>(meeting.size)),
          links_(static_cast<size_t>(meeting.size)) {
        members_[0] = {host_in_message(meeting.host), ""};
    }

    Star run();
    /// Refuses those who come, for this cause, until all have come or the time is over.
    void call_off(const Error& cause);

  private:
    void wait() const;
    void hear_guests();
    void hear_members();
    void admit(Guest guest);
    void start();
    std::vector<int> absent() const;
    /// One has come only to say why it ends.
    [[noreturn]] void end_with(const Error& cause);
    void tell_members(const Error& cause);
    /// Tells all who have come, and throws.
    [[noreturn]] void refuse(int exit_code, const std::string& cause);

    Meeting& meeting_;
    double timeout_seconds_;
    Gate gate_;
    std::vector<Member> members_;
    std::vector<Link> links_;
    const Error* called_off_ = nullptr;
    std::optional<Error> ended_;
};

void Assembly::call_off(const Error& cause) {
    called_off_ = &cause;
    const double deadline = now_seconds() + std::min(timeout_seconds_, kLatecomerSeconds);
    while (!absent().empty() && now_seconds() < deadline) {
        wait();
        hear_guests();
    }
}

Star Assembly::run() {
    const double deadline = now_seconds() + timeout_seconds_;
    while (!absent().empty()) {
        if (now_seconds() >= deadline) {
            refuse(kExitFailed,
                   fmt::format("{}: {} of {} did not come within {} s{}; see why not, or raise --comm-timeout",
                               meeting_.init, list_ranks(absent()), meeting_.size, timeout_seconds_,
                               gate_.remark_on_refused()));
        }
        wait();
        hear_guests();
        if (ended_) end_with(*ended_);
        hear_members();
    }
    start();
    return {std::move(members_), std::move(links_), meeting_.secret};
}

void Assembly::wait() const {
    std::vector<pollfd> entries;
    gate_.add_to(entries);
    for (const Link& link : links_) {
        if (link) entries.push_back({link.socket().descriptor(), link.events(), 0});
    }
    constexpr int kTickMs = 50;
    poll(entries.data(), entries.size(), kTickMs);
}

void Assembly::hear_guests() {
    std::vector<Guest> guests;
    try {
        guests = gate_.admit();
    } catch (const Error& error) {
        refuse(error.exit_code(), fmt::format("rank 0 ({}): {}", meeting_.host, error.what()));
    }
    for (Guest& guest : guests) admit(std::move(guest));
}

void Assembly::admit(Guest guest) {
    const auto fields = unpack(guest.hello);
    constexpr size_t kUsual = 3, kOfOneThatEnds = 5;
    if (!fields || (fields->size() != kUsual && fields->size() != kOfOneThatEnds)) return;
    const std::optional<int64_t> rank = to_integer((*fields)[0]), size = to_integer((*fields)[1]);
    const std::string host = host_in_message((*fields)[2]);
    if (!rank || !size) return;
    Member& member = members_[static_cast<size_t>(std::clamp<int64_t>(*rank, 0, meeting_.size - 1))];
    std::string cause;
    if (*size != meeting_.size) {
        cause = fmt::format("rank {} ({}) was started as one of {} ranks, rank 0 ({}) as one of {}", *rank, host, *size,
                            meeting_.host, meeting_.size);
    } else if (*rank < 0 || *rank >= meeting_.size) {
        cause = fmt::format("a process on {} says it is rank {} of {}", host, *rank, *size);
    } else if (*rank == 0 || links_[static_cast<size_t>(*rank)]) {
        cause = fmt::format("two processes say they are rank {}, on {} and on {}", *rank, member.host, host);
    }
    Link& link = cause.empty() ? links_[static_cast<size_t>(*rank)] : links_[0];
    link = std::move(guest.link);
    if (!cause.empty()) {
        refuse(kExitBadUsage, fmt::format("{}: {}; give every process its own rank and the same number of ranks",
                                          meeting_.init, cause));
    }
    member = {host, peer_address(link.socket())};
    if (fields->size() == kOfOneThatEnds) {
        ended_ = error_of((*fields)[3], fmt::format("rank {} ({}): {}", *rank, host, (*fields)[4]));
    }
    if (called_off_ != nullptr) {
        link.send(MessageType::Refuse, refusal(*called_off_));
        link.flush(now_seconds() + 1);
    } else {
        link.send(MessageType::Welcome, "");
    }
}

void Assembly::hear_members() {
    for (size_t rank = 1; rank < links_.size(); ++rank) {
        if (!links_[rank]) continue;
        if (links_[rank].exchange()) continue;
        links_[rank].close();
        refuse(kExitFailed, fmt::format("rank {} ({}) died before all ranks had come", rank, members_[rank].host));
    }
}

void Assembly::end_with(const Error& cause) {
    tell_members(cause);
    call_off(cause);
    throw cause;
}

void Assembly::start() {
    std::vector<std::string> fields;
    for (const Member& member : members_) {
        fields.push_back(member.host);
        fields.push_back(member.address);
    }
    for (Link& link : links_) {
        if (link) link.send(MessageType::Start, pack(fields));
    }
}

std::vector<int> Assembly::absent() const {
    std::vector<int> ranks;
    for (int rank = 1; rank < meeting_.size; ++rank) {
        if (!links_[static_cast<size_t>(rank)]) ranks.push_back(rank);
    }
    return ranks;
}

void Assembly::tell_members(const Error& cause) {
    const double deadline = now_seconds() + 1;
    for (Link& link : links_) {
        if (!link) continue;
        link.send(MessageType::Refuse, refusal(cause));
        link.flush(deadline);
    }
}

void Assembly::refuse(int exit_code, const std::string& cause) {
    const Error error(exit_code, cause);
    tell_members(error);
    throw error;
}

// ---- The other ranks ---------------------------------------------------------------------------------------------

/// What rank 0 says of the meeting as a whole.
[[noreturn]] void throw_refusal(const Meeting& meeting, const Message& refusal) {
    const auto fields = unpack(refusal.payload);
    const bool whole = fields && fields->size() == 2;
    throw error_of(whole ? (*fields)[0] : "",
                   fmt::format("rank {}: rank 0 gave up: {}", meeting.rank, whole ? (*fields)[1] : "no reason given"));
}

/// A welcome link to rank 0, or no link and `why`. A rank that ends says its `cause` in the same breath.
Link try_to_join(const Meeting& meeting, const std::string& host, const RootPlace& place, double deadline,
                 const Error* cause, std::string* why, bool* is_other_job) {
    std::vector<std::string> hello = {std::to_string(meeting.rank), std::to_string(meeting.size),
                                      host_in_message(meeting.host)};
    if (cause != nullptr) {
        hello.push_back(std::to_string(cause->exit_code()));
        hello.push_back(std::string(cause->what()).substr(0, kLongestHello / 2));
    }
    const double until = std::min(deadline, now_seconds() + kWelcomeSeconds);
    Link link = knock(host, place.port, place.secret, kPurpose, pack(hello), until, why, is_other_job);
    if (!link) return {};
    link.expect({{MessageType::Welcome, 0}, {MessageType::Refuse, kLongestCause}});
    const std::optional<Message> answer = link.await(std::min(deadline, now_seconds() + kWelcomeSeconds));
    if (answer && answer->type == MessageType::Refuse) throw_refusal(meeting, *answer);
    if (answer) return link;
    *why = "rank 0 is there, but gave no answer";
    return {};
}

/// The secret comes with the link: of ranks that meet by a file it is in there.
Link join(const Meeting& meeting, double timeout_seconds, Secret* secret, const Error* cause = nullptr) {
    const double deadline = now_seconds() + timeout_seconds;
    std::string where, why = "no time to try", why_other_job;  // That tells more than a refusal when he has gone.
    while (now_seconds() < deadline) {
        const std::optional<RootPlace> place = meeting.find_root(&why);
        for (size_t i = 0; place && i < place->hosts.size() && now_seconds() < deadline; ++i) {
            where = " at " + with_port(place->hosts[i], place->port);
            bool is_other_job = false;
            Link link = try_to_join(meeting, place->hosts[i], *place, deadline, cause, &why, &is_other_job);
            if (is_other_job) why_other_job = why;
            if (!link) continue;
            *secret = place->secret;
            return link;
        }
        constexpr double kBetweenTries = 0.1;
        pause_for(kBetweenTries, deadline);
    }
    fail("rank {}: no answer from rank 0{} within {} s ({}); {}", meeting.rank, where, timeout_seconds,
         why_other_job.empty() ? why : why_other_job, meeting.advice);
}

Star await_start(const Meeting& meeting, Link link, const Secret& secret, double timeout_seconds) {
    const std::string root_address = peer_address(link.socket());
    const uint64_t longest = static_cast<uint64_t>(meeting.size) * kLongestMember;
    link.expect({{MessageType::Start, longest}, {MessageType::Refuse, kLongestCause}});
    constexpr double kSlack = 5;  // Rank 0 gives up first, and can say why.
    const std::optional<Message> answer = link.await(now_seconds() + timeout_seconds + kSlack);
    if (answer && answer->type == MessageType::Refuse) throw_refusal(meeting, *answer);
    const auto fields = answer && answer->type == MessageType::Start ? unpack(answer->payload) : std::nullopt;
    if (!fields || fields->size() != 2 * static_cast<size_t>(meeting.size)) {
        fail("rank {}: rank 0 at {} died before all ranks had come", meeting.rank, root_address);
    }
    link.expect({});
    Star star;
    star.secret = secret;
    for (size_t i = 0; i < fields->size(); i += 2) {
        // Whoever reached rank 0 by its loopback is on its host.
        const std::string& address = (*fields)[i + 1];
        const bool with_root = address.empty() || is_loopback(address);
        star.members.push_back({(*fields)[i], with_root ? root_address : address});
    }
    star.links.resize(star.members.size());
    star.links[0] = std::move(link);
    return star;
}

}  // namespace

Star meet(Meeting& meeting, double timeout_seconds) {
    if (meeting.rank == 0) return Assembly(meeting, timeout_seconds).run();
    Secret secret;
    Link link = join(meeting, timeout_seconds, &secret);
    return await_start(meeting, std::move(link), secret, timeout_seconds);
}

void call_off(Meeting& meeting, const Error& cause, double seconds) noexcept {
    try {
        if (meeting.rank == 0) {
            const Error shown(cause.exit_code(), fmt::format("rank 0 ({}): {}", meeting.host, cause.what()));
            return Assembly(meeting, seconds).call_off(shown);
        }
        Secret ignored;
        join(meeting, std::min(seconds, kLatecomerSeconds), &ignored, &cause);
    } catch (const std::exception&) {  // Nobody is there, or they know already.
    }
}

std::string list_ranks(const std::vector<int>& ranks) {
    return fmt::format("{} {}", ranks.size() == 1 ? "rank" : "ranks", fmt::join(ranks, ", "));
}

}  // namespace llmc
