// The executor: the only loop over steps. It turns tensor ids into views of the arena and parameter rows into views of
// the flat buffers, and calls the backend. It sees one operation after the other and knows no policies: an operation
// that a plan lists twice simply runs twice.
#pragma once

#include "llmc/comm/comm.h"
#include "llmc/plan/layout.h"
#include "llmc/run/state.h"

namespace llmc {

/// What changes from one run of a plan to the next.
struct RunArguments {
    float loss_scale = 0;        ///< Factor of every token's loss gradient: 1 / tokens of the whole batch.
    Tensor loss_sum = {};        ///< (1) fp64 += the losses; may be empty.
    int64_t rows = 0;            ///< Generation: new tokens, 1 .. N. 0 means all N.
    int64_t first_position = 0;  ///< Generation: position of the first new token.
    bool reduces = true;         ///< Gradients are summed over ranks; see Parallel::reduces_every_micro_batch().
};

class Executor {
  public:
    /// All must outlive the executor. A plan that communicates needs `comm`.
    Executor(State& state, const Plan& plan, const Layout& layout, Comm* comm = nullptr);
    ~Executor();
    Executor(const Executor&) = delete;
    Executor& operator=(const Executor&) = delete;

    /// The plan's inputs, to be filled before run(): int32.
    Tensor tokens() const { return tensor(tokens_); }
    Tensor targets() const { return tensor(targets_); }
    /// Outputs: losses (N) fp32; logits (1, Vp) of a generation plan.
    Tensor losses() const { return tensor(losses_); }
    Tensor logits() const { return tensor(logits_); }

    /// From now on communication is waited for where it begins: to measure what running it beside the work gains.
    void do_not_overlap() { overlaps_ = false; }

    /// Walks the list once. With `seconds`, waits for the end and stores the time of every step. A backend may record
    /// a walk with the same arguments as the one before, and replay it from then on.
    void run(const RunArguments& arguments, std::vector<double>* seconds = nullptr);

    /// Largest arena offset any executed step has touched.
    int64_t high_water_bytes() const { return high_water_bytes_; }

  private:
    /// Operand views of one step.
    struct Views;

    Tensor tensor(int32_t id) const;
    Tensor touched(int32_t id);
    void run_timed(std::vector<double>* seconds);
    void run_named(const Step& step);
    void run_step(const Step& step);
    void run_copy(const Step& step);
    void run_communication(const Step& step);
    bool communicates(const RunArguments& arguments) const;
    Tensor own_piece(const Tensor& bucket_tensor) const;
    Tensor parameter(const Step& step, int index);
    Tensor gradient(const Step& step, int index);
    Tensor row_of_bucket(const Tensor& bucket_tensor, int index) const;
    void run_forward(const Step& step, const Views& v);
    void run_backward(const Step& step, const Views& v);
    void run_classifier(const Views& v);
    const OpRow* row_of(const Step& step) const;

    State& state_;
    Backend& backend_;
    const Model& model_;
    const Plan& plan_;
    const Layout& layout_;
    RunArguments arguments_;
    int64_t rows_ = 0;
    bool has_run_ = false;
    int64_t high_water_bytes_ = 0;
    Comm* comm_;
    std::vector<CopyTicket> copies_;      ///< By tensor; those under way.
    std::vector<CommTicket> gathers_;     ///< By tensor; those under way.
    std::vector<CommTicket> reductions_;  ///< By bucket; reductions under way, or shares.
    int under_way_ = 0;                   ///< Gathers and reductions.
    bool overlaps_ = true;
    int32_t tokens_ = -1, targets_ = -1, losses_ = -1, logits_ = -1;
};

}  // namespace llmc
