// Stand-in for libnccl: the ranks are threads of this process, each with its device, or one thread with several
// devices.
//
// A group of calls, or a call outside of groups, is one operation on its stream: it begins after the stream's last one
// and ends when all its calls are done. A collective is done after the beginnings of all ranks' groups, a message after
// those of its two ranks; so ranks that send to each other without a group wait for ever. Ranks that ask for different
// things are reported, as is a rank that never comes. Sums go in the order of ranks.
#include "dev/cuda_on_cpu/memory.h"
#include "dev/cuda_on_cpu/nccl_collective.h"
#include "dev/cuda_on_cpu/report.h"
#include "dev/cuda_on_cpu/runtime.h"
#include "dev/cuda_on_cpu/streams.h"

#include <nccl.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

using namespace cuda_on_cpu;

namespace {

struct Collective {
    Request request;
    Places places;
    int joined = 0;
    OperationPtr operation;
};

/// One side's view of a message, and the operation on its stream.
struct Message {
    const void* source;
    void* target;
    size_t bytes;
    OperationPtr begin, end;
};

/// The ranks of a communicator.
struct Group {
    using Sides = std::map<std::pair<int, int>, std::deque<Message>>;  // By sender and receiver.
    int ranks = 0, attached = 0;
    std::map<uint64_t, std::shared_ptr<Collective>> collectives;  // By their number, until all ranks have joined.
    Sides sent, expected;                                         // Where the other side has not come yet.
};

std::map<std::string, std::shared_ptr<Group>> groups;

}  // namespace

struct ncclComm {
    std::shared_ptr<Group> group;
    int rank, device;
    uint64_t next = 0;  // Number of this rank's next collective.
};

namespace {

/// What a thread has asked for in the groups it has opened.
struct Call {
    cudaStream_t stream;
    Link link;
};
thread_local int open_groups = 0;
thread_local std::vector<Call> calls;

bool is_usable(const void* memory, size_t bytes) { return bytes == 0 || is_device_memory(memory, bytes); }

ncclResult_t issue_calls() {
    while (!calls.empty()) {
        const cudaStream_t stream = calls.front().stream;
        const auto other = std::stable_partition(calls.begin(), calls.end(),
                                                 [stream](const Call& call) { return call.stream == stream; });
        const std::vector<Call> together(calls.begin(), other);
        calls.erase(calls.begin(), other);
        enqueue(stream, [together](const OperationPtr& begin, const OperationPtr& end) {
            for (const Call& call : together) call.link(begin, end);
        });
    }
    return sticky_error() == cudaSuccess ? ncclSuccess : ncclInvalidUsage;
}

ncclResult_t add_call(cudaStream_t stream, Link link) {
    calls.push_back({stream, std::move(link)});
    return open_groups == 0 ? issue_calls() : ncclSuccess;
}

void link_collective(ncclComm_t comm, const Request& request, const void* source, void* target,
                     const OperationPtr& begin, const OperationPtr& end) {
    Group& group = *comm->group;
    const auto ranks = static_cast<size_t>(group.ranks), rank = static_cast<size_t>(comm->rank);
    const uint64_t number = comm->next++;
    std::shared_ptr<Collective>& entry = group.collectives[number];
    if (!entry) {
        entry = std::make_shared<Collective>();
        entry->request = request;
        entry->places.sources.resize(ranks);
        entry->places.targets.resize(ranks);
        entry->operation = make_operation(group.ranks, nullptr);
    }
    const std::shared_ptr<Collective> all = entry;
    if (!(all->request == request)) {
        report(cudaErrorLaunchFailure, format("rank %d asks for another collective than the others in call %ju",
                                              comm->rank, uintmax_t{number}));
        return;
    }
    all->places.sources[rank] = source;
    all->places.targets[rank] = target;
    order_after(all->operation, begin);
    order_after(end, all->operation);
    if (++all->joined == group.ranks) {
        all->operation->run = [all] { perform(all->request, all->places); };
        group.collectives.erase(number);
    }
    release(all->operation);
}

ncclResult_t collective(const Request& request, const void* source, size_t source_bytes, void* target,
                        size_t target_bytes, ncclComm_t comm, cudaStream_t stream) {
    const Lock held = lock();
    if (usable() != cudaSuccess) return ncclUnhandledCudaError;
    const bool needs_source = request.kind != Kind::Broadcast || comm->rank == request.root;
    const bool needs_target = request.kind != Kind::Reduce || comm->rank == request.root;
    if (needs_source && !is_usable(source, source_bytes)) return ncclInvalidArgument;
    if (needs_target && !is_usable(target, target_bytes)) return ncclInvalidArgument;
    return add_call(stream, [=](const OperationPtr& begin, const OperationPtr& end) {
        link_collective(comm, request, source, target, begin, end);
    });
}

/// Messages between two ranks meet in the order in which each side asks for them.
void link_message(Group& group, std::pair<int, int> ranks, const Message& one) {
    const bool sends = one.source != nullptr;
    std::deque<Message>& others = (sends ? group.expected : group.sent)[ranks];
    if (others.empty()) {
        ++one.end->waits_for;
        (sends ? group.sent : group.expected)[ranks].push_back(one);
        return;
    }
    const Message other = others.front();
    others.pop_front();
    if (one.bytes != other.bytes) {
        report(cudaErrorLaunchFailure,
               format("rank %d sends %zu bytes where rank %d expects %zu", ranks.first, sends ? one.bytes : other.bytes,
                      ranks.second, sends ? other.bytes : one.bytes));
    }
    const OperationPtr transfer =
        make_operation(1, [source = sends ? one.source : other.source, bytes = one.bytes,
                           target = sends ? other.target : one.target] { send_bytes(source, target, bytes); });
    for (const Message& side : {one, other}) {
        order_after(transfer, side.begin);
        order_after(side.end, transfer);
    }
    release(other.end);
    release(transfer);
}

ncclResult_t message(const void* source, void* target, size_t bytes, int peer, ncclComm_t comm, cudaStream_t stream) {
    const Lock held = lock();
    if (usable() != cudaSuccess) return ncclUnhandledCudaError;
    const std::shared_ptr<Group> group = comm->group;
    if (peer < 0 || peer >= group->ranks) return ncclInvalidArgument;
    if (!is_usable(source != nullptr ? source : target, bytes)) return ncclInvalidArgument;
    const auto ranks = source != nullptr ? std::pair(comm->rank, peer) : std::pair(peer, comm->rank);
    return add_call(stream, [=](const OperationPtr& begin, const OperationPtr& end) {
        link_message(*group, ranks, {source, target, bytes, begin, end});
    });
}

}  // namespace

extern "C" {

ncclResult_t ncclGetVersion(int* version) {
    *version = NCCL_VERSION_CODE;
    return ncclSuccess;
}

const char* ncclGetErrorString(ncclResult_t result) {
    switch (result) {
        case ncclSuccess: return "no error";
        case ncclUnhandledCudaError: return "unhandled cuda error";
        case ncclInvalidArgument: return "invalid argument";
        case ncclInvalidUsage: return "invalid usage";
        default: return "internal error";
    }
}

const char* ncclGetLastError(ncclComm_t) { return ""; }

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
    static int made = 0;
    const Lock held = lock();
    std::memset(id, 0, sizeof *id);
    std::snprintf(id->internal, sizeof id->internal, "cuda_on_cpu-%d", ++made);
    groups[id->internal] = std::make_shared<Group>();
    return ncclSuccess;
}

ncclResult_t ncclCommInitRank(ncclComm_t* comm, int ranks, ncclUniqueId id, int rank) {
    const Lock held = lock();
    const auto found = groups.find(id.internal);
    if (found == groups.end() || rank < 0 || rank >= ranks) return ncclInvalidArgument;
    const std::shared_ptr<Group> group = found->second;
    if (group->ranks != 0 && group->ranks != ranks) return ncclInvalidArgument;
    group->ranks = ranks;
    if (++group->attached == ranks) groups.erase(found);
    *comm = new ncclComm{group, rank, current_device()};
    return ncclSuccess;
}

ncclResult_t ncclCommInitAll(ncclComm_t* comms, int ranks, const int* devices) {
    ncclUniqueId id;
    ncclGetUniqueId(&id);
    for (int rank = 0; rank < ranks; ++rank) {
        if (cudaSetDevice(devices ? devices[rank] : rank) != cudaSuccess) return ncclUnhandledCudaError;
        if (const ncclResult_t result = ncclCommInitRank(&comms[rank], ranks, id, rank)) return result;
    }
    return ncclSuccess;
}

ncclResult_t ncclCommDestroy(ncclComm_t comm) {
    const Lock held = lock();
    delete comm;
    return ncclSuccess;
}

ncclResult_t ncclCommFinalize(ncclComm_t) { return ncclSuccess; }
ncclResult_t ncclCommAbort(ncclComm_t comm) { return ncclCommDestroy(comm); }

ncclResult_t ncclCommGetAsyncError(ncclComm_t, ncclResult_t* error) {
    *error = sticky_error() == cudaSuccess ? ncclSuccess : ncclUnhandledCudaError;
    return ncclSuccess;
}

ncclResult_t ncclCommCount(const ncclComm_t comm, int* count) {
    *count = comm->group->ranks;
    return ncclSuccess;
}

ncclResult_t ncclCommUserRank(const ncclComm_t comm, int* rank) {
    *rank = comm->rank;
    return ncclSuccess;
}

ncclResult_t ncclCommCuDevice(const ncclComm_t comm, int* device) {
    *device = comm->device;
    return ncclSuccess;
}

ncclResult_t ncclGroupStart() {
    ++open_groups;
    return ncclSuccess;
}

ncclResult_t ncclGroupEnd() {
    const Lock held = lock();
    if (open_groups == 0) return ncclInvalidUsage;
    return --open_groups == 0 ? issue_calls() : ncclSuccess;
}

ncclResult_t ncclSend(const void* source, size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream) {
    return message(source, nullptr, count * item_bytes(type), peer, comm, stream);
}

ncclResult_t ncclRecv(void* target, size_t count, ncclDataType_t type, int peer, ncclComm_t comm, cudaStream_t stream) {
    return message(nullptr, target, count * item_bytes(type), peer, comm, stream);
}

ncclResult_t ncclAllReduce(const void* source, void* target, size_t count, ncclDataType_t type, ncclRedOp_t operation,
                           ncclComm_t comm, cudaStream_t stream) {
    const size_t bytes = count * item_bytes(type);
    return collective({Kind::AllReduce, count, type, operation, 0}, source, bytes, target, bytes, comm, stream);
}

ncclResult_t ncclReduce(const void* source, void* target, size_t count, ncclDataType_t type, ncclRedOp_t operation,
                        int root, ncclComm_t comm, cudaStream_t stream) {
    const size_t bytes = count * item_bytes(type);
    return collective({Kind::Reduce, count, type, operation, root}, source, bytes, target, bytes, comm, stream);
}

ncclResult_t ncclReduceScatter(const void* source, void* target, size_t count, ncclDataType_t type,
                               ncclRedOp_t operation, ncclComm_t comm, cudaStream_t stream) {
    const size_t bytes = count * item_bytes(type), all = bytes * static_cast<size_t>(comm->group->ranks);
    return collective({Kind::ReduceScatter, count, type, operation, 0}, source, all, target, bytes, comm, stream);
}

ncclResult_t ncclAllGather(const void* source, void* target, size_t count, ncclDataType_t type, ncclComm_t comm,
                           cudaStream_t stream) {
    const size_t bytes = count * item_bytes(type), all = bytes * static_cast<size_t>(comm->group->ranks);
    return collective({Kind::AllGather, count, type, ncclSum, 0}, source, bytes, target, all, comm, stream);
}

ncclResult_t ncclBroadcast(const void* source, void* target, size_t count, ncclDataType_t type, int root,
                           ncclComm_t comm, cudaStream_t stream) {
    const size_t bytes = count * item_bytes(type);
    return collective({Kind::Broadcast, count, type, ncclSum, root}, source, bytes, target, bytes, comm, stream);
}
}
