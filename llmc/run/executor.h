// The executor: the only loop over steps. It turns tensor ids into views of the arena and parameter rows into views of
// the flat buffers, and calls the backend. It sees one operation after the other and knows no policies: an operation
// that a plan lists twice simply runs twice.
#pragma once

#include "llmc/comm/comm.h"
#include "llmc/plan/layout.h"
#include "llmc/run/state.h"
#include "llmc/run/update.h"

#include <array>
#include <functional>
#include <map>
#include <span>
#include <vector>

namespace llmc {

/// What the host says of one run of a plan. Numbers that change from update to update are in State, on the device.
struct RunArguments {
    Turn turn = {};  ///< Which micro-batch of its update it is, the first or the last; the update comes after the last.
    int64_t rows = 0;            ///< Generation: new tokens, 1 .. N. 0 means all N.
    int64_t first_position = 0;  ///< Generation: position of the first new token.
    int64_t scored = -1;  ///< Of a plan of scored rows: how many there are. The head's chunks behind them are left out.
    bool holds_update = false;  ///< Of the last micro-batch: norm and update are left to release_update().
    bool operator==(const RunArguments&) const = default;
};

class Executor {
  public:
    /// All must outlive the executor. A plan that communicates needs `comm`, one that trains the optimiser's settings.
    Executor(State& state, const Plan& plan, const Layout& layout, Comm* comm = nullptr,
             const OptimizerSettings& optimizer = {});
    ~Executor();
    Executor(const Executor&) = delete;
    Executor& operator=(const Executor&) = delete;

    const BatchShape& shape() const { return plan_.shape; }
    /// The plan's inputs, to be filled before run(): (N) int32. Targets below 0 do not count.
    Tensor tokens() const { return tensor(tokens_); }
    Tensor targets() const { return tensor(targets_); }
    /// Of packed sequences: the slot where the document of each slot begins; see backend.h. Empty for others.
    Tensor documents() const { return tensor(documents_); }
    /// Of training with dropout, else empty: (N, 2), the number of each slot's document or sequence, and the slot's
    /// position in it; see base/dropout.h.
    Tensor mask_rows() const { return tensor(mask_rows_); }
    /// Of a plan of scored rows, else empty: the rows whose targets count, ascending, then -1 (`targets` has theirs in
    /// this order, then -1); and for each row which of them it is, or -1 (empty where nothing is trained).
    Tensor scored_rows() const { return tensor(scored_rows_); }
    Tensor scored_places() const { return tensor(scored_places_); }
    /// Outputs: losses (N) fp32, of a plan of scored rows those of `targets` whose chunks ran; logits (1, Vp) of a
    /// generation plan.
    Tensor losses() const { return tensor(losses_); }
    Tensor logits() const { return tensor(logits_); }

    /// From now on communication is waited for where it begins: to measure what running it beside the work gains.
    void do_not_overlap() { overlaps_ = false; }

    /// Walks the list once, over the steps of this turn. With `seconds`, waits for the end and stores the time of every
    /// step of the plan, 0 of those that did not run. A backend may record a turn's second walk, and replay it from
    /// then on.
    void run(const RunArguments& arguments, std::vector<double>* seconds = nullptr);
    /// Walks what the last run() held back, which until then has changed nothing but gradients and losses; nothing to
    /// do if it held nothing. An update that is never released has not been.
    void release_update();

    /// Whether the last update waits for the next one's first micro-batch, as the plan delays it: parameters and
    /// moments are those before it, and nothing but a flush may read or write them, their gradients or State's factors.
    bool has_pending_update() const { return has_pending_update_; }
    /// Ends a pending update now, on all ranks together; nothing to do if there is none. It enqueues, as run() does.
    void flush();

    /// Largest arena offset any executed step has touched.
    int64_t high_water_bytes() const { return high_water_bytes_; }
    /// The same of host memory: of what plans copy there, and by buffer of what is kept there.
    int64_t host_high_water_bytes() const;

  private:
    /// Operand views of one step.
    struct Views;

    Tensor tensor(int32_t id) const;
    Tensor touched(int32_t id);
    /// What is walked of a plan: all of it, or what comes before the norm and the update, or these.
    enum class Part : uint8_t { All, MicroBatch, Update };
    std::span<const Step> steps_of(Part part) const;
    void walk();
    void walk_or_repeat();
    int64_t rows_of_head() const;
    bool runs_now(const Step& step) const;
    void walk_timed(std::vector<double>* seconds);
    void run_named(const Step& step);
    void run_step(const Step& step);
    RowRange tokens_of(const Step& step) const;
    Views views_of(const Step& step, RowRange tokens);
    FirstPosition first_position() const;
    RopeRows rope_rows(const Step& step, const Views& v) const;
    void rotate(const Step& step, const Tensor& qkv, const Views& v, bool inverse);
    AttentionShape shape_of(const Step& step, const Views& v) const;
    void for_each_block(const Step& step, const std::function<void(RowRange tokens)>& run);
    void run_operation(const Step& step);
    void unpack(const Step& step);
    void run_fused(const Step& step);
    void run_copy(const Step& step);
    void copy_state(const Step& step);
    void wait_for_copies(const Step& step);
    char* place_in(int32_t tensor, const Step& step);
    Tensor kept_gradients(const Step& step, bool own);
    void update(const Step& step);
    void run_communication(const Step& step);
    void run_update(const Step& step);
    void begin(CommTicket* ticket, CommTicket begun);
    void finish(CommTicket ticket);
    bool can_repeat() const;
    Tensor gradients_of_bucket(const Step& step);
    Tensor own_piece(const Tensor& bucket_tensor) const;
    void join_gradients(Tensor kept, Tensor gradients, bool adds, std::span<const ParameterRange> rows);
    void zero_gradients(const Step& step);
    Tensor stored_row(const Step& step, int index);
    Tensor parameter(const Step& step, int index, Slot unpacked);
    Tensor gradient(const Step& step, int index);
    Tensor row_of_bucket(const Tensor& bucket_tensor, int index) const;
    void run_forward(const Step& step, const Views& v);
    void run_backward(const Step& step, const Views& v);
    const OpRow* row_of(const Step& step) const;
    Dropout dropout_of(const Step& step, const Views& v);

    State& state_;
    Backend& backend_;
    const Model& model_;
    const Plan& plan_;
    const Layout& layout_;
    RunArguments arguments_;
    int64_t rows_ = 0;
    Turn turn_;              ///< What is being walked ...
    Part part_ = Part::All;  ///< ... and of it, this.
    size_t update_begin_;    ///< Of the plan's steps: the first of Part::Update.
    bool holds_update_ = false;
    /// By turn (first + 2 last + 4 pending), part, rows, and how many of them the head's chunks have: whether it was
    /// walked, which loads kernels that a recording could not. Its address is the recording's key.
    std::map<std::array<int64_t, 4>, bool> walked_;
    int64_t cache_rows_ = 0;  ///< Of a generation plan: positions of its cache.
    bool has_pending_update_ = false;
    int64_t high_water_bytes_ = 0;
    Comm* comm_;
    OptimizerSettings optimizer_;
    MicroBatchTree tree_;
    std::vector<std::vector<ElementRange>> to_zero_;    ///< By bucket.
    std::vector<std::vector<CopyTicket>> copies_;       ///< By tensor; those under way.
    std::array<int64_t, kNumBuffers> host_reach_ = {};  ///< How far each has been copied from or to.
    std::vector<CommTicket> gathers_;                   ///< By tensor; those under way.
    std::vector<CommTicket> by_bucket_;  ///< Reductions, shares and gathers of what is kept; those under way.
    int under_way_ = 0;                  ///< Gathers, reductions and shares.
    bool overlaps_ = true;
    int32_t tokens_ = -1, targets_ = -1, losses_ = -1, logits_ = -1;
    int32_t documents_ = -1, mask_rows_ = -1, scored_rows_ = -1, scored_places_ = -1;
};

}  // namespace llmc
