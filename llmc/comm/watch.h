// Who is to blame when a rank is waited for too long: a pure function of what is known of every rank. control.h sends
// the reports and acts on the verdict.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace llmc {

/// What a rank last said of itself.
struct RankReport {
    double last_heard = 0;       ///< now_seconds() when anything came from it.
    double waiting_seconds = 0;  ///< In the call it is in; 0 outside of calls.
    int64_t position = 0;        ///< Grows by one as it enters a call that waits for others, and as it leaves one.
    std::string doing = "its start";
    bool finished = false;  ///< It has said goodbye: nothing more is expected of it.
};

struct Verdict {
    int rank = 0;
    std::string what;  ///< " has not answered for 30 s: ..."; comes after the rank's name.
};

/// A rank is at fault if it was silent for `timeout_seconds`, or if another one has waited that long and it is the one
/// that is furthest behind. Nobody is while nobody waits: computing may take its time.
std::optional<Verdict> judge(const std::vector<RankReport>& reports, double now, double timeout_seconds);

}  // namespace llmc
