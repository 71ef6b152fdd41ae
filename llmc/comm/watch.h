// Who is to blame when a rank is waited for too long: pure functions of what is known of every rank. control.h sends
// the reports and acts on the verdict.
#pragma once

#include "llmc/base/error.h"

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace llmc {

/// What a rank last said of itself.
struct RankReport {
    double last_heard = 0;       ///< now_seconds() when anything came from it.
    double waiting_seconds = 0;  ///< In the call it is in; 0 while it does not wait for others.
    int64_t position = 0;        ///< Twice the calls that it has left, and one more while it waits in one.
    std::string doing = "its start";
    bool busy = false;      ///< In work that may take longer than the timeout.
    bool finished = false;  ///< It has said goodbye: nothing more is expected of it.
};

struct Verdict {
    int rank = 0;
    std::string what;  ///< " has not answered for 30 s: ..."; comes after the rank's name.
    int exit_code = kExitFailed;
};

/// Whether whoever waits does so for ranks that said their work takes long: no fault, however long it is. Waiting
/// counts from its end.
bool waits_for_long_work(const std::vector<RankReport>& reports);

/// A rank is at fault if it was silent for `timeout_seconds`, or if another one has waited that long and it is the one
/// that is furthest behind. Nobody is while nobody waits: computing may take its time. Waiting before `excused_until`
/// does not count.
std::optional<Verdict> judge(const std::vector<RankReport>& reports, double now, double timeout_seconds,
                             double excused_until = 0);

}  // namespace llmc
