// What a head for the rows that count saves, and what attention within documents saves: whole micro-batches with their
// update. A plan of all rows, whose other targets are ignored, and one of scored rows get the same targets; then a plan
// of sequences as one document, and one of packed sequences with documents of a few lengths. In turn in one process, so
// that whatever else runs on the machine meets both; medians by processor time on one thread, and by the clock on all.
//
//   build/release/bench/scored_rows [--quick]
//
// Exits with 1 if what runs for less takes longer.
#include "llmc/backend/make_backend.h"
#include "llmc/base/median.h"
#include "llmc/base/rng.h"
#include "llmc/run/executor.h"
#include "llmc/run/memory.h"
#include "llmc/train/data_loader.h"

#include <spdlog/fmt/fmt.h>

#include <chrono>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <string>
#include <vector>

namespace llmc {
namespace {

double processor_seconds() {
    timespec now = {};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

double clock_seconds() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// A model with one plan, and a batch of its own.
class Training {
  public:
    Training(Backend& backend, const Model& model, const BatchShape& shape, Batch batch)
        : backend_(backend),
          memory_(plan_memory(model, shape, DType::F32, find_policy("none"), 0, backend)),
          state_(backend, model, DType::F32, shape.T, memory_.layout.arena_bytes, /*training=*/true),
          executor_(state_, memory_.plan, memory_.layout),
          batch_(std::move(batch)) {
        state_.initialise(1);
        state_.set_loss_scale(1.0f / static_cast<float>(shape.N()));
    }

    double seconds(double (*now)()) {
        const double start = now();
        RunArguments arguments;
        arguments.scored = put_batch(executor_, backend_, batch_);
        executor_.run(arguments);
        backend_.synchronize();
        return now() - start;
    }

  private:
    Backend& backend_;
    PlannedMemory memory_;
    State state_;
    Executor executor_;
    Batch batch_;
};

/// Targets count by chance; documents have `length` slots, or all of a sequence (0).
Batch batch_of(const BatchShape& shape, int64_t V, double share, int64_t length) {
    Batch batch;
    for (int64_t n = 0; n < shape.N(); ++n) {
        const auto item = static_cast<uint64_t>(n);
        const auto token = static_cast<int32_t>(philox(1, RngStream::Test, 0, item)[0] % static_cast<uint64_t>(V));
        batch.tokens.push_back(token);
        batch.targets.push_back(uniform(1, RngStream::Test, 1, item) < share ? token : -1);
        const int64_t slot = n % shape.T;
        if (shape.packed) batch.documents.push_back(static_cast<int32_t>(length == 0 ? 0 : slot / length * length));
    }
    return batch;
}

struct Case {
    std::string title;
    int64_t V;
    BatchShape before, after;
    double share = 1;
    int64_t length = 0;
};

/// A line of the table. Returns the ratio of the medians.
double measure(const Case& item, int threads, double (*now)(), int rounds) {
    ModelConfig config = preset("gpt2-mini");
    config.V = item.V;
    config.maxT = item.after.T;
    const Model model = make_model(config);
    const auto backend = make_backend("cpu", threads);
    Training before(*backend, model, item.before, batch_of(item.before, item.V, item.share, item.length));
    Training after(*backend, model, item.after, batch_of(item.after, item.V, item.share, item.length));
    std::vector<double> of_before, of_after, ratios;
    for (int round = 0; round <= rounds; ++round) {
        const double first = (round % 2 == 0 ? before : after).seconds(now);
        const double second = (round % 2 == 0 ? after : before).seconds(now);
        if (round == 0) continue;  // Warms up.
        of_before.push_back(round % 2 == 0 ? first : second);
        of_after.push_back(round % 2 == 0 ? second : first);
        ratios.push_back(of_after.back() / of_before.back());
    }
    std::printf("| %s | %s | %.1f | %.1f | %.3f |\n", item.title.c_str(),
                threads == 1 ? "1, processor time" : "all, clock", 1e3 * median(of_before), 1e3 * median(of_after),
                median(ratios));
    std::fflush(stdout);
    return median(ratios);
}

bool run(bool quick) {
    std::vector<Case> cases;
    for (const int64_t V : {int64_t{257}, int64_t{50257}}) {
        for (const double share : {1.0, 0.3, 0.1}) {
            const BatchShape all = {8, 256}, scored = {8, 256, false, true};
            cases.push_back(
                {fmt::format("vocabulary {}, {:.0f} % of the targets count: all rows, scored rows", V, 100 * share), V,
                 all, scored, share});
        }
    }
    for (const int64_t length : {1024, 256, 64}) {
        const BatchShape whole = {2, 1024}, packed = {2, 1024, true, false};
        cases.push_back({fmt::format("2 x 1024, documents of {} tokens: one document, packed", length), 257, whole,
                         packed, 1, length});
    }
    std::printf("%s, gpt2-mini, fp32, --recompute=none, 8 x 256 tokens unless said\n\n",
                make_backend("cpu", 0)->info().name.c_str());
    std::printf("| what: before, after | threads | before ms | after ms | ratio, median |\n|---|---|---:|---:|---:|\n");
    bool good = true;
    for (const Case& item : cases) {
        good = measure(item, 1, processor_seconds, quick ? 3 : 9) <= 1.02 && good;
        measure(item, 0, clock_seconds, quick ? 3 : 9);
    }
    return good;
}

}  // namespace
}  // namespace llmc

int main(int argc, char** argv) { return llmc::run(argc > 1 && std::strcmp(argv[1], "--quick") == 0) ? 0 : 1; }
