#include "llmc/run/update.h"

namespace llmc {

Tensor gathered_in_arena(State& state, int bucket, Buffer which, Comm& comm) {
    const Tensor own = state.own_parameters(bucket, which);
    const Tensor all(own.dtype, state.arena(), state.partition_of(which).bucket_elements(bucket));
    const Tensor row = Tensor(own.dtype, state.arena(), comm.size(), own.count()).row_range(comm.rank(), 1);
    const Tensor mine(own.dtype, row.data, own.count());
    const bool on_host = state.places().on_host(which);
    on_host ? state.backend().copy_to_device(mine, own.data) : state.backend().convert(mine, own);
    comm.wait(comm.begin_all_gather(all));
    return all;
}

void gather_parameters(State& state, Comm& comm) {
    if (comm.size() == 1 || !state.places().gathers_after_update()) return;
    const bool on_host = state.places().on_host(Buffer::Parameters);
    std::vector<CommTicket> tickets;
    for (int b = 0; b <= state.partition().last_bucket(); ++b) {
        if (state.partition().bucket(b).is_empty()) continue;
        if (!on_host) {
            tickets.push_back(comm.begin_all_gather(state.bucket_parameters(b)));
            continue;
        }
        const Tensor all = gathered_in_arena(state, b, Buffer::Parameters, comm);
        comm.synchronize();
        state.backend().copy_to_host(state.bucket_parameters(b).data, all);
    }
    for (const CommTicket ticket : tickets) comm.wait(ticket);
}

/// Adds to the sum what waits for it, level by level, and keeps it for its partner to come; the last takes all.
template <typename Add, typename Keep>
void MicroBatchTree::push_to(int64_t* held, Turn turn, Add add, Keep keep) {
    if (turn.first) *held = 0;
    int level = 0;
    for (; (*held >> level & 1) != 0; ++level) {
        add(level);
        *held &= ~(int64_t{1} << level);
    }
    if (!turn.last) {
        keep(level);
        *held |= int64_t{1} << level;
        return;
    }
    for (; *held >> level != 0; ++level) {
        if ((*held >> level & 1) != 0) add(level);
    }
    *held = 0;
}

void MicroBatchTree::push(Turn turn) {
    Backend& backend = state_.backend();
    const Tensor sum = state_.all_gradients();
    push_to(
        &held_, turn, [&](int level) { backend.add(sum, state_.partial_sum(level)); },
        [&](int level) { backend.convert(state_.partial_sum(level), sum); });
}

void MicroBatchTree::push(Turn turn, int bucket, Tensor sum, Tensor staging) {
    Backend& backend = state_.backend();
    held_of_bucket_.resize(state_.partition().buckets.size(), 0);
    const auto flat = [](const Tensor& tensor) { return Tensor(tensor.dtype, tensor.data, tensor.count()); };
    push_to(
        &held_of_bucket_[static_cast<size_t>(bucket)], turn,
        [&](int level) {
            backend.wait_copy(backend.copy_in(flat(staging), state_.partial_sum(level, bucket).data));
            backend.add(flat(sum), flat(staging));
        },
        [&](int level) { backend.wait_copy(backend.copy_out(state_.partial_sum(level, bucket).data, flat(sum))); });
}

}  // namespace llmc
