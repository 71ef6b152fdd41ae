#include "llmc/run/update.h"

namespace llmc {

void gather_parameters(State& state, Comm& comm) {
    if (comm.size() == 1 || !state.places().gathers_after_update()) return;
    std::vector<CommTicket> tickets;
    for (int b = 0; b <= state.partition().last_bucket(); ++b) {
        if (state.partition().bucket(b).is_empty()) continue;
        tickets.push_back(comm.begin_all_gather(state.bucket_parameters(b)));
    }
    for (const CommTicket ticket : tickets) comm.wait(ticket);
}

void MicroBatchTree::push(Turn turn) {
    Backend& backend = state_.backend();
    const Tensor sum = state_.all_gradients();
    if (turn.first) held_ = 0;
    int level = 0;
    for (; (held_ >> level & 1) != 0; ++level) {
        backend.add(sum, state_.partial_sum(level));
        held_ &= ~(int64_t{1} << level);
    }
    if (!turn.last) {
        backend.convert(state_.partial_sum(level), sum);
        held_ |= int64_t{1} << level;
        return;
    }
    for (; held_ >> level != 0; ++level) {
        if ((held_ >> level & 1) != 0) backend.add(sum, state_.partial_sum(level));
    }
    held_ = 0;
}

}  // namespace llmc
