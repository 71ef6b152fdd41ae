// Checkpoints hold formats exactly, and are loaded into any other.
#include "llmc/train/checkpointing.h"

#include "llmc/backend/make_backend.h"
#include "llmc/base/dynamic_map.h"
#include "llmc/base/error.h"
#include "llmc/base/rng.h"
#include "tests/io/temp_dir.h"
#include "tests/run/formats_cases.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <vector>

namespace llmc {
namespace {

constexpr Kept kAll[] = {Kept::Weights, Kept::MomentM, Kept::MomentV};

const Model& model() {
    static const Model made = make_model(formats_run(Family::Gpt2, DType::F32, {}).config);
    return made;
}

State state_in(Backend& backend, DType dtype, const StateFormats& formats, const Parallel& parallel = {}, int rank = 0,
               int zero = 0) {
    return State(backend, model(), with_formats(places_of_zero(zero, parallel.ranks, dtype), formats), 16, 0,
                 /*training=*/true, parallel, rank);
}

/// Anything, in every row; squares where they belong.
void fill(State& state) {
    for (int index = 0; index < static_cast<int>(model().parameters.size()); ++index) {
        const ElementRange held = state.held(index);
        std::vector<float> values(static_cast<size_t>(held.count()));
        for (const Kept what : kAll) {
            fill_normal(values.data(), held.count(), 1, 5, RngStream::Test, static_cast<uint32_t>(index),
                        static_cast<uint64_t>(held.begin));
            for (float& value : values) value *= what == Kept::MomentV ? value : 0.01f;
            if (held.count() > 0) state.write_kept(what, index, held, values.data());
        }
    }
    state.round_masters();
}

std::vector<std::byte> bytes_of(const State& state, const Tensor& tensor) {
    std::vector<std::byte> bytes(static_cast<size_t>(tensor.bytes()));
    if (tensor) state.backend().copy_to_host(bytes.data(), tensor);
    return bytes;
}

std::vector<float> values_of(const State& state, Kept what, int index) {
    const ElementRange held = state.held(index);
    std::vector<float> values(static_cast<size_t>(held.count()));
    state.read_kept(what, index, held, values.data());
    return values;
}

Progress progress_in(DType dtype, const StateFormats& formats) {
    Progress progress;
    progress.step = 3, progress.updates = 3, progress.tokenizer = "bytes", progress.dtype = name_of(dtype);
    progress.optimizer = "adamw", progress.formats = formats;
    return progress;
}

TEST(CheckpointFormats, AreKeptExactly) {
    Comm alone;
    const auto backend = make_backend("cpu", 1);
    for (const auto& [dtype, formats] : all_state_formats()) {
        const TempDir dir;
        State state = state_in(*backend, dtype, formats), loaded = state_in(*backend, dtype, formats);
        fill(state);
        ASSERT_TRUE(save_checkpoint(dir.path(), state, progress_in(dtype, formats), alone).ok());
        const Checkpoint checkpoint = open_checkpoint(dir.path(), "--resume");
        EXPECT_EQ(progress_of(checkpoint).formats, formats);
        load_checkpoint(checkpoint, loaded);
        for (int index = 0; index < static_cast<int>(model().parameters.size()); ++index)
            for (const Kept what : kAll) {
                const ElementRange held = state.held(index);
                EXPECT_EQ(bytes_of(state, state.kept(what, index, held)),
                          bytes_of(loaded, loaded.kept(what, index, held)))
                    << words(dtype, formats) << ", " << model().parameters[static_cast<size_t>(index)].name;
                EXPECT_EQ(bytes_of(state, state.kept_scales(what, index, held)),
                          bytes_of(loaded, loaded.kept_scales(what, index, held)));
            }
        int64_t on_disk = 0;
        for (const auto& entry : std::filesystem::directory_iterator(checkpoint.path)) {
            if (entry.path().extension() == ".safetensors") on_disk += static_cast<int64_t>(entry.file_size());
        }
        EXPECT_LE(checkpoint_bytes(state).alone(), on_disk) << words(dtype, formats);
        EXPECT_LE(on_disk - checkpoint_bytes(state).alone(), 16384) << "headers, " << words(dtype, formats);
    }
}

/// Every format into every other: a value differs by what the two formats round.
TEST(CheckpointFormats, AreConvertedIntoOneAnother) {
    Comm alone;
    const auto backend = make_backend("cpu", 1);
    for (const DType from : {DType::F32, DType::BF16, DType::U8}) {
        const TempDir dir;
        const StateFormats stored = {from, from != DType::BF16, DType::F32};
        State state = state_in(*backend, DType::BF16, stored);
        fill(state);
        ASSERT_TRUE(save_checkpoint(dir.path(), state, progress_in(DType::BF16, stored), alone).ok());
        const Checkpoint checkpoint = open_checkpoint(dir.path(), "--resume");
        for (const DType to : {DType::F32, DType::BF16, DType::U8})
            for (const bool masters : {true, false}) {
                State loaded = state_in(*backend, DType::BF16, {to, masters, DType::F32});
                load_checkpoint(checkpoint, loaded);
                for (int index = 0; index < static_cast<int>(model().parameters.size()); ++index)
                    for (const Kept what : kAll) {
                        const std::vector<float> before = values_of(state, what, index),
                                                 after = values_of(loaded, what, index);
                        const DType kept = loaded.kept(what, index, loaded.held(index)).dtype;
                        double largest = 0;
                        for (const float value : before) largest = std::max(largest, double{std::fabs(value)});
                        for (size_t i = 0; i < before.size(); ++i) {
                            const double step = kept == DType::F32    ? 0
                                                : kept == DType::BF16 ? std::fabs(before[i]) / 256
                                                                      : largest * 0.9 / 128;
                            ASSERT_LE(std::fabs(before[i] - after[i]), 1.001 * step)
                                << format_name(from) << " to " << format_name(to) << ", "
                                << model().parameters[static_cast<size_t>(index)].name;
                        }
                    }
            }
    }
}

/// Written by three ranks, each its pieces, and loaded by one, and by two.
TEST(CheckpointFormats, OfSeveralRanksAreTheWhole) {
    const StateFormats formats = {DType::U8, true, DType::F32};
    const auto backend = make_backend("cpu", 1);
    const TempDir dir;
    Parallel three;
    three.ranks = 3;
    std::vector<Meeting> meetings = make_meetings(3);
    std::vector<std::thread> threads;
    for (int rank = 0; rank < 3; ++rank) {
        threads.emplace_back([&, rank] {
            const auto end = [](const std::string& line) { ADD_FAILURE() << line; };
            Comm comm(std::make_unique<Control>(std::move(meetings[static_cast<size_t>(rank)]), kPatient, end));
            const auto own = make_backend("cpu", 1);
            State state = state_in(*own, DType::F32, formats, three, rank, 2);
            fill(state);
            EXPECT_TRUE(save_checkpoint(dir.path(), state, progress_in(DType::F32, formats), comm).ok());
            comm.finish();
        });
    }
    for (std::thread& thread : threads) thread.join();
    const Checkpoint checkpoint = open_checkpoint(dir.path(), "--resume");
    State whole = state_in(*backend, DType::F32, formats), expected = state_in(*backend, DType::F32, formats);
    fill(expected);
    load_checkpoint(checkpoint, whole);
    Parallel two;
    two.ranks = 2;
    for (int index = 0; index < static_cast<int>(model().parameters.size()); ++index)
        for (const Kept what : kAll) {
            const std::vector<float> all = values_of(whole, what, index);
            EXPECT_EQ(all, values_of(expected, what, index)) << model().parameters[static_cast<size_t>(index)].name;
            for (int rank = 0; rank < 2; ++rank)
                for (const DType moments : {DType::U8, DType::F32}) {
                    if (index > 4 && moments == DType::F32) continue;
                    State piece = state_in(*backend, DType::F32, {moments, true, DType::F32}, two, rank, 1);
                    load_checkpoint(checkpoint, piece);
                    const ElementRange held = piece.held(index);
                    if (held.count() <= 0) continue;
                    const std::vector<float> part = values_of(piece, what, index);
                    EXPECT_TRUE(std::equal(part.begin(), part.end(), all.begin() + held.begin)) << rank;
                }
        }
}

TEST(CheckpointFormats, WhatCannotBeConvertedIsNamed) {
    Comm alone;
    const auto backend = make_backend("cpu", 1);
    const TempDir dir;
    State state = state_in(*backend, DType::F32, {});
    fill(state);
    const auto error_with = [&](const std::string& dtype, const std::string& scales) {
        Progress progress = progress_in(DType::F32, {DType::U8, true, DType::F32});
        State small = state_in(*backend, DType::F32, progress.formats);
        fill(small);
        EXPECT_TRUE(save_checkpoint(dir.path(), small, progress, alone).ok());
        Checkpoint checkpoint = open_checkpoint(dir.path(), "--resume");
        const std::string path = checkpoint.path + "/optimizer.safetensors";
        std::string bytes = slurp(path);
        for (const auto& [from, to] :
             {std::pair(std::string("\"dtype\":\"U8\""), dtype), {std::string(".absmax"), scales}})
            for (size_t at = bytes.find(from); at != std::string::npos && !to.empty(); at = bytes.find(from, at + 1))
                bytes.replace(at, from.size(), to);
        dir.write("changed.safetensors", bytes);
        checkpoint.files.at("optimizer.safetensors") = SafetensorsFile(dir / "changed.safetensors");
        return error_of([&] { load_checkpoint(checkpoint, state); });
    };
    EXPECT_TRUE(has(error_with("\"dtype\":\"I8\"", ""), {"m.wte", "I8", "cannot convert"}));
    EXPECT_TRUE(has(error_with("", ".absmix"), {"no tensor 'm.wte.absmax'"}));
}

}  // namespace
}  // namespace llmc
