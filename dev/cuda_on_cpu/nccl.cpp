// Stand-in for libnccl: the ranks are threads of this process, each with its device, or one thread with several
// devices.
//
// A collective is one operation that comes after the last one of every rank's stream, and that they all wait for. Ranks
// that ask for different things are reported, as is a rank that never comes. Sums go in the order of ranks.
#include "dev/cuda_on_cpu/memory.h"
#include "dev/cuda_on_cpu/race_checker.h"
#include "dev/cuda_on_cpu/report.h"
#include "dev/cuda_on_cpu/runtime.h"
#include "dev/cuda_on_cpu/streams.h"

#include <cuda_bf16.h>
#include <nccl.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

using namespace cuda_on_cpu;

namespace {

enum class Kind { AllReduce, ReduceScatter, AllGather, Broadcast, Reduce };

struct Request {
    Kind kind;
    size_t count;
    ncclDataType_t type;
    ncclRedOp_t operation;
    int root;
    bool operator==(const Request&) const = default;
};

struct Collective {
    Request request;
    std::vector<const void*> sources;
    std::vector<void*> targets;
    int joined = 0;
    OperationPtr operation;
};

struct Group {
    int ranks = 0, attached = 0;
    std::map<uint64_t, std::shared_ptr<Collective>> collectives;  // By their number, until all ranks have joined.
};

std::map<std::string, std::shared_ptr<Group>> groups;

size_t item_bytes(ncclDataType_t type) {
    switch (type) {
        case ncclInt8:
        case ncclUint8: return 1;
        case ncclFloat16:
        case ncclBfloat16: return 2;
        case ncclInt32:
        case ncclUint32:
        case ncclFloat32: return 4;
        default: return 8;
    }
}

double load(const void* p, size_t i, ncclDataType_t type) {
    switch (type) {
        case ncclFloat32: return static_cast<const float*>(p)[i];
        case ncclFloat64: return static_cast<const double*>(p)[i];
        case ncclBfloat16: return __bfloat162float(static_cast<const __nv_bfloat16*>(p)[i]);
        case ncclInt32: return static_cast<const int32_t*>(p)[i];
        case ncclInt64: return static_cast<double>(static_cast<const int64_t*>(p)[i]);
        default: return static_cast<const uint8_t*>(p)[i];
    }
}

void store(void* p, size_t i, ncclDataType_t type, double value) {
    switch (type) {
        case ncclFloat32: static_cast<float*>(p)[i] = static_cast<float>(value); break;
        case ncclFloat64: static_cast<double*>(p)[i] = value; break;
        case ncclBfloat16: static_cast<__nv_bfloat16*>(p)[i] = __float2bfloat16(static_cast<float>(value)); break;
        case ncclInt32: static_cast<int32_t*>(p)[i] = static_cast<int32_t>(value); break;
        case ncclInt64: static_cast<int64_t*>(p)[i] = static_cast<int64_t>(value); break;
        default: static_cast<uint8_t*>(p)[i] = static_cast<uint8_t>(value); break;
    }
}

// Elements [first, first + count) of all ranks' sources, reduced; fp32 accumulates in fp32 like the real one.
std::vector<double> reduced(const Collective& all, size_t first, size_t count) {
    const Request& request = all.request;
    const auto ranks = static_cast<double>(all.sources.size());
    std::vector<double> values(count);
    for (size_t i = 0; i < count; ++i) {
        double value = load(all.sources[0], first + i, request.type);
        for (size_t rank = 1; rank < all.sources.size(); ++rank) {
            const double other = load(all.sources[rank], first + i, request.type);
            switch (request.operation) {
                case ncclMax: value = std::max(value, other); break;
                case ncclMin: value = std::min(value, other); break;
                case ncclProd: value *= other; break;
                default: value += other; break;
            }
            if (request.type == ncclFloat32) value = static_cast<float>(value);
        }
        values[i] = request.operation == ncclAvg ? value / ranks : value;
    }
    return values;
}

void write(void* target, ncclDataType_t type, const std::vector<double>& values) {
    for (size_t i = 0; i < values.size(); ++i) store(target, i, type, values[i]);
    race::written(target, values.size() * item_bytes(type));
}

void copy(void* target, const std::vector<char>& bytes) {
    std::memcpy(target, bytes.data(), bytes.size());
    race::written(target, bytes.size());
}

std::vector<char> bytes_at(const void* source, size_t bytes) {
    const auto* first = static_cast<const char*>(source);
    return {first, first + bytes};
}

void perform(const Collective& all) {
    const Request& request = all.request;
    const size_t ranks = all.sources.size(), bytes = request.count * item_bytes(request.type);
    const auto root = static_cast<size_t>(request.root);
    switch (request.kind) {
        case Kind::AllReduce: {
            const std::vector<double> values = reduced(all, 0, request.count);
            for (void* target : all.targets) write(target, request.type, values);
            break;
        }
        case Kind::Reduce: write(all.targets[root], request.type, reduced(all, 0, request.count)); break;
        case Kind::ReduceScatter: {
            std::vector<std::vector<double>> parts;
            for (size_t rank = 0; rank < ranks; ++rank)
                parts.push_back(reduced(all, rank * request.count, request.count));
            for (size_t rank = 0; rank < ranks; ++rank) write(all.targets[rank], request.type, parts[rank]);
            break;
        }
        case Kind::AllGather: {
            std::vector<char> gathered;
            for (const void* source : all.sources) {
                const std::vector<char> part = bytes_at(source, bytes);
                gathered.insert(gathered.end(), part.begin(), part.end());
            }
            for (void* target : all.targets) copy(target, gathered);
            break;
        }
        case Kind::Broadcast: {
            const std::vector<char> sent = bytes_at(all.sources[root], bytes);
            for (void* target : all.targets) copy(target, sent);
            break;
        }
    }
}

}  // namespace

struct ncclComm {
    std::shared_ptr<Group> group;
    int rank, device;
    uint64_t next = 0;  // Number of this rank's next collective.
};

namespace {

ncclResult_t collective(const Request& request, const void* source, size_t source_bytes, void* target,
                        size_t target_bytes, ncclComm_t comm, cudaStream_t stream) {
    const Lock held = lock();
    if (usable() != cudaSuccess) return ncclUnhandledCudaError;
    const bool needs_source = request.kind != Kind::Broadcast || comm->rank == request.root;
    const bool needs_target = request.kind != Kind::Reduce || comm->rank == request.root;
    if (needs_source && !is_device_memory(source, source_bytes)) return ncclInvalidArgument;
    if (needs_target && !is_device_memory(target, target_bytes)) return ncclInvalidArgument;
    if (is_capturing(stream)) return ncclInvalidUsage;

    Group& group = *comm->group;
    const auto ranks = static_cast<size_t>(group.ranks), rank = static_cast<size_t>(comm->rank);
    const uint64_t number = comm->next++;
    std::shared_ptr<Collective>& entry = group.collectives[number];
    if (!entry) {
        entry = std::make_shared<Collective>();
        entry->request = request;
        entry->sources.resize(ranks);
        entry->targets.resize(ranks);
        entry->operation = make_joint(group.ranks, nullptr);
    }
    const std::shared_ptr<Collective> all = entry;
    if (!(all->request == request)) {
        report(cudaErrorLaunchFailure, format("rank %d asks for another collective than the others in call %ju",
                                              comm->rank, uintmax_t{number}));
        return ncclInvalidUsage;
    }
    all->sources[rank] = source;
    all->targets[rank] = target;
    if (++all->joined == group.ranks) {
        all->operation->run = [all] { perform(*all); };
        group.collectives.erase(number);
    }
    join(stream, all->operation);
    return ncclSuccess;
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

// No call waits for the other ranks, so a group has nothing to do.
ncclResult_t ncclGroupStart() { return ncclSuccess; }
ncclResult_t ncclGroupEnd() { return ncclSuccess; }

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
