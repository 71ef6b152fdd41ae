// The state: bytes of every buffer at every ZeRO stage, where rows and pieces lie, and what a rank keeps.
#include "llmc/run/state.h"
#include "tests/backend/null_backend.h"

#include <gtest/gtest.h>

#include <vector>

namespace llmc {
namespace {

ModelConfig config_of(Family family, int64_t L, int64_t V = 97) {
    ModelConfig config = config_of(family);
    config.name = "tiny";
    config.L = L, config.C = 24, config.NH = 4, config.NKV = family == Family::Gpt2 ? 4 : 2, config.HD = 6;
    config.F = 56, config.V = V, config.maxT = 64;
    config.tied = family == Family::Gpt2;
    return config;
}

constexpr Family kBoth[] = {Family::Gpt2, Family::Llama};

Parallel ranks_of(int ranks) {
    Parallel parallel;
    parallel.ranks = ranks;
    return parallel;
}

/// All that a rank updates of a bucket.
UpdateViews updated(const State& state, int bucket) {
    const Partition& partition = state.partition();
    const bool in_pieces = state.places().updates_pieces();
    return state
        .update_views(bucket, {0, in_pieces ? partition.bucket(bucket).piece : partition.bucket_elements(bucket)})
        .front();
}

TEST(StateBytes, CountEveryBufferByHand) {
    const auto padded = [](int64_t bytes) { return (bytes + 255) / 256 * 256; };
    for (const Family family : kBoth) {
        const Model model = make_model(config_of(family, 3));
        for (const int ranks : {1, 2, 3}) {
            const Partition partition = make_partition(model, ranks);
            for (int zero = 0; zero <= (ranks > 1 ? 3 : 0); ++zero) {
                const auto count = [&](int stage) {
                    return zero >= stage ? partition.shard_elements : partition.elements;
                };
                const Parallel parallel = ranks_of(ranks);
                const StateBytes fp32 = state_bytes(model, places_of_zero(zero, ranks, DType::F32), 32, parallel, true);
                EXPECT_EQ(fp32.parameters, padded(4 * count(3)));
                EXPECT_EQ(fp32.gradients, padded(4 * count(2)));
                EXPECT_EQ(fp32.moment_m, padded(4 * count(1)));
                EXPECT_EQ(fp32.moment_v, fp32.moment_m);
                EXPECT_EQ(fp32.master, 0);
                EXPECT_EQ(fp32.partial_sums, 0);
                EXPECT_EQ(fp32.rope_table, family == Family::Gpt2 ? 0 : padded(32 * 6 * 4));
                EXPECT_EQ(fp32.scalars, 6 * 256 + padded(8 * 5 * ranks * partition.chunks_per_piece));
                const StateBytes bf16 =
                    state_bytes(model, places_of_zero(zero, ranks, DType::BF16), 32, parallel, true);
                EXPECT_EQ(bf16.parameters, padded(2 * count(3)));
                EXPECT_EQ(bf16.master, padded(4 * count(1))) << "rounded parameters need fp32 masters";
                EXPECT_EQ(bf16.gradients, fp32.gradients);
            }
        }
        for (const DType dtype : {DType::F32, DType::BF16}) {
            const StateBytes inference = state_bytes(model, dtype, 32, {}, false);
            EXPECT_EQ(inference.total(), inference.parameters + inference.rope_table + 256) << "and the sum of losses";
            EXPECT_LT(inference.total(), state_bytes(model, dtype, 32, {}, true).total());
        }
    }
}

TEST(StateBytes, OneSumWaitsPerLevelOfTheTreeOverMicroBatches) {
    const auto sums = [](int64_t micro_batches) {
        Parallel parallel;
        parallel.rank_invariant = true, parallel.micro_batches = micro_batches;
        return partial_sum_count(parallel);
    };
    const int expected[] = {0, 0, 1, 2, 2, 3, 3, 3, 3, 4};
    for (int64_t n = 1; n < 10; ++n) EXPECT_EQ(sums(n), expected[n]) << n;
    EXPECT_EQ(partial_sum_count({}), 0);
}

TEST(StateBuffers, AllocateExactlyWhatIsPlanned) {
    for (const Family family : kBoth) {
        const Model model = make_model(config_of(family, 2));
        for (int zero = 0; zero <= 3; ++zero) {
            for (const DType dtype : {DType::F32, DType::BF16}) {
                const Places places = places_of_zero(zero, 3, dtype);
                Parallel parallel = ranks_of(3);
                parallel.rank_invariant = true, parallel.micro_batches = 5;
                NullBackend backend;
                const State state(backend, model, places, 16, 512, true, parallel, /*rank=*/1);
                EXPECT_EQ(state.allocated_bytes(), backend.allocated_bytes());
                EXPECT_EQ(state.allocated_bytes(), state_bytes(model, places, 16, parallel, true).total() + 512);
            }
        }
    }
}

TEST(StateBuffers, MastersExistInBf16Only) {
    const Model model = make_model(config_of(Family::Gpt2, 2));
    NullBackend backend;
    const State fp32(backend, model, DType::F32, 16, 256, true);
    EXPECT_FALSE(fp32.all(Buffer::Masters));
    EXPECT_EQ(fp32.kept(Kept::Weights, 3, fp32.held(3)).data, fp32.parameter(3).data);
    State bf16(backend, model, DType::BF16, 16, 256, true);
    ASSERT_TRUE(bf16.all(Buffer::Masters));
    EXPECT_EQ(bf16.all(Buffer::Masters).dtype, DType::F32);
    EXPECT_EQ(bf16.all(Buffer::Parameters).dtype, DType::BF16);
    EXPECT_NE(bf16.kept(Kept::Weights, 3, bf16.held(3)).data, bf16.parameter(3).data);
    EXPECT_EQ(backend.count("convert"), 0);
    bf16.initialise(1);
    EXPECT_EQ(backend.count("convert"), 4) << "parameters are the rounded masters, bucket by bucket";
}

TEST(StateBuffers, InferenceHoldsParametersOnly) {
    const Model model = make_model(config_of(Family::Llama, 2));
    NullBackend backend;
    const State state(backend, model, DType::F32, 16, 256, false);
    EXPECT_TRUE(state.parameter(0));
    EXPECT_TRUE(state.rope_table());
    EXPECT_FALSE(state.gradient(0));
    EXPECT_FALSE(state.all(Buffer::MomentM));
    EXPECT_FALSE(state.all(Buffer::Masters));
    EXPECT_EQ(state.allocated_bytes(), backend.allocated_bytes());
}

TEST(StateBuffers, RowsLieInTheirBuckets) {
    const Model model = make_model(config_of(Family::Llama, 3));
    NullBackend backend;
    for (const DType dtype : {DType::F32, DType::BF16}) {
        const State state(backend, model, dtype, 16, 256, true);
        for (int index = 0; index < static_cast<int>(model.parameters.size()); ++index) {
            const ParameterRow& row = model.parameters[static_cast<size_t>(index)];
            const Bucket& bucket = state.partition().bucket(state.partition().bucket_of_row(index));
            const int64_t expected = bucket.offset + state.partition().row_in_bucket(model, index);
            const std::pair<Tensor, Tensor> pairs[] = {{state.parameter(index), state.all(Buffer::Parameters)},
                                                       {state.gradient(index), state.all_gradients()}};
            for (const auto& [tensor, flat] : pairs) {
                const auto offset = static_cast<char*>(tensor.data) - static_cast<char*>(flat.data);
                EXPECT_EQ(offset, expected * size_of(flat.dtype)) << row.name;
                EXPECT_EQ(tensor.shape[0], row.rows);
                EXPECT_EQ(tensor.shape[1], row.cols);
                EXPECT_EQ(tensor.dtype, flat.dtype);
                EXPECT_EQ(reinterpret_cast<uintptr_t>(tensor.data) % 64, 0u) << row.name;
            }
            EXPECT_EQ(state.gradient(index).dtype, DType::F32);
        }
        EXPECT_FALSE(state.parameter(kNone));
        EXPECT_EQ(state.grad_norm().dtype, DType::F64);
    }
}

/// Every element of every row is kept by exactly one rank, inside that rank's piece.
TEST(StateBuffers, RanksKeepEveryElementOnce) {
    for (const Family family : kBoth) {
        const Model model = make_model(config_of(family, 2));
        for (const int ranks : {2, 3, 5}) {
            for (int zero = 1; zero <= 3; ++zero) {
                for (int index = 0; index < static_cast<int>(model.parameters.size()); ++index) {
                    const ParameterRow& row = model.parameters[static_cast<size_t>(index)];
                    int64_t next = 0;
                    for (int rank = 0; rank < ranks; ++rank) {
                        NullBackend backend;
                        const State state(backend, model, places_of_zero(zero, ranks, DType::BF16), 16, 256, true,
                                          ranks_of(ranks), rank);
                        const ElementRange range = state.held(index);
                        if (range.count() <= 0) continue;
                        EXPECT_EQ(range.begin, next) << row.name;
                        next = range.end;
                        const UpdateViews views = updated(state, state.partition().bucket_of_row(index));
                        const std::pair<Kept, Tensor> flats[] = {{Kept::Weights, views.operands.master},
                                                                 {Kept::MomentM, views.operands.m},
                                                                 {Kept::MomentV, views.operands.v}};
                        for (const auto& [what, flat] : flats) {
                            const Tensor kept = state.kept(what, index, range);
                            EXPECT_GE(kept.data, flat.data);
                            EXPECT_LE(static_cast<char*>(kept.data) + kept.bytes(),
                                      static_cast<char*>(flat.data) + flat.bytes());
                        }
                    }
                    EXPECT_EQ(next, row.used_rows * row.cols) << row.name;
                }
            }
        }
    }
}

/// The ranges of all ranks' updates cover what one rank alone updates, with the same decay.
TEST(StateBuffers, UpdatesOfPiecesAreTheWholeUpdate) {
    const Model model = make_model(config_of(Family::Gpt2, 2));
    const int ranks = 3;
    const Partition partition = make_partition(model, ranks);
    for (int b = 0; b <= partition.last_bucket(); ++b) {
        std::vector<int> whole(static_cast<size_t>(partition.bucket_elements(b)), -1), pieces = whole;
        for (const ParameterRange& range : parameter_ranges(model, partition, b)) {
            for (int64_t i = 0; i < range.count; ++i) whole[static_cast<size_t>(range.offset + i)] = range.decay;
        }
        for (int rank = 0; rank < ranks; ++rank) {
            NullBackend backend;
            const State state(backend, model, places_of_zero(1, ranks, DType::F32), 16, 256, true, ranks_of(ranks),
                              rank);
            const UpdateViews views = updated(state, b);
            for (const ParameterRange& range : views.ranges) {
                for (int64_t i = 0; i < range.count; ++i) {
                    pieces[static_cast<size_t>(rank * partition.bucket(b).piece + range.offset + i)] = range.decay;
                }
            }
        }
        EXPECT_EQ(pieces, whole) << "bucket " << b;
    }
}

TEST(ParameterRanges, CoverEveryParameterOnceWithItsDecay) {
    for (const Family family : kBoth) {
        const Model model = make_model(config_of(family, 3, 300));
        const Partition partition = make_partition(model, 1);
        for (int b = 0; b <= partition.last_bucket(); ++b) {
            const std::vector<ParameterRange> ranges = parameter_ranges(model, partition, b);
            int64_t end = 0;
            for (const ParameterRange& range : ranges) {
                EXPECT_GE(range.offset, end);
                end = range.offset + range.count;
            }
            EXPECT_LE(end, partition.bucket_elements(b));
            for (int index = partition.bucket(b).first_row;
                 index < partition.bucket(b).first_row + partition.bucket(b).rows; ++index) {
                const ParameterRow& row = model.parameters[static_cast<size_t>(index)];
                const int64_t first = partition.row_in_bucket(model, index);
                int covered = 0;
                for (const ParameterRange& range : ranges) {
                    if (first < range.offset || first + row.count() > range.offset + range.count) continue;
                    ++covered;
                    EXPECT_EQ(range.decay, row.decay) << row.name;
                }
                EXPECT_EQ(covered, 1) << row.name;
            }
        }
    }
}

}  // namespace
}  // namespace llmc
