#include "llmc/comm/watch.h"

#include "llmc/base/check.h"
#include "llmc/comm/meet.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>

namespace llmc {
namespace {

using Reports = std::vector<RankReport>;

template <typename Condition>
std::vector<int> ranks_where(const Reports& reports, Condition condition) {
    std::vector<int> ranks;
    for (size_t rank = 0; rank < reports.size(); ++rank) {
        if (!reports[rank].finished && condition(reports[rank])) ranks.push_back(static_cast<int>(rank));
    }
    return ranks;
}

std::vector<int> ranks_furthest_behind(const Reports& reports) {
    const auto behind = [](const RankReport& a, const RankReport& b) {
        return a.finished != b.finished ? b.finished : a.position < b.position;
    };
    const int64_t lowest = std::min_element(reports.begin(), reports.end(), behind)->position;
    return ranks_where(reports, [&](const RankReport& report) { return report.position == lowest; });
}

Verdict blame(const Reports& reports, const std::vector<int>& ranks, double seconds) {
    CHECK(!ranks.empty());
    const std::vector<int> others(ranks.begin() + 1, ranks.end());
    const std::string like = others.empty() ? "" : fmt::format(" (nor has {})", list_ranks(others));
    return {ranks.front(), fmt::format(" has not answered for {:.3g} s{}: it was at {}; raise --comm-timeout if it is "
                                       "only slow",
                                       seconds, like, reports[static_cast<size_t>(ranks.front())].doing)};
}

}  // namespace

bool waits_for_long_work(const Reports& reports) {
    const std::vector<int> behind = ranks_furthest_behind(reports);
    return std::all_of(behind.begin(), behind.end(), [&](int rank) { return reports[static_cast<size_t>(rank)].busy; });
}

std::optional<Verdict> judge(const Reports& reports, double now, double timeout_seconds, double excused_until) {
    const auto silent_for = [&](double seconds) {
        return ranks_where(reports, [&](const RankReport& report) { return now - report.last_heard > seconds; });
    };
    if (const auto silent = silent_for(timeout_seconds); !silent.empty()) {
        return blame(reports, silent, now - reports[static_cast<size_t>(silent.front())].last_heard);
    }
    double longest = 0, shortest = now - excused_until;
    for (const RankReport& report : reports) {
        longest = std::max(longest, report.waiting_seconds);
        if (!report.finished) shortest = std::min(shortest, report.waiting_seconds);
    }
    const double waited = std::min(longest, now - excused_until);
    if (waited <= timeout_seconds) return std::nullopt;

    // A process that was stopped inside a call has got as far as the others.
    if (const auto silent = silent_for(timeout_seconds / 3); !silent.empty()) return blame(reports, silent, waited);
    std::vector<int> behind = ranks_furthest_behind(reports);
    if (behind.size() < ranks_where(reports, [](const RankReport&) { return true; }).size()) {
        std::erase_if(behind, [&](int rank) { return reports[static_cast<size_t>(rank)].busy; });
        return behind.empty() ? std::nullopt : std::optional(blame(reports, behind, waited));
    }
    // Together since the last of them came.
    if (shortest <= timeout_seconds) return std::nullopt;
    return Verdict{behind.front(), fmt::format(" and all other ranks have waited for one another for {:.3g} s, at {}: "
                                               "the network does not deliver; raise --comm-timeout if it is only slow",
                                               shortest, reports[static_cast<size_t>(behind.front())].doing)};
}

}  // namespace llmc
