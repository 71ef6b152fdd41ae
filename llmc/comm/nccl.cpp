#include "llmc/comm/nccl.h"

#include "llmc/base/check.h"
#include "llmc/base/error.h"
#include "llmc/comm/nccl_library.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstring>
#include <deque>
#include <exception>
#include <string_view>
#include <vector>

namespace llmc {
namespace {

/// "ncclSend" of "nccl().Send(piece, ...)", "cudaEventRecord" of "cudaEventRecord(reached_, ...)".
std::string name_of_call(std::string_view call) {
    constexpr std::string_view kLibrary = "nccl().";
    const bool in_library = call.starts_with(kLibrary);
    if (in_library) call.remove_prefix(kLibrary.size());
    return (in_library ? "nccl" : "") + std::string(call.substr(0, call.find('(')));
}

/// NCCL's own account says more than the name of the error; it may be empty.
[[noreturn]] void failed(std::string_view call, ncclResult_t status) {
    const char* account = nccl().GetLastError(nullptr);
    const bool has_account = account != nullptr && *account != 0;
    fail("NCCL: {} failed: {}{}{}; NCCL_DEBUG=WARN says more", name_of_call(call), nccl().GetErrorString(status),
         has_account ? ": " : "", has_account ? account : "");
}
[[noreturn]] void failed(std::string_view call, cudaError_t status) {
    fail("CUDA: {} failed: {} ({})", name_of_call(call), cudaGetErrorString(status), cudaGetErrorName(status));
}

/// For NCCL's calls, and for those of the CUDA runtime about our stream and events; both succeed with 0.
#define NCCL_CHECK(call)                                                                         \
    do {                                                                                         \
        if (const auto status_ = (call); status_ != decltype(status_){}) failed(#call, status_); \
    } while (false)

std::string version_name() {
    int version = 0;
    NCCL_CHECK(nccl().GetVersion(&version));
    const int unit = version < 10000 ? 1000 : 10000;  // Since 2.9 the numbers have two digits each.
    return fmt::format("NCCL {}.{}.{}", version / unit, version % unit / 100, version % 100);
}

class NcclTransport final : public Transport {
  public:
    NcclTransport(const std::string& id, int rank, int size, Backend& backend)
        : rank_(rank), size_(size), main_(static_cast<cudaStream_t>(backend.stream())), name_(version_name()) {
        CHECK(backend.on_gpu() && main_ != nullptr, "NCCL moves what lies on a GPU");
        ncclUniqueId unique;
        CHECK(id.size() == sizeof unique.internal, id.size());
        std::memcpy(unique.internal, id.data(), sizeof unique.internal);
        // What is sent should not queue behind the kernels that run beside it.
        int lowest = 0, highest = 0;
        NCCL_CHECK(cudaDeviceGetStreamPriorityRange(&lowest, &highest));
        NCCL_CHECK(cudaStreamCreateWithPriority(&stream_, cudaStreamNonBlocking, highest));
        NCCL_CHECK(nccl().CommInitRank(&comm_, size, unique, rank));
    }

    /// While an error unwinds, ranks may be lost: then what is under way is given up rather than waited for.
    ~NcclTransport() override {
        if (std::uncaught_exceptions() > 0) {
            nccl().CommAbort(comm_);
        } else {
            cudaStreamSynchronize(stream_);
            nccl().CommDestroy(comm_);
        }
        for (const Operation& operation : operations_) destroy(operation);
        for (const Operation& operation : unused_) destroy(operation);
        cudaStreamDestroy(stream_);
    }

    std::string name() const override { return name_; }
    bool adds() const override { return true; }

    int begin_exchange(void* received, const void* bucket, int64_t piece_bytes) override {
        const auto bytes = static_cast<size_t>(piece_bytes);
        follow_main();
        NCCL_CHECK(nccl().GroupStart());
        for (int step = 1; step < size_; ++step) {
            const int to = (rank_ + step) % size_, from = (rank_ + size_ - step) % size_;
            char* const place = static_cast<char*>(received) + (from < rank_ ? from : from - 1) * piece_bytes;
            const char* const piece = static_cast<const char*>(bucket) + to * piece_bytes;
            NCCL_CHECK(nccl().Send(piece, bytes, ncclUint8, to, comm_, stream_));
            NCCL_CHECK(nccl().Recv(place, bytes, ncclUint8, from, comm_, stream_));
        }
        NCCL_CHECK(nccl().GroupEnd());
        return begun();
    }

    int begin_all_gather(void* bucket, int64_t piece_bytes) override {
        const char* const own = static_cast<const char*>(bucket) + rank_ * piece_bytes;
        follow_main();
        NCCL_CHECK(nccl().AllGather(own, bucket, static_cast<size_t>(piece_bytes), ncclUint8, comm_, stream_));
        return begun();
    }

    int begin_reduce_scatter(Tensor bucket) override {
        const int64_t piece = bucket.count() / size_;
        CHECK(piece * size_ == bucket.count(), bucket.count(), size_);
        float* const all = bucket.as<float>();
        follow_main();
        NCCL_CHECK(nccl().ReduceScatter(all, all + rank_ * piece, static_cast<size_t>(piece), ncclFloat32, ncclSum,
                                        comm_, stream_));
        return begun();
    }

    void wait(int operation) override {
        CHECK(operation >= first_ && operation < first_ + static_cast<int>(operations_.size()), operation, first_);
        require_no_error();
        Operation& waited = operations_[static_cast<size_t>(operation - first_)];
        NCCL_CHECK(cudaStreamWaitEvent(main_, waited.done, 0));
        waited.waited_for = true;
    }

    /// The backend's stream waits, not we.
    bool test(int) override { return true; }

    Outstanding outstanding() override {
        require_no_error();
        forget_done();
        int number = first_;
        for (const Operation& operation : operations_) {
            if (!operation.recorded && !is_done(operation.done)) {
                using enum Outstanding::Stage;
                return {is_done(operation.reached) ? Communicating : Computing, number};
            }
            ++number;
        }
        return {};
    }

  private:
    struct Operation {
        cudaEvent_t reached = nullptr;  ///< The backend's stream has come to it.
        cudaEvent_t done = nullptr;
        bool waited_for = false;
        bool recorded = false;  ///< Into a graph, so that its events tell nothing.
    };

    static void destroy(const Operation& operation) {
        cudaEventDestroy(operation.reached);
        cudaEventDestroy(operation.done);
    }

    static bool is_done(cudaEvent_t event) {
        const cudaError_t status = cudaEventQuery(event);
        if (status == cudaErrorNotReady) return false;
        NCCL_CHECK(status);
        return true;
    }

    void require_no_error() const {
        ncclResult_t error = ncclSuccess;
        NCCL_CHECK(nccl().CommGetAsyncError(comm_, &error));
        if (error != ncclSuccess && error != ncclInProgress) failed("an operation between the ranks", error);
    }

    /// A new operation: our stream goes on from where the backend's is.
    void follow_main() {
        cudaStreamCaptureStatus capture = cudaStreamCaptureStatusNone;
        NCCL_CHECK(cudaStreamIsCapturing(main_, &capture));
        const bool recorded = capture != cudaStreamCaptureStatusNone;
        if (!recorded) forget_done();
        Operation& operation = operations_.emplace_back(unused_operation());
        operation.recorded = recorded;
        NCCL_CHECK(cudaEventRecord(operation.reached, main_));
        NCCL_CHECK(cudaStreamWaitEvent(stream_, operation.reached, 0));
    }

    /// The number of what was put on our stream since follow_main().
    int begun() {
        NCCL_CHECK(cudaEventRecord(operations_.back().done, stream_));
        return first_ + static_cast<int>(operations_.size()) - 1;
    }

    Operation unused_operation() {
        Operation operation;
        if (unused_.empty()) {
            NCCL_CHECK(cudaEventCreateWithFlags(&operation.reached, cudaEventDisableTiming));
            NCCL_CHECK(cudaEventCreateWithFlags(&operation.done, cudaEventDisableTiming));
        } else {
            operation.reached = unused_.back().reached;
            operation.done = unused_.back().done;
            unused_.pop_back();
        }
        return operation;
    }

    /// Those that are done, in order. Queries are not allowed in a recording.
    void forget_done() {
        while (!operations_.empty() && operations_.front().waited_for) {
            if (!operations_.front().recorded && !is_done(operations_.front().done)) return;
            unused_.push_back(operations_.front());
            operations_.pop_front();
            ++first_;
        }
    }

    const int rank_, size_;
    const cudaStream_t main_;  ///< The backend's.
    const std::string name_;
    cudaStream_t stream_ = nullptr;
    ncclComm_t comm_ = nullptr;
    std::deque<Operation> operations_;  ///< By number: not waited for, or not known to be done.
    int first_ = 0;                     ///< Number of the first of them.
    std::vector<Operation> unused_;     ///< Their events are to be used again.
};

}  // namespace

std::string make_nccl_id() {
    ncclUniqueId id;
    NCCL_CHECK(nccl().GetUniqueId(&id));
    return {id.internal, sizeof id.internal};
}

std::unique_ptr<Transport> make_nccl_transport(const std::string& id, int rank, int size, Backend& backend) {
    return std::make_unique<NcclTransport>(id, rank, size, backend);
}

}  // namespace llmc
