#include "dev/cuda_on_cpu/async_work.h"

#include "dev/cuda_on_cpu/control.h"
#include "dev/cuda_on_cpu/scheduler.h"

#include <algorithm>
#include <utility>
#include <vector>

namespace cuda_on_cpu {

namespace {

struct Work {
    uint64_t ticket;
    int queue;
    std::function<void()> run;
};
std::vector<Work> pending;  // In the order of issue.
uint64_t last_ticket = 0;

void perform(size_t at) {
    if (pending[at].queue >= 0) {
        const int queue = pending[at].queue;
        at = static_cast<size_t>(
            std::find_if(pending.begin(), pending.end(), [queue](const Work& work) { return work.queue == queue; }) -
            pending.begin());
    }
    const std::function<void()> run = std::move(pending[at].run);
    pending.erase(pending.begin() + static_cast<std::ptrdiff_t>(at));
    run();
}

bool is_pending(uint64_t ticket) {
    return std::any_of(pending.begin(), pending.end(), [ticket](const Work& work) { return work.ticket == ticket; });
}

}  // namespace

uint64_t start_async_work(int queue, std::function<void()> run) {
    pending.push_back({++last_ticket, queue, std::move(run)});
    const uint64_t ticket = last_ticket;
    const bool at_once = random_order() ? random_bits() % 4 == 0 : current_seed() == 0;
    if (at_once) finish_async_work(ticket);
    return ticket;
}

void finish_async_work(uint64_t ticket) {
    while (is_pending(ticket)) {
        const auto found =
            std::find_if(pending.begin(), pending.end(), [ticket](const Work& one) { return one.ticket == ticket; });
        perform(static_cast<size_t>(found - pending.begin()));
    }
}

bool progress_async_work() {
    if (pending.empty()) return false;
    perform(random_order() ? random_bits() % pending.size() : 0);
    return true;
}

bool async_work_is_pending() { return !pending.empty(); }

void reset_async_work() { pending.clear(); }

}  // namespace cuda_on_cpu
