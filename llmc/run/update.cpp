#include "llmc/run/update.h"

namespace llmc {

void compute_grad_norm(State& state, Comm& comm) {
    Backend& backend = state.backend();
    const Partition& partition = state.partition();
    for (int b = 0; b <= partition.last_bucket(); ++b) {
        backend.square_sums(state.own_norm_sums(b), state.own_gradients(b), partition.bucket(b).chunk);
    }
    if (comm.size() > 1) comm.wait(comm.begin_all_gather(state.norm_sums()));
    backend.global_norm(state.grad_norm(), state.norm_sums(), state.norm_pieces(), norm_layout(partition));
}

void update_parameters(State& state, Comm& comm, const AdamWSettings& settings) {
    for (int b = 0; b <= state.partition().last_bucket(); ++b) {
        const UpdateViews views = state.update_views(b);
        if (views.ranges.empty()) continue;
        state.backend().adamw(views.parameters, views.master, views.m, views.v, views.gradients, views.ranges, settings,
                              state.grad_norm());
    }
    gather_parameters(state, comm);
}

void gather_parameters(State& state, Comm& comm) {
    const int zero = state.parallel().zero;
    if (comm.size() == 1 || zero == 0 || zero == 3) return;
    std::vector<CommTicket> tickets;
    for (int b = 0; b <= state.partition().last_bucket(); ++b) {
        tickets.push_back(comm.begin_all_gather(state.bucket_parameters(b)));
    }
    for (const CommTicket ticket : tickets) comm.wait(ticket);
}

void MicroBatchTree::push(int64_t micro, bool is_last) {
    Backend& backend = state_.backend();
    const Tensor sum = state_.all_gradients();
    if (micro == 0) held_ = 0;
    int level = 0;
    for (; (held_ >> level & 1) != 0; ++level) {
        backend.add(sum, state_.partial_sum(level));
        held_ &= ~(int64_t{1} << level);
    }
    if (!is_last) {
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
