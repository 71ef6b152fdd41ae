#include "llmc/comm/comm.h"

#include "llmc/base/check.h"
#include "llmc/base/error.h"
#include "llmc/base/log.h"
#include "llmc/comm/control.h"
#include "llmc/comm/make_comm.h"
#include "llmc/comm/patience.h"
#include "llmc/comm/rendezvous.h"

#include <algorithm>
#include <cstring>
#include <fstream>
#include <optional>
#include <set>
#include <utility>

namespace llmc {
namespace {

/// What two ranks on one host, and no others, have in common.
std::string host_identity(const std::string& host) {
    std::string boot;
    std::getline(std::ifstream("/proc/sys/kernel/random/boot_id"), boot);
    return host + " " + boot;
}

/// The r-th of the pieces that lie one after another.
Tensor piece_of(Tensor pieces, int64_t count, int index) {
    return {DType::F32, pieces.as<float>() + index * count, count};
}

}  // namespace

struct Comm::Operation {
    enum class Kind : uint8_t { Gather, ReduceScatter };
    Kind kind = Kind::Gather;
    Tensor bucket, workspace;
    CommTicket ticket = 0;
    int pending = 0;  ///< The transport's operation.
};

// ---- Ranks -------------------------------------------------------------------------------------------------------

Comm::Comm() : host_(host_name(process_environment())) {}

Comm::Comm(const CommSettings& settings) : Comm() {
    const Environment environment = process_environment();
    World world = read_world(settings.init, environment, is_built_with_mpi());
    if (const std::string warning = warning_of_others(settings.init, world, environment); !warning.empty()) {
        spdlog::warn("{}", warning);
    }
    if (world.way != World::Way::One) raise_file_limit();
    find_mpi_world(&world);
    require_company(world, environment);
    require_secret(world, settings.insecure);
    if (const std::string warning = warning_of_strangers(world, settings.insecure); !warning.empty()) {
        spdlog::warn("{}", warning);
    }
    over_mpi_ = world.way == World::Way::Mpi;
    if (world.size == 1) return;
    Meeting meeting = prepare_meeting(world, host_, broadcast_over_mpi);
    adopt(std::make_unique<Control>(std::move(meeting), settings.timeout_seconds));
}

Comm::Comm(std::unique_ptr<Control> control) { adopt(std::move(control)); }

void Comm::adopt(std::unique_ptr<Control> control) {
    control_ = std::move(control);
    rank_ = control_->rank();
    size_ = control_->size();
    host_ = control_->member(rank_).host;
    const std::vector<std::string> hosts = control_->all_gather(host_identity(host_));
    const std::string& own = hosts[static_cast<size_t>(rank_)];
    local_rank_ = static_cast<int>(std::count(hosts.begin(), hosts.begin() + rank_, own));
    local_size_ = static_cast<int>(std::count(hosts.begin(), hosts.end(), own));
    hosts_ = static_cast<int>(std::set<std::string>(hosts.begin(), hosts.end()).size());
}

Comm::~Comm() { close_transport(); }

std::string Comm::host() const { return host_; }

std::string Comm::describe() const {
    if (size_ == 1) return "1 rank";
    const std::string hosts = fmt::format("{} ranks on {} host{}", size_, hosts_, hosts_ == 1 ? "" : "s");
    return transport_ ? hosts + ", " + transport_->name() : hosts;
}

// ---- Control -----------------------------------------------------------------------------------------------------

std::vector<std::string> Comm::all_gather(const std::string& mine) {
    return control_ ? control_->all_gather(mine) : std::vector<std::string>{mine};
}

std::string Comm::broadcast(const std::string& of_root) { return control_ ? control_->broadcast(of_root) : of_root; }

std::vector<double> Comm::all_gather(double mine) {
    std::vector<double> values;
    for (const std::vector<double>& of_rank : all_gather(std::vector<double>{mine})) values.push_back(of_rank[0]);
    return values;
}

std::vector<std::vector<double>> Comm::all_gather(const std::vector<double>& mine) {
    if (!control_) return {mine};
    const std::string bytes(reinterpret_cast<const char*>(mine.data()), mine.size() * sizeof(double));
    std::vector<std::vector<double>> all;
    for (const std::string& text : control_->all_gather(bytes, Collective::Numbers)) {
        if (text.size() != bytes.size()) {
            llmc::fail("rank {} tells {} numbers, rank {} {}: do all ranks run with the same options?", all.size(),
                       text.size() / sizeof(double), rank_, mine.size());
        }
        std::memcpy(all.emplace_back(mine.size()).data(), text.data(), text.size());
    }
    return all;
}

void Comm::barrier() {
    if (control_) control_->all_gather("", Collective::Barrier);
}

void Comm::fail(const std::string& cause, int exit_code) noexcept {
    if (control_) control_->fail(cause, exit_code);
}

void Comm::finish() {
    if (control_) control_->all_gather("", Collective::Finish);
    close_transport();
    if (control_) control_->finish();
    if (over_mpi_) leave_mpi();
}

void Comm::doing(const std::string& what) {
    if (control_) control_->doing(what);
}

Comm::LongWork::LongWork(Comm& comm, const std::string& what) : control_(comm.control_.get()) {
    if (control_ != nullptr) doing_before_ = control_->begin_long_work(what);
}

Comm::LongWork::~LongWork() {
    if (control_ != nullptr) control_->end_long_work(doing_before_);
}

// ---- Data --------------------------------------------------------------------------------------------------------

/// A rank that ends shows first in the transport, as its connections close, and then has its say.
template <typename Call>
auto Comm::with_transport(Call call) {
    try {
        return call();
    } catch (const Error& error) {
        control_->throw_cause_of(error);
    }
}

void Comm::open_transport(Backend& backend, bool rank_invariant) {
    CHECK(!transport_);
    backend_ = &backend;
    rank_invariant_ = rank_invariant;
    if (!control_) return;
    const Control::Waiting waiting(*control_);
    transport_ = make_transport(*control_, backend, over_mpi_ ? World::Way::Mpi : World::Way::Tcp);
}

void Comm::close_transport() {
    transport_.reset();
    operations_.clear();
    begun_ = 0;
}

CommTicket Comm::begin_reduce_scatter(Tensor bucket, Tensor workspace) {
    return begin({Operation::Kind::ReduceScatter, bucket, workspace});
}

CommTicket Comm::begin_all_gather(Tensor bucket) { return begin({Operation::Kind::Gather, bucket, {}}); }

/// Transports tell operations apart by the order of calls, which is to be the same on all ranks.
CommTicket Comm::begin(Operation operation) {
    operation.ticket = next_ticket_++;
    if (size_ == 1) return operation.ticket;
    CHECK(transport_ && operation.bucket.count() % size_ == 0, operation.bucket.count(), size_);
    operation.pending = with_transport([&] { return hand_over(operation); });
    begun_ = operation.pending + 1;
    operations_.push_back(operation);
    return operation.ticket;
}

/// The operation goes to the transport; the transport's number for it.
int Comm::hand_over(const Operation& operation) {
    const int64_t piece_bytes = operation.bucket.bytes() / size_;
    if (operation.kind == Operation::Kind::Gather) {
        return transport_->begin_all_gather(operation.bucket.data, piece_bytes);
    }
    if (transport_adds()) return transport_->begin_reduce_scatter(operation.bucket);
    CHECK(operation.workspace.bytes() >= (size_ - 1) * piece_bytes, operation.workspace.bytes(), piece_bytes);
    return transport_->begin_exchange(operation.workspace.data, operation.bucket.data, piece_bytes);
}

bool Comm::transport_adds() const { return transport_->adds() && !rank_invariant_; }

void Comm::wait_for_transport(const Operation& operation) {
    const Control::Waiting waiting(*control_);
    with_transport([&] { transport_->wait(operation.pending); });
}

/// The tree over the parts, in the order of ranks. Adding two numbers gives the same bits either way round, so a sum
/// may lie in either operand: where this rank's own piece is one it takes the sum, and so has the whole at the end.
void Comm::add_up(const Operation& operation) {
    const int64_t count = operation.bucket.count() / size_;
    if (count == 0) return;
    const Tensor own = piece_of(operation.bucket, count, rank_);
    std::vector<Tensor> parts;
    for (int rank = 0; rank < size_; ++rank) {
        parts.push_back(rank == rank_ ? own : piece_of(operation.workspace, count, rank < rank_ ? rank : rank - 1));
    }
    for (size_t stride = 1; stride < parts.size(); stride *= 2) {
        for (size_t i = 0; i + stride < parts.size(); i += 2 * stride) {
            Tensor left = parts[i], right = parts[i + stride];
            if (right.data == own.data) std::swap(left, right);
            backend_->add(left, right);
            parts[i] = left;
        }
    }
}

void Comm::wait(CommTicket ticket) {
    if (size_ == 1) return;
    CHECK(!operations_.empty() && operations_.front().ticket == ticket, ticket);
    const Operation operation = operations_.front();
    wait_for_transport(operation);
    operations_.erase(operations_.begin());
    if (operation.kind == Operation::Kind::ReduceScatter && !transport_adds()) add_up(operation);
}

void Comm::progress() {
    if (operations_.empty()) return;
    with_transport([&] { return transport_->test(operations_.front().pending); });
}

void Comm::synchronize(int operations) {
    if (!transport_) return;
    Control::Watching watching(*control_);
    const Patience patience;
    for (;;) {
        const Outstanding outstanding = with_transport([&] { return transport_->outstanding(); });
        if (outstanding.stage == Outstanding::Stage::Nothing || outstanding.operation >= operations) return;
        control_->require_alive();
        const bool waits = outstanding.stage == Outstanding::Stage::Communicating;
        watching.see(waits ? std::optional(outstanding.operation) : std::nullopt);
        patience.pause();
    }
}

}  // namespace llmc
