// What NCCL's collectives do to memory, once all ranks have come.
#pragma once

#include <nccl.h>

#include <cstddef>
#include <vector>

namespace cuda_on_cpu {

enum class Kind { AllReduce, ReduceScatter, AllGather, Broadcast, Reduce };

struct Request {
    Kind kind;
    size_t count;
    ncclDataType_t type;
    ncclRedOp_t operation;
    int root;
    bool operator==(const Request&) const = default;
};

/// By rank.
struct Places {
    std::vector<const void*> sources;
    std::vector<void*> targets;
};

size_t item_bytes(ncclDataType_t type);

void perform(const Request& request, const Places& places);

/// What a message does. Reading what nobody has written is reported, as it is for collectives.
void send_bytes(const void* source, void* target, size_t bytes);

}  // namespace cuda_on_cpu
