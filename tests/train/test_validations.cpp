// Which checkpoint of a run is the best, whatever the file `best` says, as a process that was killed has left it.
#include "llmc/train/validations.h"

#include "llmc/base/file.h"
#include "llmc/io/checkpoint.h"
#include "llmc/io/checkpoint_folder.h"
#include "llmc/train/checkpointing.h"
#include "tests/io/temp_dir.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <limits>
#include <optional>
#include <string>

namespace llmc {
namespace {

/// Checkpoints of steps 10, 20, .. 50 with these losses; that of step 50 is not known.
class TheBest : public testing::Test {
  protected:
    void SetUp() override {
        run_.write("metrics.jsonl",
                   "{\"step\":0,\"val_loss\":1}\n{\"step\":10,\"val_loss\":4.5}\n{\"step\":15,\"val_loss\":2}\n"
                   "{\"step\":20,\"val_loss\":3.5}\n{\"step\":30,\"val_loss\":3.5}\n"
                   "{\"step\":40,\"val_loss\":null}\n");
        for (const int64_t step : {0, 10, 20, 30, 40, 50}) {
            write_checkpoint(run_.path(), step, fmt::format("{{\"s\":{}}}", step), {});
        }
    }

    BestCheckpoint of(int64_t last_step) const { return best_checkpoint(run_.path(), last_step); }
    bool is_named(int64_t last_step, int64_t named) const {
        name_checkpoint(run_.path(), kBestName, named);
        return of(last_step).is_named;
    }
    bool run_lacks_its_end(int64_t steps) const {
        options_.steps = steps;
        return lacks_its_end(options_, run_.path());
    }

    TempDir run_;
    mutable Options options_;
};

TEST_F(TheBest, IsThatWithTheLowestLossOfThoseThatAreThere) {
    EXPECT_EQ(of(50).step, 20);
    EXPECT_EQ(of(50).loss, 3.5);
    EXPECT_EQ(of(19).step, 10);
    EXPECT_EQ(of(9).step, 0);
    EXPECT_EQ(of(9).loss, std::numeric_limits<double>::infinity());
    EXPECT_TRUE(of(9).is_named) << "there is none to be named";
}

TEST_F(TheBest, IsToBeNamedWhereBestNamesAnother) {
    EXPECT_FALSE(of(50).is_named);
    EXPECT_FALSE(is_named(50, 10));
    EXPECT_TRUE(is_named(50, 20));
    EXPECT_TRUE(is_named(50, 30)) << "as good";
    EXPECT_FALSE(is_named(50, 40)) << "its loss is no number";
    EXPECT_TRUE(is_named(50, 50)) << "nobody knows its loss";
    EXPECT_FALSE(is_named(20, 30)) << "which is abandoned";
    std::filesystem::remove(checkpoints_folder(run_.path()) + "/best");
    std::filesystem::create_directory(checkpoints_folder(run_.path()) + "/best");
    EXPECT_FALSE(of(50).is_named) << "what cannot be read";
    EXPECT_EQ(of(50).loss, 3.5);
}

TEST_F(TheBest, IsKnownWhereMetricsAreLost) {
    write_checkpoint(run_.path(), 20, "{\"val_loss\":3.25}", {});
    write_checkpoint(run_.path(), 30, "{\"val_loss\":null}", {});
    EXPECT_EQ(validation_loss_of(checkpoints_folder(run_.path()) + "/" + step_name(20)), 3.25);
    EXPECT_EQ(validation_loss_of(checkpoints_folder(run_.path()) + "/" + step_name(30)), std::nullopt);
    EXPECT_EQ(validation_loss_of(run_ / "nowhere"), std::nullopt);
    EXPECT_EQ(of(50).loss, 3.5) << "metrics first";
    std::filesystem::remove(run_ / "metrics.jsonl");
    EXPECT_EQ(of(50).step, 20);
    EXPECT_EQ(of(50).loss, 3.25);
    EXPECT_TRUE(is_named(50, 20));
    EXPECT_FALSE(of(50).is_unknown());
}

TEST_F(TheBest, StaysTheNamedOneWhereNobodyKnowsItsLoss) {
    EXPECT_TRUE(is_named(50, 50));
    EXPECT_EQ(of(50).step, 50);
    EXPECT_TRUE(of(50).is_unknown());
    EXPECT_LT(of(50).loss, std::numeric_limits<double>::lowest()) << "no validation is better";
    EXPECT_FALSE(of(40).is_unknown()) << "which is abandoned";
}

TEST_F(TheBest, IsLackingAtTheEndOfARunThatKeepsIt) {
    options_.val_every = 100;
    write_text(run_ / "more.jsonl", read_text(run_ / "metrics.jsonl") + "{\"step\":50,\"val_loss\":5}\n");
    EXPECT_TRUE(run_lacks_its_end(50)) << "the validation";
    std::filesystem::rename(run_ / "more.jsonl", run_ / "metrics.jsonl");
    EXPECT_FALSE(run_lacks_its_end(50));
    options_.keep_best = true;
    EXPECT_TRUE(run_lacks_its_end(50));
    EXPECT_FALSE(run_lacks_its_end(30)) << "to name it would be to go back";
    options_.output_dir = "elsewhere";
    EXPECT_FALSE(run_lacks_its_end(50));
    options_.output_dir = "";
    name_checkpoint(run_.path(), kBestName, 20);
    EXPECT_FALSE(run_lacks_its_end(50));
}

}  // namespace
}  // namespace llmc
