// A training run of several ranks, as threads of the test's process: what the tests of ranks share.
#pragma once

#include "llmc/backend/make_backend.h"
#include "llmc/base/rng.h"
#include "llmc/io/peft/adapters.h"
#include "llmc/model/dropout.h"
#include "llmc/model/trainable.h"
#include "llmc/plan/formats.h"
#include "llmc/run/executor.h"
#include "llmc/run/update.h"
#include "llmc/train/data_loader.h"
#include "llmc/train/offload.h"
#include "tests/comm/comm_testing.h"
#include "tests/run/tiny_trainer.h"

#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

namespace llmc {

struct TeamRun {
    std::string device = "cpu";
    ModelConfig config;
    std::string freeze;  ///< Patterns, as --freeze takes them.
    int64_t lora = 0;    ///< Rank of adapters of all matrices, as --lora.
    double dropout = 0, lora_dropout = 0;
    BatchShape shape = {1, 16};  ///< Of one micro-batch of one rank.
    DType dtype = DType::F32;
    std::optional<WeightFormat> base;  ///< As --base-format; the activations' type if absent.
    StateFormats formats;
    int threads = 1;
    uint64_t rounding_seed = 7;
    float learning_rate = 3e-3f;
    float adam_epsilon = 1e-8f;
    std::string policy = "none";
    Parallel parallel;  ///< parallel.micro_batches of each rank.
    int zero = 0;
    std::string offload = "none";
    int update_ahead = 0;  ///< Of PlanRequest: 0, an update at once.
    int flush_every = 0;   ///< Steps after which a pending update is flushed; 0: only after the last.
    int steps = 3;
    bool begins_another = false;  ///< After the last step the first micro-batch of one that is never updated runs.
    std::shared_ptr<const Sequences> sequences;  ///< What is trained on, of shape.T slots; null: random tokens.
};

struct TeamResult {
    std::vector<double> losses;  ///< Mean, by step.
    std::vector<double> norms;
    std::vector<float> weights;  ///< Used rows, in the order of the table; every rank filled in what it owns.
};

class RankTeam {
  public:
    explicit RankTeam(const TeamRun& run) : run_(run), model_(with_dropout(make_model(run.config), run.dropout)) {
        if (run.lora > 0) {
            PeftConfig adapters;
            adapters.dropout = run.lora_dropout;
            adapters.rank = run.lora, adapters.target_modules = adaptable_modules(model_);
            model_ = with_adapters(std::move(model_), adapters);
        }
        if (!run.freeze.empty())
            model_ = with_trainable(std::move(model_), parse_patterns("--freeze", run.freeze, false));
        int64_t count = 0;
        for (const ParameterRow& row : model_.parameters) count += row.used_rows * row.cols;
        result_.weights.resize(static_cast<size_t>(count));
        result_.losses.resize(static_cast<size_t>(run.steps));
        result_.norms.resize(static_cast<size_t>(run.steps));
    }

    TeamResult train() {
        const int ranks = run_.parallel.ranks;
        if (ranks == 1) {
            Comm alone;
            train_rank(alone);
            return result_;
        }
        std::vector<Meeting> meetings = make_meetings(ranks);
        std::vector<std::thread> threads;
        for (int rank = 0; rank < ranks; ++rank) {
            threads.emplace_back([this, &meetings, rank] {
                const auto end = [](const std::string& line) { ADD_FAILURE() << line; };
                try {
                    Comm comm(std::make_unique<Control>(std::move(meetings[static_cast<size_t>(rank)]), kPatient, end));
                    train_rank(comm);
                    comm.finish();
                } catch (const Error& error) {
                    ADD_FAILURE() << "rank " << rank << ": " << error.what();
                }
            });
        }
        for (std::thread& thread : threads) thread.join();
        return result_;
    }

  private:
    /// The tokens of micro-batch `number` of a step, whoever runs it.
    std::vector<int32_t> tokens(int step, int64_t number, uint64_t what) const {
        std::vector<int32_t> values(static_cast<size_t>(run_.shape.N()));
        for (size_t i = 0; i < values.size(); ++i) {
            const auto draw = philox(what, RngStream::Test, static_cast<uint32_t>(step * 100 + number), i)[0];
            values[i] = static_cast<int32_t>(draw % static_cast<uint64_t>(model_.config.V));
        }
        return values;
    }

    void train_rank(Comm& comm) {
        const auto backend = make_backend(run_.device, run_.threads);
        std::optional<DataLoader> loader;
        Parallel parallel = run_.parallel;
        parallel.exchanges = !backend->on_gpu() || parallel.rank_invariant;
        BatchShape shape = run_.shape;
        if (run_.sequences) {
            shape.packed = run_.sequences->packed(), shape.partly_scored = run_.sequences->partly_scored();
            loader.emplace(*run_.sequences, shape.B, Stripe{comm.rank(), parallel.ranks});
        }
        const Places formatted = with_formats(places_of_zero(run_.zero, parallel.ranks, run_.dtype), run_.formats);
        Places places = with_offload(run_.lora > 0 ? for_adapters(formatted) : formatted, run_.offload);
        if (run_.base) places.set_base(*run_.base);
        PlanRequest request = plan_request(model_, shape, places, 0, *backend, parallel);
        request.update_ahead = run_.update_ahead;
        const PlannedMemory memory = with_memory(model_, make_training_plan(model_, request, find_policy(run_.policy)));
        State state(*backend, model_, places, run_.shape.T, memory.layout.arena_bytes, true, parallel, comm.rank());
        state.reserve_host(memory.plan.host_bytes);
        EXPECT_EQ(state.allocated_bytes(), memory.total_bytes());
        EXPECT_EQ(state.allocated_host_bytes(), memory.host_bytes());
        fill_with_nan(*backend, state.all_gradients());
        OptimizerSettings settings;
        settings.weight_decay = 0.1f, settings.grad_clip = 1, settings.seed = run_.rounding_seed;
        settings.epsilon = run_.adam_epsilon;
        Executor executor(state, memory.plan, memory.layout, &comm, settings);
        state.set_control(UpdateControl::LearningRate, run_.learning_rate);
        comm.open_transport(*backend, parallel.rank_invariant);
        state.initialise(7);
        gather_parameters(state, comm);
        for (int step = 0; step < run_.steps; ++step) {
            train_step(step, comm, state, executor, loader);
            EXPECT_EQ(executor.has_pending_update(), run_.update_ahead > 0);
            const bool ends = step + 1 == run_.steps || (run_.flush_every > 0 && (step + 1) % run_.flush_every == 0);
            if (!ends) continue;
            if (run_.begins_another && step + 1 == run_.steps) {
                run_micro_batch(run_.steps, 0, comm, state, executor, loader);
            }
            executor.flush();
            EXPECT_FALSE(executor.has_pending_update());
            comm.synchronize();
        }
        // Where every update is flushed none is pending in a forward.
        EXPECT_LE(executor.high_water_bytes(), memory.layout.arena_bytes);
        const bool ran_all = run_.update_ahead == 0 || run_.flush_every != 1;
        if (ran_all) {
            EXPECT_EQ(executor.high_water_bytes(), memory.layout.arena_bytes);
        }
        // Beside 8-bit blocks in pieces a rank has room for small rows that are others'.
        const int64_t host = memory.host_bytes() - memory.host_state.partial_sums;
        const bool has_others = places.format(Buffer::MomentM) == DType::U8 && places.updates_pieces();
        EXPECT_LE(executor.host_high_water_bytes(), host);
        EXPECT_GE(executor.host_high_water_bytes(), has_others ? host - 8192 : host);
        collect(state);
        comm.close_transport();
    }

    /// Targets that count.
    int64_t scored_of(int step) const {
        const int64_t sequences = run_.parallel.micro_batches * run_.parallel.ranks * run_.shape.B;
        if (!run_.sequences) return sequences * run_.shape.T;
        return scored_in(*run_.sequences, step * sequences, sequences);
    }

    /// All but its update, if it is the last.
    void run_micro_batch(int step, int64_t micro, const Comm& comm, State& state, Executor& executor,
                         std::optional<DataLoader>& loader) {
        Backend& backend = state.backend();
        const Parallel& parallel = state.parallel();
        const Turn turn = {.first = micro == 0, .last = micro + 1 == parallel.micro_batches};
        RunArguments arguments = {.turn = turn, .holds_update = true};
        if (loader) {
            arguments.scored = put_batch(executor, backend, loader->next());
        } else {
            const int64_t number = micro * parallel.ranks + comm.rank();
            backend.copy_to_device(executor.tokens(), tokens(step, number, 1).data());
            backend.copy_to_device(executor.targets(), tokens(step, number, 2).data());
            put_mask_rows(executor, backend, (step * parallel.micro_batches * parallel.ranks + number) * run_.shape.B);
        }
        state.set_control(UpdateControl::MicroBatch, static_cast<double>(micro * parallel.ranks));
        executor.run(arguments);
    }

    void train_step(int step, Comm& comm, State& state, Executor& executor, std::optional<DataLoader>& loader) {
        Backend& backend = state.backend();
        const Parallel& parallel = state.parallel();
        double loss = 0;
        const auto scored = static_cast<double>(scored_of(step));
        state.set_loss_scale(1.0f / static_cast<float>(scored));
        for (int64_t micro = 0; micro < parallel.micro_batches; ++micro) {
            run_micro_batch(step, micro, comm, state, executor, loader);
            executor.release_update();
            if (micro + 1 < parallel.micro_batches && !parallel.rank_invariant) continue;  // The sum goes on.
            double sum = 0;
            comm.synchronize();
            backend.copy_to_host(&sum, state.loss_sum());
            for (const double of_rank : comm.all_gather(sum)) loss += of_rank;
        }
        double norm = 0;
        backend.copy_to_host(&norm, state.grad_norm());
        for (const double of_rank : comm.all_gather(norm)) {
            EXPECT_EQ(std::memcmp(&of_rank, &norm, sizeof(norm)), 0) << of_rank << ", not " << norm;
        }
        if (!comm.is_root()) return;
        result_.losses[static_cast<size_t>(step)] = loss / scored;
        result_.norms[static_cast<size_t>(step)] = norm;
    }

    /// Parts of different ranks do not overlap.
    void collect(const State& state) {
        int64_t first = 0;
        for (int index = 0; index < static_cast<int>(model_.parameters.size()); ++index) {
            const ParameterRow& row = model_.parameters[static_cast<size_t>(index)];
            const ElementRange range = state.owned(index);
            if (range.count() > 0 && !is_nf4(state.format_of(index))) {
                float* to = result_.weights.data() + first + range.begin;
                state.read_kept(Kept::Weights, index, range, to);
            }
            first += row.used_rows * row.cols;
        }
    }

    TeamRun run_;
    Model model_;
    TeamResult result_;
};

}  // namespace llmc
