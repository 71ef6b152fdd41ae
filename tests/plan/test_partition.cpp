// Who owns what: every element of every parameter belongs to one rank, whatever the number of ranks.
#include "llmc/plan/partition.h"

#include "tests/plan/plan_cases.h"

#include <gtest/gtest.h>

#include <numeric>

namespace llmc {
namespace {

using namespace plan_cases;

const std::vector<int> kRanks = {1, 2, 3, 4, 7, 8, 64, 1000};

std::vector<Model> models() {
    std::vector<Model> all;
    for (const Family family : kFamilies) {
        for (const int L : {1, 2, 5}) all.push_back(small_model(family, L));
    }
    all.push_back(make_model(preset("gpt2")));
    all.push_back(make_model(preset("llama3.2-1b")));
    return all;
}

std::string where(const Model& model, int ranks) {
    return model.config.name + ", L = " + std::to_string(model.config.L) + ", " + std::to_string(ranks) + " ranks";
}

TEST(Partition, BucketsAreTheEmbeddingTheLayersAndTheRest) {
    for (const Model& model : models()) {
        const Partition partition = make_partition(model, 4);
        ASSERT_EQ(partition.buckets.size(), static_cast<size_t>(model.config.L) + 2);
        for (int row = 0; row < static_cast<int>(model.parameters.size()); ++row) {
            const std::string& name = model.parameters[static_cast<size_t>(row)].name;
            const int bucket = partition.bucket_of_row(row);
            if (name == "wte" || name == "wpe") {
                EXPECT_EQ(bucket, partition.embedding_bucket()) << name;
            } else if (name.starts_with("layers.")) {
                EXPECT_EQ(bucket, partition.layer_bucket(std::stoi(name.substr(7)))) << name;
            } else {
                EXPECT_EQ(bucket, partition.last_bucket()) << name;
            }
            const Bucket& found = partition.bucket(bucket);
            EXPECT_GE(row, found.first_row);
            EXPECT_LT(row, found.first_row + found.rows);
        }
    }
}

TEST(Partition, RowsLieInTheirBucketsOneAfterTheOther) {
    for (const Model& model : models()) {
        const Partition partition = make_partition(model, 3);
        int64_t end = 0;
        for (int row = 0; row < static_cast<int>(model.parameters.size()); ++row) {
            const ParameterRow& parameter = model.parameters[static_cast<size_t>(row)];
            const Bucket& bucket = partition.bucket(partition.bucket_of_row(row));
            const int64_t begin = partition.row_in_bucket(model, row);
            EXPECT_EQ(begin == 0, row == bucket.first_row) << parameter.name;
            EXPECT_GE(begin, row == bucket.first_row ? 0 : end) << parameter.name;
            EXPECT_EQ(begin % 64, 0) << parameter.name;
            end = begin + parameter.count();
            EXPECT_LE(end, bucket.used) << parameter.name;
        }
    }
}

TEST(Partition, PiecesAreWholeChunksAndPaddingIsLessThanAChunkPerRank) {
    for (const Model& model : models()) {
        const Partition one = make_partition(model, 1);
        for (const int ranks : kRanks) {
            const Partition partition = make_partition(model, ranks);
            int64_t elements = 0, shard_elements = 0, most_chunks = 0;
            for (size_t i = 0; i < partition.buckets.size(); ++i) {
                const Bucket& bucket = partition.buckets[i];
                EXPECT_EQ(bucket.chunk, one.buckets[i].chunk) << "depends on the ranks: " << where(model, ranks);
                EXPECT_EQ(bucket.used, one.buckets[i].used);
                EXPECT_EQ(bucket.chunk % 128, 0);
                EXPECT_LE(bucket.chunks(), kNormChunks);
                EXPECT_EQ(bucket.piece % bucket.chunk, 0);
                EXPECT_GE(ranks * bucket.piece, bucket.used);
                EXPECT_LT(ranks * bucket.piece, bucket.used + (ranks + 1) * bucket.chunk) << where(model, ranks);
                EXPECT_EQ(bucket.offset, elements);
                EXPECT_EQ(bucket.shard_offset, shard_elements);
                EXPECT_EQ(partition.bucket_elements(static_cast<int>(i)), ranks * bucket.piece);
                elements += ranks * bucket.piece;
                shard_elements += bucket.piece;
                most_chunks = std::max(most_chunks, bucket.piece / bucket.chunk);
            }
            EXPECT_EQ(partition.elements, elements);
            EXPECT_EQ(partition.shard_elements, shard_elements);
            EXPECT_EQ(partition.chunks_per_piece, most_chunks);
            EXPECT_LE(partition.chunks_per_piece, ceil_div(kNormChunks, ranks));
        }
    }
}

TEST(Partition, BigBucketsHaveAboutAllTheirChunks) {
    const Partition partition = make_partition(make_model(preset("gpt2")), 8);
    EXPECT_GT(partition.bucket(0).chunks(), kNormChunks * 9 / 10);
    EXPECT_GT(partition.bucket(1).chunks(), kNormChunks * 9 / 10);
    EXPECT_EQ(partition.bucket(partition.last_bucket()).chunks(), 2 * 768 / 128);
}

TEST(Partition, EveryUsedElementHasOneOwner) {
    for (const Model& model : models()) {
        for (const int ranks : kRanks) {
            const Partition partition = make_partition(model, ranks);
            for (int row = 0; row < static_cast<int>(model.parameters.size()); ++row) {
                const ParameterRow& parameter = model.parameters[static_cast<size_t>(row)];
                const int64_t piece = partition.bucket(partition.bucket_of_row(row)).piece;
                const int64_t first = partition.row_in_bucket(model, row);
                int64_t end = 0;
                for (int rank = 0; rank < ranks; ++rank) {
                    const ElementRange range = partition.owned(model, row, rank);
                    if (range.count() == 0) continue;
                    ASSERT_EQ(range.begin, end) << where(model, ranks) << ", " << parameter.name << ", rank " << rank;
                    ASSERT_GE(first + range.begin, rank * piece);
                    ASSERT_LE(first + range.end, (rank + 1) * piece);
                    end = range.end;
                }
                ASSERT_EQ(end, parameter.used_rows * parameter.cols) << where(model, ranks) << ", " << parameter.name;
            }
        }
    }
}

TEST(PartitionDeathTest, ThereIsAtLeastOneRank) {
    EXPECT_DEATH(make_partition(small_model(Family::Gpt2, 1), 0), "check failed");
}

}  // namespace
}  // namespace llmc
