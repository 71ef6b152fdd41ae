// The trainer's loop where targets count unevenly: its loss is over those of the whole update, and an update without
// any is passed over.
#include "llmc/train/trainer.h"

#include "llmc/base/file.h"
#include "llmc/base/rng.h"
#include "tests/io/temp_dir.h"
#include "tests/train/words.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <sstream>

namespace llmc {
namespace {

constexpr int64_t kT = 32, kPerUpdate = 4;

/// In the second update nothing counts; elsewhere a sequence has between one and all of its targets.
class ThinSequences final : public Sequences {
  public:
    ThinSequences() : Sequences(kT) {}
    int64_t per_epoch() const override { return 100; }
    bool packed() const override { return true; }
    bool partly_scored() const override { return true; }
    int64_t scored(int64_t sequence) const override {
        return sequence / kPerUpdate == 1 ? 0 : sequence % kPerUpdate == 0 ? kT : 1 + sequence % 3;
    }
    void read(int64_t sequence, const SequenceSlots& out) const override {
        for (int64_t slot = 0; slot < kT; ++slot) {
            const auto at = static_cast<size_t>(slot);
            const auto draw = philox(3, RngStream::Test, static_cast<uint32_t>(sequence), at);
            out.tokens[at] = static_cast<int32_t>(draw[0] % 200);
            out.targets[at] = slot < scored(sequence) ? static_cast<int32_t>(draw[1] % 200) : -1;
            out.documents[at] = static_cast<int32_t>(slot / 10 * 10);
        }
    }
    std::string describe() const override { return ""; }
};

std::vector<nlohmann::json> train(const TempDir& dir, const std::string& name, int batch_size) {
    std::string text;
    for (int i = 0; i < 200; ++i) text += R"({"text":"and the earth was without form )" + std::to_string(i) + "\"}\n";
    const Options options =
        parse({"--data=" + dir.write("text.jsonl", text), "--jsonl-field=text", "--pack=documents", "--steps=4",
               "--layers=2", "--channels=16", "--heads=2", "--seq-len=32", "--total-batch-size=128", "--warmup=0",
               "--batch-size=" + std::to_string(batch_size), "--output-dir=" + (dir / name), "--val-every=2",
               "--val-sequences=5", "--sample-length=0", "--threads=1", "--device=cpu", "--log-level=error"});
    Comm comm;
    const Origin origin;
    const auto description = describe_run(options, origin, comm);
    auto& run = const_cast<RunDescription&>(*description);
    run.sequences = std::make_unique<ThinSequences>();
    State state(*run.backend, run.model, run.plan().places, kT, run.memory().layout.arena_bytes, /*training=*/true);
    RunFolder folder(run.options);
    folder.begin(run.options);
    Trainer trainer(run, state, origin, &folder, folder.path(), comm);
    trainer.run();
    EXPECT_EQ(trainer.progress().step, 4);
    EXPECT_EQ(trainer.progress().updates, 3);
    EXPECT_EQ(trainer.progress().next_sequence, 4 * kPerUpdate);
    std::vector<nlohmann::json> lines;
    std::istringstream file(read_text(folder.path() + "/metrics.jsonl"));
    for (std::string line; std::getline(file, line);) lines.push_back(nlohmann::json::parse(line));
    return lines;
}

TEST(Trainer, TheLossIsOverAllThatCountsInTheUpdate) {
    const TempDir dir;
    const std::vector<nlohmann::json> whole = train(dir, "whole", 4);
    const ThinSequences sequences;
    int steps = 0, validations = 0;
    for (const nlohmann::json& line : whole) {
        if (!line.contains("loss")) {
            ++validations;
            EXPECT_NEAR(line["val_loss"].get<double>(), 5.5, 0.3);
            continue;
        }
        const int64_t step = line["step"].get<int64_t>() - 1;
        ++steps;
        if (step == 1) {
            EXPECT_TRUE(line["loss"].is_null());
            EXPECT_EQ(line["grad_norm"], 0);
            EXPECT_FALSE(line.contains("scored_tokens"));
            continue;
        }
        EXPECT_EQ(line["scored_tokens"], scored_in(sequences, step * kPerUpdate, kPerUpdate));
        EXPECT_NEAR(line["loss"].get<double>(), 5.5, 0.3);
    }
    EXPECT_EQ(steps, 4);
    EXPECT_EQ(validations, 3);
    for (const int batch_size : {1, 2}) {
        const std::vector<nlohmann::json> cut = train(dir, "cut" + std::to_string(batch_size), batch_size);
        ASSERT_EQ(cut.size(), whole.size());
        for (size_t i = 0; i < cut.size(); ++i) {
            for (const char* key : {"loss", "val_loss"}) {
                if (!whole[i].contains(key) || whole[i][key].is_null()) continue;
                const double expected = whole[i][key].get<double>();
                EXPECT_NEAR(cut[i][key].get<double>(), expected, 1e-6 * expected) << i << ", B = " << batch_size;
            }
        }
    }
}

TEST(LossEnds, AreFarApartWhereTheTrainingDiverged) {
    const auto diverged = [](double first, double last) {
        LossEnds losses;
        losses.add(first);
        losses.add(1e9);  // What was in between does not count.
        losses.add(last);
        return losses.have_diverged();
    };
    EXPECT_FALSE(LossEnds().have_diverged());
    EXPECT_FALSE(diverged(5.5, 1.3));
    EXPECT_FALSE(diverged(0.01, 0.5));
    EXPECT_FALSE(diverged(2, 3));
    EXPECT_TRUE(diverged(2, 3.6));
    EXPECT_TRUE(diverged(10.8, 5e6));
    EXPECT_TRUE(diverged(10.8, std::numeric_limits<double>::quiet_NaN()));
}

}  // namespace
}  // namespace llmc
