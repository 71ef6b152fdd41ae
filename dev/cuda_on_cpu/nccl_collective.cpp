#include "dev/cuda_on_cpu/nccl_collective.h"

#include "dev/cuda_on_cpu/race_checker.h"
#include "dev/cuda_on_cpu/report.h"

#include <cuda_bf16.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace cuda_on_cpu {

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

namespace {

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

void check_written(const void* source, size_t bytes) {
    if (!race::is_written(source, bytes)) report(cudaErrorLaunchFailure, "NCCL sends memory that nobody has written");
}

std::vector<char> bytes_at(const void* source, size_t bytes) {
    check_written(source, bytes);
    const auto* first = static_cast<const char*>(source);
    return {first, first + bytes};
}

// Elements [first, first + count) of all ranks' sources, reduced; fp32 accumulates in fp32 like the real one.
std::vector<double> reduced(const Request& request, const Places& all, size_t first, size_t count) {
    const auto ranks = static_cast<double>(all.sources.size());
    for (const void* source : all.sources)
        check_written(static_cast<const char*>(source) + first * item_bytes(request.type),
                      count * item_bytes(request.type));
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

}  // namespace

void send_bytes(const void* source, void* target, size_t bytes) { copy(target, bytes_at(source, bytes)); }

void perform(const Request& request, const Places& all) {
    const size_t ranks = all.sources.size(), bytes = request.count * item_bytes(request.type);
    const auto root = static_cast<size_t>(request.root);
    switch (request.kind) {
        case Kind::AllReduce: {
            const std::vector<double> values = reduced(request, all, 0, request.count);
            for (void* target : all.targets) write(target, request.type, values);
            break;
        }
        case Kind::Reduce: write(all.targets[root], request.type, reduced(request, all, 0, request.count)); break;
        case Kind::ReduceScatter: {
            std::vector<std::vector<double>> parts;
            for (size_t rank = 0; rank < ranks; ++rank)
                parts.push_back(reduced(request, all, rank * request.count, request.count));
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

}  // namespace cuda_on_cpu
