// Ranks meet: every rank but 0 knocks at rank 0's gate (gate.h), says who it is, and waits until rank 0 has seen all.
// What a rank must know for that, its number, how to reach rank 0 and the job's secret, comes from rendezvous.h (or
// from a test).
#pragma once

#include "llmc/base/error.h"
#include "llmc/comm/link.h"
#include "llmc/comm/place_file.h"
#include "llmc/comm/secret.h"

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace llmc {

/// How to reach rank 0: addresses and names to be tried in turn, and the secret that it knows.
struct RootPlace {
    std::vector<std::string> hosts;
    int port = 0;
    Secret secret;
};

struct Meeting {
    int rank = 0, size = 1;
    std::string host;                  ///< This rank's host name.
    std::string init = "--comm-init";  ///< What was asked for, to begin messages with.

    // Of rank 0, which listens until all have come.
    std::vector<Socket> listeners;
    Secret secret;
    std::unique_ptr<PlaceFile> place_file;

    // Of the others: where rank 0 is by what is known now; without an answer, `why`.
    std::function<std::optional<RootPlace>(std::string* why)> find_root;
    std::string advice;  ///< What to do if it does not answer.
};

struct Member {
    std::string host;     ///< Name.
    std::string address;  ///< As this rank can reach it.
};

/// What a meeting ends with. Rank 0 has a link to every other rank, the others have one to rank 0; both by rank.
struct Star {
    std::vector<Member> members;
    std::vector<Link> links;
    Secret secret;  ///< That they share.
};

/// Errors name who did not come, or where nobody answered, within the time.
Star meet(Meeting& meeting, double timeout_seconds);

/// Instead of meet(): tells the others that this rank ends, and why, so that they do as well. Waits `seconds`, three at
/// most: rank 0 for all the others and they for it.
void call_off(Meeting& meeting, const Error& cause, double seconds) noexcept;

/// "rank 3", "ranks 1, 3".
std::string list_ranks(const std::vector<int>& ranks);

}  // namespace llmc
