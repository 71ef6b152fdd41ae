// Streams, events and graphs: operations with what they wait for.
//
// Nothing runs when it is issued, only when somebody waits for it; then operations run in random order among all that
// may run, so that a missing wait shows. With seeds 0 and 1 they run in order of issue, or the reverse as far as
// dependencies allow. Ranks of a communicator may be threads: one lock guards all of it.
#pragma once

#include "dev/cuda_on_cpu/scheduler.h"

#include <cuda_runtime_api.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <thread>
#include <vector>

namespace cuda_on_cpu {

struct Operation {
    std::function<void()> run;
    int waits_for = 0;  ///< Operations, and holds of what other ranks have not come to yet.
    bool done = false;
    std::vector<std::shared_ptr<Operation>> followers;
};
using OperationPtr = std::shared_ptr<Operation>;

/// Ties an operation on a stream to operations of other streams: `begin` and `end`, of which neither is released yet,
/// stand for it, and what others do in between waits for the one and holds up the other.
using Link = std::function<void(const OperationPtr& begin, const OperationPtr& end)>;

/// A graph: operations, each with the earlier ones it comes after.
struct Node {
    std::function<void()> run;
    std::vector<size_t> after;
    Link link;  ///< Where this is such an `end`: the node before it is its `begin`.
};

struct Capture {
    std::vector<Node> nodes;
    cudaStream_t origin;
    std::thread::id thread;  ///< The one for whose calls it counts; none: for everybody's.
    bool valid = true;
};

/// Held during every call of the runtime, which may call others; given up while waiting for other threads.
class [[nodiscard]] Lock {
  public:
    Lock();
    ~Lock();
    Lock(const Lock&) = delete;
};
inline Lock lock() { return Lock(); }

/// Issues an operation on a stream, or adds it to the graph that the stream is being captured into.
void enqueue(cudaStream_t stream, std::function<void()> run);

/// The same for an operation with others' in between. Those of a graph are linked anew at each launch.
void enqueue(cudaStream_t stream, Link link);

/// An operation that `holds` releases hold back; join() makes it the next of a stream and releases it once.
OperationPtr make_operation(int holds, std::function<void()> run);
void join(cudaStream_t stream, const OperationPtr& operation);

/// The stream behind a handle; the default stream belongs to the current device.
CUstream_st& stream_of(cudaStream_t handle);
std::set<cudaStream_t>& all_streams();  ///< Those that were created.

/// `operation` waits for `earlier`, if that is not done yet.
void order_after(const OperationPtr& operation, const OperationPtr& earlier);

/// Takes away one of the things that the operation waits for.
void release(const OperationPtr& operation);

/// Runs operations until this one is done.
void wait_for(const OperationPtr& operation);
void wait_for_stream(cudaStream_t stream);
void wait_for_device(int device);
void wait_for_everything();

/// Runs one operation that can run, if there is one.
void make_progress();

/// Forgets all that has not run yet.
void drop_operations();

bool is_capturing(cudaStream_t stream);

/// Those that forbid this thread what cannot be captured.
int captures_under_way();

/// Threads that wait look again.
void wake_waiting_threads();

/// Issues the launch of a kernel, after checking its configuration.
cudaError_t submit(Launch launch, cudaStream_t stream);

int current_device();

}  // namespace cuda_on_cpu

struct CUstream_st {
    cuda_on_cpu::OperationPtr last;
    int device = 0;
    bool non_blocking = false;
    std::shared_ptr<cuda_on_cpu::Capture> capture;
    std::vector<size_t> front;  ///< In a capture: what the next node comes after.
};

struct CUevent_st {
    cuda_on_cpu::OperationPtr operation;
    std::shared_ptr<std::chrono::steady_clock::time_point> time;
    bool timing = true;
    std::shared_ptr<cuda_on_cpu::Capture> capture;
    std::vector<size_t> front;
};

struct CUgraph_st {
    std::vector<cuda_on_cpu::Node> nodes;
};

struct CUgraphExec_st {
    std::vector<cuda_on_cpu::Node> nodes;
};
