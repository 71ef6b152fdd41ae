// The CUDA runtime's functions about streams, events, capture and graphs.
#include "dev/cuda_on_cpu/runtime.h"
#include "dev/cuda_on_cpu/streams.h"

#include <algorithm>
#include <chrono>

using namespace cuda_on_cpu;

namespace {
std::chrono::steady_clock::duration pretended_time{};
}  // namespace

void cuda_on_cpu::pretend_to_take(double milliseconds) {
    const std::chrono::duration<double, std::milli> time(milliseconds);
    pretended_time += std::chrono::duration_cast<std::chrono::steady_clock::duration>(time);
}

extern "C" {

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
    const Lock held = lock();
    if (const cudaError_t error = usable()) return finish(error);
    *stream = new CUstream_st;
    (*stream)->device = current_device();
    (*stream)->non_blocking = flags & cudaStreamNonBlocking;
    all_streams().insert(*stream);
    return cudaSuccess;
}

cudaError_t cudaStreamCreate(cudaStream_t* stream) { return cudaStreamCreateWithFlags(stream, cudaStreamDefault); }

cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags, int) {
    return cudaStreamCreateWithFlags(stream, flags);
}

cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
    *least = 0;
    *greatest = -5;
    return finish(usable());
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    const Lock held = lock();
    if (all_streams().count(stream) == 0) return finish(cudaErrorInvalidResourceHandle);
    wait_for(stream->last);
    all_streams().erase(stream);
    delete stream;
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    const Lock held = lock();
    if (const cudaError_t error = usable()) return finish(error);
    if (is_capturing(stream)) return finish(cudaErrorStreamCaptureUnsupported);
    wait_for_stream(stream);
    return finish(sticky_error());
}

cudaError_t cudaStreamQuery(cudaStream_t stream) {
    const Lock held = lock();
    if (const cudaError_t error = usable()) return finish(error);
    if (is_capturing(stream)) return finish(cudaErrorStreamCaptureUnsupported);
    make_progress();
    const OperationPtr last = stream_of(stream).last;
    return last && !last->done ? cudaErrorNotReady : finish(sticky_error());
}

cudaError_t cudaDeviceSynchronize() {
    const Lock held = lock();
    if (const cudaError_t error = usable()) return finish(error);
    if (captures_under_way() > 0) return finish(cudaErrorStreamCaptureUnsupported);
    wait_for_device(current_device());
    return finish(sticky_error());
}

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void* data) {
    const Lock held = lock();
    if (const cudaError_t error = usable()) return finish(error);
    enqueue(stream, [function, data] { function(data); });
    return cudaSuccess;
}

// ---- events ----

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
    const Lock held = lock();
    if (const cudaError_t error = usable()) return finish(error);
    *event = new CUevent_st;
    (*event)->timing = !(flags & cudaEventDisableTiming);
    return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t* event) { return cudaEventCreateWithFlags(event, cudaEventDefault); }

cudaError_t cudaEventDestroy(cudaEvent_t event) {
    const Lock held = lock();
    delete event;
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t handle) {
    const Lock held = lock();
    if (const cudaError_t error = usable()) return finish(error);
    CUstream_st& stream = stream_of(handle);
    auto time = std::make_shared<std::chrono::steady_clock::time_point>();
    enqueue(handle, [time] { *time = std::chrono::steady_clock::now() + pretended_time; });
    event->time = time;
    event->capture = stream.capture;
    event->front = stream.front;
    event->operation = stream.capture ? nullptr : stream.last;
    return cudaSuccess;
}

cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t stream, unsigned) {
    return cudaEventRecord(event, stream);
}

cudaError_t cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t event, unsigned) {
    const Lock held = lock();
    if (const cudaError_t error = usable()) return finish(error);
    CUstream_st& stream = stream_of(handle);
    if (event->capture) {
        const bool under_way = event->capture->valid && event->capture->origin;
        if (!under_way) return finish(cudaErrorCapturedEvent);
        if (stream.capture && stream.capture != event->capture) return finish(cudaErrorStreamCaptureMerge);
        stream.capture = event->capture;
        stream.front.insert(stream.front.end(), event->front.begin(), event->front.end());
        return cudaSuccess;
    }
    if (!event->operation) return cudaSuccess;  // Never recorded: nothing to wait for.
    if (stream.capture) {
        stream.capture->valid = false;
        return finish(cudaErrorStreamCaptureIsolation);
    }
    const OperationPtr wait = make_operation(1, nullptr);
    order_after(wait, event->operation);
    join(handle, wait);
    return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    const Lock held = lock();
    if (const cudaError_t error = usable()) return finish(error);
    if (event->capture) return finish(cudaErrorCapturedEvent);
    wait_for(event->operation);
    return finish(sticky_error());
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
    const Lock held = lock();
    if (const cudaError_t error = usable()) return finish(error);
    if (event->capture) return finish(cudaErrorCapturedEvent);
    make_progress();
    return event->operation && !event->operation->done ? cudaErrorNotReady : finish(sticky_error());
}

cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t start, cudaEvent_t end) {
    const Lock held = lock();
    if (!start->timing || !end->timing || !start->operation || !end->operation) {
        return finish(cudaErrorInvalidResourceHandle);
    }
    if (!start->operation->done || !end->operation->done) return cudaErrorNotReady;
    *ms = std::chrono::duration<float, std::milli>(*end->time - *start->time).count();
    return finish(sticky_error());
}

// ---- capture and graphs ----

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
    const Lock held = lock();
    if (const cudaError_t error = usable()) return finish(error);
    if (all_streams().count(stream) == 0) return finish(cudaErrorStreamCaptureUnsupported);  // A default stream.
    if (stream->capture) return finish(cudaErrorIllegalState);
    stream->capture = std::make_shared<Capture>();
    stream->capture->origin = stream;
    if (mode != cudaStreamCaptureModeGlobal) stream->capture->thread = std::this_thread::get_id();
    stream->front.clear();
    return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
    const Lock held = lock();
    *graph = nullptr;
    const std::shared_ptr<Capture> capture = stream->capture;
    if (!capture) return finish(cudaErrorIllegalState);
    if (capture->origin != stream) return finish(cudaErrorStreamCaptureUnmatched);
    // All work of the other streams must lead back to this one: everything is before its last nodes.
    std::vector<bool> reached(capture->nodes.size());
    for (const size_t node : stream->front) reached[node] = true;
    for (size_t i = capture->nodes.size(); i-- > 0;) {
        if (!reached[i]) continue;
        for (const size_t before : capture->nodes[i].after) reached[before] = true;
    }
    const bool joined = std::find(reached.begin(), reached.end(), false) == reached.end();
    for (cudaStream_t other : all_streams()) {
        if (other->capture != capture) continue;
        other->capture = nullptr;
        other->front.clear();
    }
    capture->origin = nullptr;
    if (!capture->valid) return finish(cudaErrorStreamCaptureInvalidated);
    if (!joined) return finish(cudaErrorStreamCaptureUnjoined);
    *graph = new CUgraph_st{capture->nodes};
    return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
    const Lock held = lock();
    *status = is_capturing(stream) ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
    return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
    if (!graph) return finish(cudaErrorInvalidValue);
    *exec = new CUgraphExec_st{graph->nodes};
    return finish(usable());
}

cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long flags) {
    return cudaGraphInstantiate(exec, graph, flags);
}

cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t* nodes, size_t* count) {
    if (!graph || nodes) return finish(cudaErrorInvalidValue);  // Only the count can be had.
    *count = graph->nodes.size();
    return cudaSuccess;
}

cudaError_t cudaGraphUpload(cudaGraphExec_t, cudaStream_t) { return finish(usable()); }

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t handle) {
    const Lock held = lock();
    if (const cudaError_t error = usable()) return finish(error);
    if (is_capturing(handle)) return finish(cudaErrorStreamCaptureUnsupported);
    const OperationPtr begin = make_operation(1, nullptr), end = make_operation(1, nullptr);
    std::vector<OperationPtr> operations;
    for (const Node& node : exec->nodes) {
        operations.push_back(make_operation(1, node.run));
        order_after(operations.back(), begin);
        for (const size_t before : node.after) order_after(operations.back(), operations[before]);
        order_after(end, operations.back());
        if (node.link) node.link(operations[operations.size() - 2], operations.back());
    }
    join(handle, begin);
    for (const OperationPtr& operation : operations) release(operation);
    join(handle, end);
    return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
    const Lock held = lock();
    delete exec;
    return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
    const Lock held = lock();
    delete graph;
    return cudaSuccess;
}
}
