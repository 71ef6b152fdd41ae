#include "llmc/comm/mpi.h"

#include "llmc/base/check.h"
#include "llmc/base/error.h"
#include "llmc/base/units.h"
#include "llmc/comm/patience.h"

#include <mpi.h>

#include <algorithm>
#include <cctype>
#include <cstdint>
#include <map>
#include <sstream>
#include <string_view>
#include <vector>

namespace llmc {
namespace {

/// Of an expression, the name before its parenthesis is shown.
[[noreturn]] void mpi_failed(std::string_view call, int status) {
    char text[MPI_MAX_ERROR_STRING] = "";
    int length = 0;
    if (MPI_Error_string(status, text, &length) != MPI_SUCCESS) length = 0;
    fail("MPI: {} failed: {}; --comm-init=tcp does without MPI", call.substr(0, call.find('(')),
         std::string_view(text, static_cast<size_t>(length)));
}

#define MPI_CHECK(call)                                                                     \
    do {                                                                                    \
        if (const int status_ = (call); status_ != MPI_SUCCESS) mpi_failed(#call, status_); \
    } while (false)

/// "Open MPI 4.1.4" of "Open MPI v4.1.4, package: ...", "MPICH 4.0.2" of "MPICH Version: 4.0.2\n...".
std::string library_name() {
    char text[MPI_MAX_LIBRARY_VERSION_STRING] = "";
    int length = 0;
    MPI_CHECK(MPI_Get_library_version(text, &length));
    const std::string line(text, static_cast<size_t>(length));
    std::istringstream words(line.substr(0, line.find_first_of(",\n")));
    std::string name;
    for (std::string word; words >> word;) {
        if (word == "Version:") continue;
        const bool is_number = word.size() > 1 && word[0] == 'v' && std::isdigit(static_cast<unsigned char>(word[1]));
        name += (name.empty() ? "" : " ") + word.substr(is_number ? 1 : 0);
    }
    return name;
}

MpiWorld world() {
    MpiWorld world;
    MPI_CHECK(MPI_Comm_rank(MPI_COMM_WORLD, &world.rank));
    MPI_CHECK(MPI_Comm_size(MPI_COMM_WORLD, &world.size));
    world.library = library_name();
    return world;
}

/// Every rank sends each other rank its piece in messages: small ones, so that they show how it goes on, but no more
/// than kMessages of one piece where MPI's counts allow it. MPI keeps the order between two ranks, so the order of
/// calls tells operations apart.
class MpiTransport final : public Transport {
  public:
    MpiTransport() : world_(world()), name_("MPI (" + world_.library + ")") {}

    std::string name() const override { return name_; }

    int begin_exchange(void* received, const void* bucket, int64_t piece_bytes) override {
        const auto slot = [&](int peer) { return peer < world_.rank ? peer : peer - 1; };
        return begin(
            piece_bytes, [&](int peer) { return static_cast<char*>(received) + slot(peer) * piece_bytes; },
            [&](int peer) { return static_cast<const char*>(bucket) + peer * piece_bytes; });
    }

    int begin_all_gather(void* bucket, int64_t piece_bytes) override {
        return begin(
            piece_bytes, [&](int peer) { return static_cast<char*>(bucket) + peer * piece_bytes; },
            [&](int) { return static_cast<const char*>(bucket) + world_.rank * piece_bytes; });
    }

    bool test(int operation) override {
        Operation& tested = operations_.at(operation);
        take_finished(tested);
        return tested.under_way == 0;
    }

    void wait(int operation) override {
        const auto waited = operations_.find(operation);
        CHECK(waited != operations_.end(), operation);
        Patience patience;  // MPI moves data only while it is called.
        while (waited->second.under_way > 0) {
            if (take_finished(waited->second))
                patience.restart();
            else
                patience.pause();
        }
        operations_.erase(waited);
    }

  private:
    struct Operation {
        std::vector<MPI_Request> requests;
        std::vector<int> peers;  ///< Of the requests, for messages to people.
        size_t under_way = 0;
    };

    static constexpr int64_t kMessages = 64, kSmallest = 256 << 10, kLargest = 1 << 30;

    /// `to(peer)` is where a peer's piece arrives, `from(peer)` what it is sent. Ranks begin with different peers.
    template <typename To, typename From>
    int begin(int64_t piece_bytes, const To& to, const From& from) {
        const int64_t message = std::clamp(ceil_div(piece_bytes, kMessages), kSmallest, kLargest);
        Operation& operation = operations_[next_];
        for (int64_t begin = 0; begin < piece_bytes; begin += message) {
            const int bytes = static_cast<int>(std::min(message, piece_bytes - begin));
            for (int step = 1; step < world_.size; ++step) {
                const int peer = (world_.rank + world_.size - step) % world_.size;
                MPI_CHECK(MPI_Irecv(to(peer) + begin, bytes, MPI_BYTE, peer, 0, MPI_COMM_WORLD, add(operation, peer)));
            }
            for (int step = 1; step < world_.size; ++step) {
                const int peer = (world_.rank + step) % world_.size;
                MPI_CHECK(
                    MPI_Isend(from(peer) + begin, bytes, MPI_BYTE, peer, 0, MPI_COMM_WORLD, add(operation, peer)));
            }
        }
        return next_++;
    }

    static MPI_Request* add(Operation& operation, int peer) {
        operation.peers.push_back(peer);
        ++operation.under_way;
        return &operation.requests.emplace_back(MPI_REQUEST_NULL);
    }

    /// Whether messages have been finished since it was last called.
    bool take_finished(Operation& operation) {
        const size_t count = operation.requests.size();
        indices_.resize(count);
        statuses_.resize(count);
        int finished = 0;
        const int status = MPI_Testsome(static_cast<int>(count), operation.requests.data(), &finished, indices_.data(),
                                        statuses_.data());
        for (int i = 0; status == MPI_ERR_IN_STATUS && i < finished; ++i) {
            const int error = statuses_[static_cast<size_t>(i)].MPI_ERROR;
            const int peer = operation.peers[static_cast<size_t>(indices_[static_cast<size_t>(i)])];
            if (error != MPI_SUCCESS)
                mpi_failed(fmt::format("a message between ranks {} and {}", world_.rank, peer), error);
        }
        if (status != MPI_SUCCESS) mpi_failed("MPI_Testsome", status);
        if (finished == MPI_UNDEFINED || finished == 0) return false;
        operation.under_way -= static_cast<size_t>(finished);
        return true;
    }

    const MpiWorld world_;
    const std::string name_;
    std::map<int, Operation> operations_;  ///< Under way, by number.
    int next_ = 0;
    std::vector<int> indices_;
    std::vector<MPI_Status> statuses_;
};

}  // namespace

MpiWorld start_mpi() {
    int started = 0, threads = 0;
    MPI_CHECK(MPI_Initialized(&started));
    if (!started) {
        MPI_CHECK(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &threads));
        if (threads < MPI_THREAD_FUNNELED)
            fail("MPI: this library allows no threads beside MPI's; --comm-init=tcp does without MPI");
    }
    MPI_CHECK(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN));
    return world();
}

std::string mpi_broadcast(const std::string& of_root) {
    std::string text = of_root;
    int64_t bytes = static_cast<int64_t>(text.size());
    MPI_CHECK(MPI_Bcast(&bytes, 1, MPI_INT64_T, 0, MPI_COMM_WORLD));
    text.resize(static_cast<size_t>(bytes));
    MPI_CHECK(MPI_Bcast(text.data(), static_cast<int>(bytes), MPI_BYTE, 0, MPI_COMM_WORLD));
    return text;
}

std::unique_ptr<Transport> make_mpi_transport() { return std::make_unique<MpiTransport>(); }

void finish_mpi() {
    int started = 0, finished = 0;
    MPI_CHECK(MPI_Initialized(&started));
    MPI_CHECK(MPI_Finalized(&finished));
    if (started && !finished) MPI_CHECK(MPI_Finalize());
}

}  // namespace llmc
