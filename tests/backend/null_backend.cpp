#include "tests/backend/null_backend.h"

#include <algorithm>
#include <cstring>
#include <sys/mman.h>

namespace llmc {

NullBackend::~NullBackend() {
    for (const auto& [memory, bytes] : allocations_) munmap(memory, static_cast<size_t>(bytes));
}

int64_t NullBackend::count(const std::string& call) const { return std::count(calls_.begin(), calls_.end(), call); }

DeviceInfo NullBackend::info() const {
    DeviceInfo info;
    info.name = "null device";
    info.memory_total = info.memory_available = int64_t{1} << 50;
    info.supports_bf16 = true;
    return info;
}

/// Address space only: nothing is ever touched, so models of any size can be "allocated".
void* NullBackend::reserve(int64_t bytes, const std::string& what) {
    void* memory = mmap(nullptr, static_cast<size_t>(bytes), PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK(memory != MAP_FAILED, what, bytes);
    allocations_[memory] = bytes;
    return memory;
}

int64_t NullBackend::give_back(void* memory) {
    const auto it = allocations_.find(memory);
    CHECK(it != allocations_.end(), memory);
    const int64_t bytes = it->second;
    munmap(memory, static_cast<size_t>(bytes));
    allocations_.erase(it);
    return bytes;
}

void* NullBackend::allocate(int64_t bytes, const std::string& what) {
    void* memory = reserve(bytes, what);
    allocated_bytes_ += bytes;
    peak_allocated_bytes_ = std::max(peak_allocated_bytes_, allocated_bytes_);
    return memory;
}

void NullBackend::release(void* memory) { allocated_bytes_ -= give_back(memory); }

void* NullBackend::allocate_host(int64_t bytes, const std::string& what) {
    void* memory = reserve(bytes, what);
    host_bytes_ += bytes;
    return memory;
}

void NullBackend::release_host(void* memory) { host_bytes_ -= give_back(memory); }

CopyTicket NullBackend::copy_out(void* host, Tensor x) {
    record("copy_out");
    copies_.push_back({true, x.data, host, x.bytes(), 0});
    return static_cast<CopyTicket>(copies_.size()) - 1;
}

CopyTicket NullBackend::copy_in(Tensor out, const void* host) {
    record("copy_in");
    copies_.push_back({false, out.data, host, out.bytes(), 0});
    return static_cast<CopyTicket>(copies_.size()) - 1;
}

void NullBackend::wait_copy(CopyTicket copy) {
    record("wait_copy");
    ++copies_.at(static_cast<size_t>(copy)).waits;
}

void NullBackend::copy_to_host(void* destination, Tensor source) {
    record("copy_to_host");
    std::memset(destination, 0, static_cast<size_t>(source.bytes()));
}

void NullBackend::matmul_forward(Tensor, Tensor, Tensor weight, Tensor, Tensor, Tensor) {
    record("matmul_forward");
    ++matmuls_[weight.data];
}

int64_t NullBackend::matmuls_with(const void* weight) const {
    const auto it = matmuls_.find(weight);
    return it == matmuls_.end() ? 0 : it->second;
}

}  // namespace llmc
