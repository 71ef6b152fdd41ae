#include "llmc/base/file.h"
#include "llmc/io/checkpoint_folder.h"
#include "llmc/io/constant_file.h"
#include "tests/io/temp_dir.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cstring>

namespace llmc {
namespace {

namespace fs = std::filesystem;

const std::vector<float> kFrozen = {0.5f, -1.25f, 3.0f, 8.0f}, kTrained = {1, 2};

CheckpointFile frozen_of(const std::vector<float>& values = kFrozen) {
    return {"model-frozen.safetensors", {{{"w", DType::F32, {static_cast<int64_t>(values.size())}}, values.data()}}};
}

/// A checkpoint with the file and another, which changes.
std::string write_step(const std::string& root, int64_t step, ConstantFile& constant, const CheckpointFile& file) {
    const CheckpointFile other = {"model.safetensors", {{{"b", DType::F32, {2}}, kTrained.data()}}};
    CheckpointWriter writer(root, step, constant.bytes_to_write(root, file) + 8);
    std::vector<ManifestFile> files = {constant.put(root, writer.folder(), file)};
    files.push_back(write_checkpoint_file(writer.folder(), other));
    return writer.commit("{}", std::move(files));
}

std::string frozen_path(const TempDir& run, int64_t step) {
    return checkpoints_folder(run.path()) + "/" + step_name(step) + "/model-frozen.safetensors";
}

bool are_one(const std::string& a, const std::string& b) { return fs::equivalent(a, b); }

float first_value(const std::string& folder) {
    float value = 0;
    const Checkpoint checkpoint = open_checkpoint(folder, "--resume");
    std::memcpy(&value, checkpoint.file("model-frozen.safetensors").tensors()[0].bytes.data(), sizeof value);
    return value;
}

/// As a bad disk does it.
void flip_last_byte(const std::string& path) {
    std::string content = slurp(path);
    content.back() ^= 1;
    const auto later = fs::last_write_time(path) + std::chrono::seconds(1);
    std::ofstream(path, std::ios::binary) << content;
    fs::last_write_time(path, later);  // Clocks of file systems are coarse.
}

TEST(ConstantFile, IsWrittenOnceAndInEveryCheckpoint) {
    const TempDir run;
    ConstantFile constant;
    EXPECT_EQ(constant.bytes_to_write(run.path(), frozen_of()), 16);
    write_step(run.path(), 1, constant, frozen_of());
    EXPECT_EQ(constant.bytes_to_write(run.path(), frozen_of()), 0);
    write_step(run.path(), 2, constant, frozen_of());
    EXPECT_TRUE(are_one(frozen_path(run, 1), frozen_path(run, 2)));
    ConstantFile of_a_resumed_run;
    EXPECT_EQ(of_a_resumed_run.bytes_to_write(run.path(), frozen_of()), 0);
    write_step(run.path(), 3, of_a_resumed_run, frozen_of());
    EXPECT_EQ(fs::hard_link_count(frozen_path(run, 3)), 3U);
    prune_checkpoints(run.path(), 1);
    EXPECT_EQ(fs::hard_link_count(frozen_path(run, 3)), 1U);
    EXPECT_EQ(first_value(run.path()), 0.5f);
}

TEST(ConstantFile, ACheckpointOfTheSameStepIsReplaced) {
    const TempDir run;
    ConstantFile constant;
    write_step(run.path(), 1, constant, frozen_of());
    write_step(run.path(), 1, constant, frozen_of());
    EXPECT_EQ(fs::hard_link_count(frozen_path(run, 1)), 1U);
    EXPECT_EQ(first_value(run.path()), 0.5f);
}

// A process that was killed before its checkpoint was complete has left its link, and nobody could remove that.
TEST(ConstantFile, WhatIsLeftIsNotWrittenThrough) {
    const TempDir run;
    ConstantFile constant, other;
    write_step(run.path(), 1, constant, frozen_of());
    const std::vector<float> others = {9, 9, 9, 9};
    CheckpointWriter writer(run.path(), 2, other.bytes_to_write(run.path(), frozen_of(others)));
    fs::create_hard_link(frozen_path(run, 1), writer.folder() + "/model-frozen.safetensors");
    other.put(run.path(), writer.folder(), frozen_of(others));
    EXPECT_EQ(first_value(run.path()), 0.5f);
}

TEST(ConstantFile, OtherContentIsNotShared) {
    const TempDir run;
    ConstantFile first, second;
    write_step(run.path(), 1, first, frozen_of());
    const std::vector<float> others = {0.5f, -1.25f, 3.0f, 9.0f};
    EXPECT_EQ(second.bytes_to_write(run.path(), frozen_of(others)), 16);
    write_step(run.path(), 2, second, frozen_of(others));
    EXPECT_FALSE(are_one(frozen_path(run, 1), frozen_path(run, 2)));
    CheckpointFile renamed = frozen_of();
    renamed.tensors[0].entry.name = "v";
    EXPECT_EQ(ConstantFile().bytes_to_write(run.path(), renamed), 16);
    CheckpointFile more = frozen_of();
    more.tensors.push_back({{"x", DType::F32, {2}}, kTrained.data()});
    EXPECT_EQ(ConstantFile().bytes_to_write(run.path(), more), 24);
}

TEST(ConstantFile, ADamagedOneIsNotHandedOn) {
    const TempDir run;
    ConstantFile constant;
    write_step(run.path(), 1, constant, frozen_of());
    write_step(run.path(), 2, constant, frozen_of());
    flip_last_byte(frozen_path(run, 1));  // Of both, which are one.
    write_step(run.path(), 3, constant, frozen_of());
    EXPECT_EQ(fs::hard_link_count(frozen_path(run, 3)), 1U);
    EXPECT_EQ(first_value(run.path()), 0.5f);
    EXPECT_NE(error_of([&] { first_value(checkpoints_folder(run.path()) + "/" + step_name(2)); }).find("is damaged"),
              std::string::npos);
}

TEST(ConstantFile, AStepFolderIsCompleteElsewhere) {
    const TempDir run, elsewhere;
    ConstantFile constant;
    write_step(run.path(), 1, constant, frozen_of());
    const std::string second = write_step(run.path(), 2, constant, frozen_of());
    fs::copy(second, elsewhere / "step-00000002", fs::copy_options::recursive);
    fs::remove_all(checkpoints_folder(run.path()));
    EXPECT_EQ(first_value(elsewhere / "step-00000002"), 0.5f);
}

}  // namespace
}  // namespace llmc
