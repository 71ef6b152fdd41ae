// Comm: the ranks of one run. Two planes: control (small values of the host, and the watch over who is still alive; TCP
// connections to rank 0, control.h) and data (buckets of gradients and parameters; transport.h). With one rank every
// call returns at once and there are no connections.
//
// Every rank makes the same calls in the same order. Sums are made in one fixed order, a binary tree over the ranks:
// the same bits in every run, and on every rank, since one rank adds a piece up and the others receive it. A transport
// that adds in an order of its own (NCCL's rings) is used where the caller does not ask for the tree.
//
// Faults: a rank that dies, or is waited for longer than `timeout_seconds`, ends the program on every other rank with
// exit code 1, after a line in the log that names the rank and the cause; a rank that fails says so first, see fail().
// Nothing waits for ever, except for work that its rank has declared long, see LongWork.
#pragma once

#include "llmc/backend/backend.h"
#include "llmc/base/error.h"
#include "llmc/comm/transport.h"

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace llmc {

class Control;

struct CommSettings {
    /// How ranks find each other: "auto" (MPI's or torchrun's environment, else one rank), "mpi", "tcp" (MASTER_ADDR,
    /// MASTER_PORT, RANK, WORLD_SIZE, or Slurm's variables), "file:PATH" (a path all ranks see; rank and size as for
    /// tcp), "none".
    std::string init = "auto";
    double timeout_seconds = 300;
    /// Ranks of other hosts may be let in without a secret (LLMC_JOB_SECRET).
    bool insecure = false;
};

/// An operation under way; see Comm::wait().
using CommTicket = int;

class Comm {
  public:
    /// One rank.
    Comm();
    /// Finds the other ranks. What is wrong with the environment is an Error with exit code 2, a peer that cannot be
    /// reached in time one with exit code 1 and the address in its message.
    explicit Comm(const CommSettings& settings);
    /// Ranks that have met some other way.
    explicit Comm(std::unique_ptr<Control> control);
    ~Comm();
    Comm(const Comm&) = delete;
    Comm& operator=(const Comm&) = delete;

    int rank() const { return rank_; }
    int size() const { return size_; }
    bool is_root() const { return rank_ == 0; }
    int local_rank() const { return local_rank_; }  ///< Among the ranks of this host, by rank.
    int local_size() const { return local_size_; }
    std::string host() const;      ///< This rank's host name.
    std::string describe() const;  ///< "4 ranks on 1 host, MPI 3.1 (...)"; "1 rank".

    // ---- Control: values of the host, blocking -------------------------------------------------------------------
    // Ranks that make different calls, or are in different collectives here, get an Error that says where they are.

    /// Everybody's text, by rank.
    std::vector<std::string> all_gather(const std::string& mine);
    std::string broadcast(const std::string& of_root);
    std::vector<double> all_gather(double mine);
    /// Everybody's numbers, as many from each, by rank.
    std::vector<std::vector<double>> all_gather(const std::vector<double>& mine);
    void barrier();

    /// Tells every rank why this one cannot go on, before it ends; the first cause to reach rank 0 is the one that is
    /// logged, there, and its exit code is the one that the others end with. To be called where main() catches. Never
    /// throws. With one rank logging is the caller's.
    void fail(const std::string& cause, int exit_code = kExitFailed) noexcept;
    /// All ranks have finished; connections may close. To be called at a good end only.
    void finish();
    /// For the watch's messages: what this rank is doing, such as "step 12".
    void doing(const std::string& what);

    /// See busy().
    class [[nodiscard]] LongWork {
      public:
        LongWork(Comm& comm, const std::string& what);
        ~LongWork();
        LongWork(const LongWork&) = delete;
        LongWork& operator=(const LongWork&) = delete;

      private:
        Control* control_;
        std::string doing_before_;
    };
    /// For work of unknown length that others may wait for: calibration, planning, loading, opening data, writing a
    /// checkpoint. Until the guard goes, waiting for this rank is no fault however long it takes; that it is dead or
    /// stopped is found all the same. What it is doing() is `what` meanwhile. While this rank itself waits in one of
    /// the calls here, it is not at work.
    LongWork busy(const std::string& what) { return {*this, what}; }

    // ---- Data: tensors of the backend ------------------------------------------------------------------------------

    /// Chooses the transport for the backend's memory and connects it: once, before the calls below. With
    /// `rank_invariant` all sums are the tree's. The backend must outlive the transport; close_transport() ends it.
    void open_transport(Backend& backend, bool rank_invariant);
    void close_transport();

    /// bucket fp32, size() pieces of equal length: piece rank() becomes the sum over ranks, the others undefined. The
    /// workspace has room for the pieces of the size() - 1 other ranks; on a GPU without `rank_invariant` none is used.
    CommTicket begin_reduce_scatter(Tensor bucket, Tensor workspace);
    /// bucket of any type, size() pieces: every rank's own piece reaches the others.
    CommTicket begin_all_gather(Tensor bucket);
    /// The backend's calls made after this one find the operation done. Each ticket is waited for once, in the order in
    /// which they were given.
    void wait(CommTicket ticket);
    /// Between other work, now and then: lets transports that need the host's help (MPI) go on.
    void progress();
    /// How many operations were begun so far.
    int begun() const { return begun_; }
    /// The first so many operations are done, and what the backend had to do before them. To be called before the host
    /// waits for the backend: that would be inside the driver, where nobody notices that another rank does not come.
    /// Returns at once where wait() blocks (memory of the host) and for one rank. Ranks may make different numbers of
    /// these calls.
    void synchronize(int operations);
    /// The same of all that were begun.
    void synchronize() { synchronize(begun()); }

  private:
    struct Operation;
    void adopt(std::unique_ptr<Control> control);
    CommTicket begin(Operation operation);
    int hand_over(const Operation& operation);
    template <typename Call>
    auto with_transport(Call call);
    bool transport_adds() const;
    void wait_for_transport(const Operation& operation);
    void add_up(const Operation& operation);

    int rank_ = 0, size_ = 1, local_rank_ = 0, local_size_ = 1, hosts_ = 1;
    std::string host_;
    bool over_mpi_ = false;
    std::unique_ptr<Control> control_;
    std::unique_ptr<Transport> transport_;
    Backend* backend_ = nullptr;
    bool rank_invariant_ = false;
    std::vector<Operation> operations_;  ///< Under way, by age.
    CommTicket next_ticket_ = 0;
    int begun_ = 0;  ///< Operations that the transport was given, which numbers them in this order.
};

}  // namespace llmc
