#include "dev/cuda_on_cpu/streams.h"

#include "dev/cuda_on_cpu/control.h"
#include "dev/cuda_on_cpu/memory.h"
#include "dev/cuda_on_cpu/runtime.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <map>
#include <mutex>
#include <set>

namespace cuda_on_cpu {

namespace {

int failing_launch = 0;

constexpr std::chrono::seconds kPatience{60};  // With other ranks.

std::mutex mutex;
thread_local int lock_depth = 0;
std::condition_variable changed;
std::vector<OperationPtr> ready;
std::map<int, CUstream_st> default_streams;
uint64_t executed = 0;

OperationPtr take_ready() {
    size_t i = 0;
    if (random_order())
        i = random_bits() % ready.size();
    else if (current_seed() == 1)
        i = ready.size() - 1;
    OperationPtr taken = ready[i];
    ready.erase(ready.begin() + static_cast<std::ptrdiff_t>(i));
    return taken;
}

void run_one() {
    const OperationPtr operation = take_ready();
    if (operation->run && sticky_error() == cudaSuccess) {
        const DeviceAccess open;
        operation->run();
    }
    ++executed;
    operation->done = true;
    operation->run = nullptr;
    for (const OperationPtr& follower : operation->followers) release(follower);
    operation->followers.clear();
    changed.notify_all();
}

bool is_default(const CUstream_st& stream) {
    const auto found = default_streams.find(stream.device);
    return found != default_streams.end() && &found->second == &stream;
}

// Begins an operation as the next of the stream; it still holds itself back.
void begin_on(CUstream_st& stream, const OperationPtr& operation) {
    order_after(operation, stream.last);
    if (is_default(stream)) {
        for (cudaStream_t other : all_streams()) {
            if (other->device == stream.device && !other->non_blocking) order_after(operation, other->last);
        }
    } else if (!stream.non_blocking) {
        order_after(operation, default_streams[stream.device].last);
    }
    stream.last = operation;
}

}  // namespace

void release(const OperationPtr& operation) {
    if (--operation->waits_for > 0) return;
    ready.push_back(operation);
    changed.notify_all();
}

void order_after(const OperationPtr& operation, const OperationPtr& earlier) {
    if (!earlier || earlier->done) return;
    ++operation->waits_for;
    earlier->followers.push_back(operation);
}

CUstream_st& stream_of(cudaStream_t stream) {
    if (stream && stream != cudaStreamLegacy && stream != cudaStreamPerThread) return *stream;
    CUstream_st& found = default_streams[current_device()];
    found.device = current_device();
    return found;
}

std::set<cudaStream_t>& all_streams() {
    static std::set<cudaStream_t> streams;
    return streams;
}

Lock::Lock() {
    if (lock_depth++ == 0) mutex.lock();
}

Lock::~Lock() {
    if (--lock_depth == 0) mutex.unlock();
}

uint64_t executed_operations() { return executed; }

OperationPtr make_operation(int holds, std::function<void()> run) {
    auto operation = std::make_shared<Operation>();
    operation->run = std::move(run);
    operation->waits_for = holds;
    return operation;
}

void join(cudaStream_t stream, const OperationPtr& operation) {
    begin_on(stream_of(stream), operation);
    release(operation);
}

void enqueue(cudaStream_t handle, std::function<void()> run) {
    CUstream_st& stream = stream_of(handle);
    if (stream.capture) {
        stream.capture->nodes.push_back({std::move(run), stream.front, nullptr});
        stream.front = {stream.capture->nodes.size() - 1};
        return;
    }
    join(handle, make_operation(1, std::move(run)));
}

void enqueue(cudaStream_t handle, Link link) {
    CUstream_st& stream = stream_of(handle);
    if (stream.capture) {
        std::vector<Node>& nodes = stream.capture->nodes;
        nodes.push_back({nullptr, stream.front, nullptr});
        nodes.push_back({nullptr, {nodes.size() - 1}, std::move(link)});
        stream.front = {nodes.size() - 1};
        return;
    }
    const OperationPtr begin = make_operation(1, nullptr), end = make_operation(1, nullptr);
    link(begin, end);
    join(handle, begin);
    join(handle, end);
}

void wait_for(const OperationPtr& operation) {
    if (!operation) return;
    const Lock held = lock();
    while (!operation->done) {
        if (!ready.empty()) {
            run_one();
            continue;
        }
        if (sticky_error() != cudaSuccess) return;          // What it waits for may never come.
        std::unique_lock given_up(mutex, std::adopt_lock);  // However often this thread holds it.
        const bool nothing_came = changed.wait_for(given_up, kPatience) == std::cv_status::timeout;
        given_up.release();
        if (nothing_came) {
            report(cudaErrorLaunchTimeout,
                   "an operation waits for something that nobody does (ranks that never come?)");
            return;
        }
    }
}

void wait_for_stream(cudaStream_t stream) { wait_for(stream_of(stream).last); }

void wait_for_device(int device) {
    const std::vector<cudaStream_t> all(all_streams().begin(), all_streams().end());
    for (cudaStream_t stream : all) {
        if (stream->device == device) wait_for(stream->last);
    }
    wait_for(default_streams[device].last);
}

void wait_for_everything() {
    while (!ready.empty()) run_one();
}

void make_progress() {
    if (!ready.empty()) run_one();
}

void drop_operations() {
    const Lock held = lock();
    while (!ready.empty()) {
        const OperationPtr operation = ready.back();
        ready.pop_back();
        operation->run = nullptr;
        operation->done = true;
        for (const OperationPtr& follower : operation->followers) release(follower);
        operation->followers.clear();
    }
    for (cudaStream_t stream : all_streams()) {
        stream->last = nullptr;
        stream->capture = nullptr;
        stream->front.clear();
    }
    for (auto& [device, stream] : default_streams) stream.last = nullptr;
}

bool is_capturing(cudaStream_t stream) { return stream_of(stream).capture != nullptr; }

int captures_under_way() {
    return static_cast<int>(std::count_if(all_streams().begin(), all_streams().end(), [](cudaStream_t stream) {
        return stream->capture &&
               (stream->capture->thread == std::thread::id() || stream->capture->thread == std::this_thread::get_id());
    }));
}

void wake_waiting_threads() { changed.notify_all(); }

void fail_launch(int n) { failing_launch = n; }

cudaError_t submit(Launch launch, cudaStream_t stream) {
    const Lock held = lock();
    if (failing_launch > 0 && --failing_launch == 0) return cudaErrorLaunchFailure;
    if (sticky_error() != cudaSuccess) return sticky_error();
    const dim3 grid = launch.grid, block = launch.block;
    const uint64_t threads = uint64_t{block.x} * block.y * block.z;
    if (threads == 0 || threads > kMaxThreads || block.z > 64 || grid.x == 0 || grid.y == 0 || grid.z == 0 ||
        grid.x > 0x7fffffffu || grid.y > 0xffff || grid.z > 0xffff) {
        return cudaErrorInvalidConfiguration;
    }
    if (launch.shared_bytes > shared_limit(launch.kernel)) return cudaErrorInvalidValue;
    enqueue(stream, [launch = std::move(launch)] { run_grid(launch); });
    return cudaSuccess;
}

}  // namespace cuda_on_cpu
