#include "llmc/base/file.h"
#include "llmc/io/checkpoint.h"
#include "llmc/io/checkpoint_folder.h"
#include "llmc/io/manifest.h"
#include "llmc/io/run_record.h"
#include "tests/io/file_limit.h"
#include "tests/io/temp_dir.h"
#include "tests/io/warnings.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <cstring>
#include <sys/stat.h>
#include <unistd.h>

namespace llmc {
namespace {

namespace fs = std::filesystem;

const std::vector<float> kWeights = {0.5f, -1.25f, 3.0f};
const std::vector<double> kMoments = {1e-300, 2, 3, 4};

std::string state_of(int64_t step) {
    return nlohmann::json({{"seed", 42}, {"sequences", 12 * step}, {"lr", 0.1 + 0.2}}).dump();
}

std::vector<CheckpointFile> files() {
    return {
        {"model.safetensors", {{{"w", DType::F32, {3}}, kWeights.data()}}},
        {"optimizer.safetensors", {{{"m", DType::F64, {2, 2}}, kMoments.data()}, {{"none", DType::U8, {0}}, nullptr}}}};
}

std::string write_step(const std::string& root, int64_t step) {
    return write_checkpoint(root, step, state_of(step), files());
}

std::string open_error(const std::string& path) {
    return error_of([&] { open_checkpoint(path, "--resume"); });
}

/// Names of all files below a folder.
std::vector<std::string> everything(const std::string& root) {
    std::vector<std::string> paths;
    for (const auto& entry : fs::recursive_directory_iterator(root)) {
        paths.push_back(fs::relative(entry.path(), root).string());
    }
    std::sort(paths.begin(), paths.end());
    return paths;
}

TEST(Checkpoint, RoundTrip) {
    const TempDir run;
    const std::string folder = write_step(run.path(), 100);
    EXPECT_EQ(folder, run / "checkpoints/step-00000100");
    EXPECT_EQ(slurp(run / "checkpoints/latest"), "step-00000100\n");
    const std::vector<std::string> expected = {"checkpoints",
                                               "checkpoints/latest",
                                               "checkpoints/step-00000100",
                                               "checkpoints/step-00000100/manifest.json",
                                               "checkpoints/step-00000100/model.safetensors",
                                               "checkpoints/step-00000100/optimizer.safetensors"};
    EXPECT_EQ(everything(run.path()), expected);
    for (const std::string& path : {run.path(), run.path() + "/", folder, folder + "/"}) {
        const Checkpoint checkpoint = open_checkpoint(path, "--resume");
        EXPECT_EQ(checkpoint.path, folder);
        EXPECT_EQ(checkpoint.step, 100);
        EXPECT_EQ(checkpoint.state, state_of(100));
        const auto& w = checkpoint.file("model.safetensors").expect("w", DType::F32, std::vector<int64_t>{3});
        EXPECT_EQ(std::memcmp(w.bytes.data(), kWeights.data(), 12), 0);
        const auto& m = checkpoint.file("optimizer.safetensors").expect("m", DType::F64, std::vector<int64_t>{2, 2});
        EXPECT_EQ(std::memcmp(m.bytes.data(), kMoments.data(), 32), 0);
        EXPECT_TRUE(has(error_of([&] { checkpoint.file("x"); }), {folder, "'x'"}));
    }
}

TEST(Checkpoint, LatestIsTheLastWrittenAndMayBeReplaced) {
    const TempDir run;
    for (const int64_t step : {10, 20, 30}) write_step(run.path(), step);
    EXPECT_EQ(open_checkpoint(run.path(), "--resume").step, 30);
    // A run resumed from step 10 writes step 20 again, with another state.
    write_checkpoint(run.path(), 20, R"({"again":true})", files());
    const Checkpoint checkpoint = open_checkpoint(run.path(), "--resume");
    EXPECT_EQ(checkpoint.step, 20);
    EXPECT_EQ(checkpoint.state, R"({"again":true})");
    EXPECT_EQ(list_steps(run.path()), (std::vector<int64_t>{10, 20, 30}));
    for (const std::string& path : everything(run.path())) EXPECT_EQ(path.find(".tmp"), std::string::npos) << path;
}

TEST(Checkpoint, WithoutLatestTheNewestCompleteOneIsTaken) {
    const TempDir run;
    for (const int64_t step : {5, 100, 20}) write_step(run.path(), step);
    fs::create_directory(run / "checkpoints/step-00000200");  // no manifest
    fs::create_directory(run / "checkpoints/.tmp-step-00000300");
    for (const char* content :
         {"step-00000200\n", "step-0000002\n", "../../etc\n", "", "step-00000020 step-00000005\n"}) {
        run.write("checkpoints/latest", content);
        const Warnings warnings;
        EXPECT_EQ(open_checkpoint(run.path(), "--resume").step, 100) << content;
        EXPECT_TRUE(has(warnings.text(), {"--resume: ", "step-00000200' is passed over, since manifest.json is missing",
                                          "step-00000100'"}));
        EXPECT_EQ(warnings.count(), 1);
    }
    fs::remove(run / "checkpoints/latest");
    EXPECT_EQ(open_checkpoint(run.path(), "--resume").step, 100);
    fs::create_directory(run / "checkpoints/latest");
    EXPECT_EQ(open_checkpoint(run.path(), "--resume").step, 100);
}

TEST(Checkpoint, NothingToOpen) {
    const TempDir run;
    EXPECT_TRUE(has(open_error(run / "none"), {"--resume: ", run / "none", "does not exist"}));
    EXPECT_TRUE(has(open_error(run.path()), {"--resume: ", run.path(), "no complete checkpoint"}));
    fs::create_directories(run / "checkpoints/step-00000007");
    EXPECT_TRUE(has(open_error(run.path()), {"--resume: ", run.path(), "no complete checkpoint"}));
    run.write("config.toml", "");
    EXPECT_TRUE(has(open_error(run.path()), {"the run ended before its first", "--config=", "--checkpoint-every="}));
    EXPECT_TRUE(has(open_error(run / "checkpoints/step-00000007"), {"--resume: ", "manifest.json is missing"}));
    EXPECT_TRUE(has(open_error(run.write("file", "x")), {"--resume: ", run / "file"}));
}

TEST(Checkpoint, EveryChangedByteIsFoundAndItsFileNamed) {
    const TempDir run;
    const std::string folder = write_step(run.path(), 1);
    for (const std::string name : {"manifest.json", "model.safetensors", "optimizer.safetensors"}) {
        const std::string good = slurp(folder + "/" + name);
        for (size_t i = 0; i < good.size(); ++i) {
            for (const int mask : {0x01, 0x20, 0x80}) {
                std::string bytes = good;
                bytes[i] = static_cast<char>(bytes[i] ^ mask);
                run.write("checkpoints/step-00000001/" + name, bytes);
                EXPECT_TRUE(has(open_error(run.path()), {"--resume: ", folder + "/" + name, "damaged"})) << name << i;
            }
        }
        run.write("checkpoints/step-00000001/" + name, good);
    }
    EXPECT_EQ(open_checkpoint(run.path(), "--resume").step, 1);
}

TEST(Checkpoint, EveryTruncationIsFound) {
    const TempDir run;
    const std::string folder = write_step(run.path(), 1);
    for (const std::string name : {"manifest.json", "model.safetensors"}) {
        const std::string good = slurp(folder + "/" + name);
        for (size_t size = 0; size < good.size(); ++size) {
            run.write("checkpoints/step-00000001/" + name, good.substr(0, size));
            EXPECT_TRUE(has(open_error(run.path()), {"--resume: ", folder + "/" + name})) << size;
        }
        run.write("checkpoints/step-00000001/" + name, good + "x");
        EXPECT_TRUE(has(open_error(run.path()), {"--resume: ", folder + "/" + name}));
        run.write("checkpoints/step-00000001/" + name, good);
    }
}

TEST(Checkpoint, DamageIsNotPassedOverButAnotherCheckpointIsOffered) {
    const TempDir run;
    write_step(run.path(), 10);
    EXPECT_TRUE(fs::remove(write_step(run.path(), 20) + "/model.safetensors"));
    EXPECT_TRUE(has(open_error(run.path()), {"--resume: ", "step-00000020/model.safetensors' is missing",
                                             "--resume=" + run.path() + "/checkpoints/step-00000010"}));
    prune_checkpoints(run.path(), 1);
    EXPECT_TRUE(has(open_error(run.path()), {"model.safetensors' is missing", "no other checkpoint"}));
}

TEST(Checkpoint, ANewerFormatIsNamed) {
    const TempDir run;
    const std::string path = write_step(run.path(), 1) + "/manifest.json";
    std::string text = slurp(path);
    const std::string field = "\"format_version\": 1";
    text.replace(text.find(field), field.size(), "\"format_version\": 2");
    run.write("checkpoints/step-00000001/manifest.json", text);
    EXPECT_TRUE(has(open_error(run.path()), {"--resume: ", "newer train_gpt", "format 2", "or is damaged", "update"}));
    const size_t checksum = text.size() - 20;
    text.replace(checksum, 16, 16, '0');
    text.replace(checksum, 16, checksum_of(std::as_bytes(std::span(text))));
    run.write("checkpoints/step-00000001/manifest.json", text);
    const std::string message = open_error(run.path());
    EXPECT_TRUE(has(message, {"newer train_gpt", "update"}));
    EXPECT_FALSE(has(message, {"damaged"}));
}

TEST(Checkpoint, AFullDiskLeavesThePreviousOneGood) {
    const TempDir run;
    write_step(run.path(), 10);
    const auto before = everything(run.path());
    const std::vector<char> data(100'000);
    const std::vector<CheckpointFile> big = {{"model.safetensors", {{{"w", DType::U8, {100'000}}, data.data()}}}};
    for (const int64_t step : {10, 20}) {  // 10 would replace
        for (const int64_t limit : {0, 5, 50, 300, 99'000}) {
            const std::string message =
                error_with_file_limit(limit, [&] { write_checkpoint(run.path(), step, state_of(step), big); });
            EXPECT_TRUE(has(message, {"cannot write", "File too large"})) << limit;
            EXPECT_EQ(everything(run.path()), before);
            EXPECT_EQ(open_checkpoint(run.path(), "--resume").state, state_of(10));
        }
    }
    EXPECT_EQ(error_with_file_limit(200'000, [&] { write_checkpoint(run.path(), 20, state_of(20), big); }), "no error");
    EXPECT_EQ(open_checkpoint(run.path(), "--resume").step, 20);
}

TEST(Checkpoint, TooLargeForTheDiskIsSaidUpFront) {
    const TempDir run;
    write_step(run.path(), 10);
    const auto before = everything(run.path());
    const std::vector<CheckpointFile> huge = {
        {"model.safetensors", {{{"w", DType::F32, {int64_t{1} << 58}}, nullptr}}}};
    EXPECT_TRUE(has(error_of([&] { write_checkpoint(run.path(), 20, state_of(20), huge); }),
                    {"no room", run / "checkpoints", "free", "--output-dir"}));
    EXPECT_EQ(everything(run.path()), before);
}

TEST(Checkpoint, AFolderThatCannotBeWritten) {
    const TempDir run;
    run.write("file", "x");
    EXPECT_TRUE(has(error_of([&] { write_step(run / "file", 1); }), {"--output-dir", run / "file"}));
    if (geteuid() == 0) return;
    write_step(run.path(), 1);
    chmod((run / "checkpoints").c_str(), 0500);
    EXPECT_TRUE(has(error_of([&] { write_step(run.path(), 2); }), {"--output-dir", "Permission denied"}));
    chmod((run / "checkpoints").c_str(), 0700);
    EXPECT_EQ(open_checkpoint(run.path(), "--resume").step, 1);
}

TEST(Checkpoint, RemainsOfACrashAreRemoved) {
    const TempDir run;
    fs::create_directories(run / "checkpoints/.tmp-step-00000005");
    run.write("checkpoints/.tmp-step-00000005/model.safetensors", "half");
    write_step(run.path(), 10);
    EXPECT_FALSE(fs::exists(run / "checkpoints/.tmp-step-00000005"));
}

TEST(Checkpoint, PruneKeepsTheNewestAndLatest) {
    const TempDir run;
    for (const int64_t step : {10, 20, 30, 40, 50}) write_step(run.path(), step);
    run.write("checkpoints/mine.txt", "kept");
    prune_checkpoints(run.path(), 0);
    prune_checkpoints(run.path(), 9);
    EXPECT_EQ(list_steps(run.path()).size(), 5u);
    run.write("checkpoints/latest", "step-00000020\n");
    prune_checkpoints(run.path(), 2);
    EXPECT_EQ(list_steps(run.path()), (std::vector<int64_t>{20, 40, 50}));
    EXPECT_EQ(fs::exists(run / "checkpoints/mine.txt"), true);
    for (const std::string& path : everything(run.path())) EXPECT_EQ(path.find(".tmp"), std::string::npos) << path;
    prune_checkpoints(run / "none", 1);
}

TEST(Checkpoint, AnImportedModelIsNeverPruned) {
    const TempDir run;
    for (const int64_t step : {0, 1, 2, 3}) write_step(run.path(), step);
    prune_checkpoints(run.path(), 1);
    EXPECT_EQ(list_steps(run.path()), (std::vector<int64_t>{0, 3}));
}

TEST(Checkpoint, AFolderThatCannotBeReadIsNoEmptyOne) {
    const TempDir run;
    fs::create_symlink("checkpoints", run / "checkpoints");  // To itself: what even root cannot read.
    EXPECT_TRUE(has(error_of([&] { list_steps(run.path()); }), {"cannot read the folder", "checkpoints"}));
}

TEST(Checkpoint, ARunKnowsThatItHasOne) {
    const TempDir run;
    write_step(run.path(), 1);
    EXPECT_EQ(fs::exists(run / "run.json"), false);  // A run of an older program.
    write_run_record(run.path(), {"0123456789abcdef", false, std::nullopt});
    EXPECT_FALSE(read_run_record(run.path()).has_saved);
    write_step(run.path(), 2);
    EXPECT_TRUE(read_run_record(run.path()).has_saved);
    EXPECT_EQ(read_run_record(run.path()).id, "0123456789abcdef");
}

TEST(Checkpoint, TheBestIsNamedAndNeverPruned) {
    const TempDir run;
    for (const int64_t step : {1, 2, 3, 4}) write_step(run.path(), step);
    EXPECT_EQ(named_step(run.path(), kBestName), std::nullopt);
    name_checkpoint(run.path(), kBestName, 1);
    name_checkpoint(run.path(), kBestName, 2);
    EXPECT_EQ(slurp(run / "checkpoints/best"), "step-00000002\n");
    prune_checkpoints(run.path(), 1);
    EXPECT_EQ(list_steps(run.path()), (std::vector<int64_t>{2, 4}));
    EXPECT_EQ(newest_step(run.path()), 4);
}

// Whoever it names could be among them.
TEST(Checkpoint, WhereANameCannotBeReadNothingIsPruned) {
    for (const char* name : {kLatestName, kBestName}) {
        const TempDir run;
        for (const int64_t step : {1, 2, 3}) write_step(run.path(), step);
        const std::string path = run / "checkpoints/" + name;
        fs::remove(path);
        fs::create_directory(path);  // What even root cannot read.
        EXPECT_EQ(named_step(run.path(), name), std::nullopt);
        EXPECT_TRUE(has(error_of([&] { read_named_step(run.path(), name); }), {path, "cannot read"}));
        EXPECT_TRUE(has(error_of([&] { prune_checkpoints(run.path(), 1); }), {path, "cannot read"}));
        EXPECT_EQ(list_steps(run.path()).size(), 3u);
        prune_checkpoints(run.path(), 3);  // None is to be removed.
        fs::remove(path);
        prune_checkpoints(run.path(), 1);
        EXPECT_EQ(list_steps(run.path()), (std::vector<int64_t>{3}));
    }
}

TEST(Checkpoint, RemainsOfAPruningThatWasKilledAreInNobodysWay) {
    const TempDir run;
    for (const int64_t step : {1, 2}) write_step(run.path(), step);
    fs::create_directories(run / "checkpoints/.tmp-pruned-step-00000001");
    run.write("checkpoints/.tmp-pruned-step-00000001/model.safetensors", "half");
    prune_checkpoints(run.path(), 1);
    EXPECT_EQ(list_steps(run.path()), (std::vector<int64_t>{2}));
    for (const std::string& path : everything(run.path())) EXPECT_EQ(path.find(".tmp"), std::string::npos) << path;
}

TEST(CheckpointFolder, StepNames) {
    EXPECT_EQ(step_name(100), "step-00000100");
    EXPECT_EQ(step_from_name("step-00000100"), 100);
    EXPECT_EQ(step_from_name("step-123456789"), 123456789);
    for (const char* name :
         {"", "step-", "step-100", "step-00000100x", "step--0000001", "xstep-00000100", "step-000000001"}) {
        EXPECT_FALSE(step_from_name(name).has_value()) << name;
    }
}

TEST(Manifest, KeepsTheBitsOfNumbers) {
    const double lr = 6e-4 / 3;
    const Manifest manifest = {7, {{"a", 1, "x"}}, nlohmann::json({{"lr", lr}}).dump()};
    const Manifest read = parse_manifest(manifest_text(manifest), "m");
    EXPECT_EQ(nlohmann::json::parse(read.state)["lr"].get<double>(), lr);
    EXPECT_EQ(read.step, 7);
    EXPECT_EQ(read.files[0].name, "a");
}

TEST(Manifest, NamesNothingOutsideItsFolder) {
    for (const std::string name : {"", "..", "../a", "/etc/passwd", "a/b", "a/"}) {
        const Manifest manifest = {7, {{name, 1, "x"}}, "{}"};
        const std::string error = error_of([&] { parse_manifest(manifest_text(manifest), "m"); });
        EXPECT_NE(error.find("'m' names '" + name + "', which is not a file of its folder"), std::string::npos);
    }
}

}  // namespace
}  // namespace llmc
