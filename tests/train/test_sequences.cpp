#include "llmc/train/sequences.h"

#include "llmc/train/data_loader.h"
#include "tests/io/temp_dir.h"
#include "tests/train/marked_source.h"

#include <gtest/gtest.h>

#include <map>
#include <set>

namespace llmc {
namespace {

constexpr int64_t kT = 12;

std::vector<MarkedRow> rows() {
    std::vector<MarkedRow> rows;
    for (int32_t i = 0; i < 50; ++i) rows.push_back(row_of(100 * i, 2 + i % 15, 1 + i % 4));
    return rows;
}

SequenceSettings settings(const std::string& pack) { return {pack, kT, 10'000, 3, "--data"}; }

struct Row {
    std::vector<int32_t> tokens = std::vector<int32_t>(kT), targets = tokens, documents, numbers = tokens;
};

Row read(const Sequences& sequences, int64_t number) {
    Row row;
    if (sequences.packed()) row.documents.resize(kT);
    sequences.read(number, {row.tokens, row.targets, row.documents, row.numbers});
    return row;
}

/// Rows that sequences hold, cut apart again by where documents begin, and what of them counts.
std::multiset<std::vector<int32_t>> contents(const Sequences& sequences, int64_t first, int64_t count) {
    std::multiset<std::vector<int32_t>> found;
    for (int64_t s = first; s < first + count; ++s) {
        const Row row = read(sequences, s);
        int64_t scored = 0;
        for (int64_t slot = 0; slot < kT;) {
            int64_t end = slot + 1;
            while (end < kT && (row.documents.empty() || row.documents[end] == row.documents[slot])) ++end;
            EXPECT_TRUE(row.documents.empty() || row.documents[slot] == slot);
            std::vector<int32_t> document;
            for (int64_t i = slot; i < end; ++i) {
                document.push_back(row.tokens[i]);
                document.push_back(row.targets[i]);
                if (row.targets[i] < 0) continue;
                ++scored;
                EXPECT_EQ(row.targets[i], row.tokens[i] + 1);
            }
            const bool is_padding = std::all_of(document.begin(), document.end(), [](int32_t id) { return id <= 0; });
            if (!is_padding) found.insert(document);
            slot = end;
        }
        EXPECT_EQ(sequences.scored(s), scored);
        EXPECT_GT(scored, 0);
    }
    return found;
}

/// Without what fills a sequence behind a document.
std::vector<int32_t> without_padding(std::vector<int32_t> document) {
    while (document.size() > 1 && document.back() == -1 && document[document.size() - 2] == 0) {
        document.resize(document.size() - 2);
    }
    return document;
}

std::multiset<std::vector<int32_t>> expected_contents() {
    std::multiset<std::vector<int32_t>> expected;
    for (const MarkedRow& row : rows()) {
        std::vector<int32_t> document;
        bool counts = false;
        for (size_t i = 0; i + 1 < row.ids.size() && i < kT; ++i) {
            document.push_back(row.ids[i]);
            document.push_back(row.scored[i + 1] != 0 ? row.ids[i + 1] : -1);
            counts = counts || row.scored[i + 1] != 0;
        }
        if (counts) expected.insert(document);
    }
    return expected;
}

TEST(DocumentSequences, AnEpochHasEveryRowOnceInAnOrderOfItsOwn) {
    const MarkedSource source(rows());
    for (const char* pack : {"auto", "documents", "none"}) {
        const auto sequences = training_sequences(TokenRange(source), settings(pack));
        EXPECT_EQ(sequences->packed(), std::string(pack) != "none");
        EXPECT_TRUE(sequences->partly_scored());
        const int64_t count = sequences->per_epoch();
        std::set<std::vector<std::vector<int32_t>>> orders;
        for (int64_t epoch = 0; epoch < 3; ++epoch) {
            std::multiset<std::vector<int32_t>> found;
            for (const auto& document : contents(*sequences, epoch * count, count))
                found.insert(without_padding(document));
            EXPECT_EQ(found, expected_contents()) << pack;
            std::vector<std::vector<int32_t>> order;
            for (int64_t s = 0; s < count; ++s) order.push_back(read(*sequences, epoch * count + s).tokens);
            orders.insert(order);
        }
        EXPECT_EQ(orders.size(), 3u) << pack;
    }
}

/// By the first token of a document, which no other has: its numbers in the first epochs.
std::map<int32_t, std::vector<int32_t>> numbers_of(const Sequences& sequences, int64_t epochs) {
    std::map<int32_t, std::vector<int32_t>> numbers;
    for (int64_t s = 0; s < epochs * sequences.per_epoch(); ++s) {
        const Row row = read(sequences, s);
        for (size_t slot = 0; slot < kT; ++slot) {
            const size_t start = row.documents.empty() ? 0 : static_cast<size_t>(row.documents[slot]);
            EXPECT_TRUE(row.numbers[slot] == row.numbers[start] || row.numbers[slot] == -1);
            if (slot == start && row.numbers[slot] != -1) numbers[row.tokens[slot]].push_back(row.numbers[slot]);
        }
    }
    return numbers;
}

/// What masks are drawn by: no two documents, and no two epochs, have the same, and packing changes none.
TEST(DocumentSequences, ADocumentsNumberIsItsOwnHoweverItIsPacked) {
    const MarkedSource source(rows());
    const auto packed = numbers_of(*training_sequences(TokenRange(source), settings("documents")), 3);
    EXPECT_EQ(packed, numbers_of(*training_sequences(TokenRange(source), settings("none")), 3));
    std::set<int32_t> different;
    size_t count = 0;
    for (const auto& [token, numbers] : packed) {
        EXPECT_EQ(numbers.size(), 3u) << token;
        different.insert(numbers.begin(), numbers.end()), count += numbers.size();
    }
    EXPECT_EQ(different.size(), count);
    EXPECT_EQ(count, 3 * expected_contents().size());
}

TEST(DocumentSequences, PackedTakeFewerSequences) {
    const MarkedSource source(rows());
    const auto packed = training_sequences(TokenRange(source), settings("documents"));
    const auto alone = training_sequences(TokenRange(source), settings("none"));
    EXPECT_EQ(alone->per_epoch(), static_cast<int64_t>(expected_contents().size()));
    EXPECT_LT(packed->per_epoch() * 4, alone->per_epoch() * 3);
}

TEST(DocumentSequences, TheSameAtAnyBatchSizeAndNumberOfRanks) {
    const MarkedSource source(rows());
    const auto sequences = training_sequences(TokenRange(source), settings("documents"));
    std::vector<std::vector<int32_t>> streams;
    for (const auto& [B, ranks] : {std::pair(12, 1), std::pair(1, 1), std::pair(2, 3), std::pair(3, 4)}) {
        std::vector<std::unique_ptr<DataLoader>> loaders;
        for (int rank = 0; rank < ranks; ++rank)
            loaders.push_back(std::make_unique<DataLoader>(*sequences, B, Stripe{rank, ranks}));
        std::vector<int32_t> stream;
        for (int64_t read = 0; read < 48;) {
            for (const auto& loader : loaders) {
                const Batch& batch = loader->next();
                EXPECT_EQ(batch.first_sequence, read);
                for (const auto* part : {&batch.tokens, &batch.targets, &batch.documents})
                    EXPECT_EQ(part->size(), static_cast<size_t>(B * kT));
                for (int64_t b = 0; b < B; ++b) {
                    for (const auto* part : {&batch.tokens, &batch.targets, &batch.documents})
                        stream.insert(stream.end(), part->begin() + b * kT, part->begin() + (b + 1) * kT);
                }
                read += B;
            }
        }
        streams.push_back(stream);
    }
    for (const auto& stream : streams) EXPECT_EQ(stream, streams[0]);
    EXPECT_EQ(scored_in(*sequences, 3, 2), sequences->scored(3) + sequences->scored(4));
}

TEST(DocumentSequences, ValidationIsSpreadAndTheSameEveryTime) {
    const MarkedSource source(rows());
    const auto all = validation_sequences(TokenRange(source), settings("documents"), 1000);
    EXPECT_EQ(all->per_epoch(), training_sequences(TokenRange(source), settings("documents"))->per_epoch());
    std::multiset<std::vector<int32_t>> found;
    for (const auto& document : contents(*all, 0, all->per_epoch())) found.insert(without_padding(document));
    EXPECT_EQ(found, expected_contents());
    const auto some = validation_sequences(TokenRange(source), settings("documents"), 5);
    EXPECT_EQ(some->per_epoch(), 5);
    std::set<std::vector<int32_t>> distinct;
    for (int64_t s = 0; s < 5; ++s) {
        distinct.insert(read(*some, s).tokens);
        EXPECT_EQ(read(*some, s).tokens, read(*some, s + 5).tokens);
    }
    EXPECT_EQ(distinct.size(), 5u);
}

TEST(DocumentSequences, TextIsAStreamUnlessItIsToBePacked) {
    const TempDir dir;
    const auto source = open_token_source(dir.write("a.txt", std::string(1000, 'x')), "--data");
    const auto stream = training_sequences(TokenRange(*source), settings("auto"));
    EXPECT_FALSE(stream->packed() || stream->partly_scored());
    EXPECT_EQ(stream->scored(7), kT);
    EXPECT_EQ(scored_in(*stream, 0, 10), 10 * kT);
    const auto packed = training_sequences(TokenRange(*source), settings("documents"));
    EXPECT_TRUE(packed->packed());
    EXPECT_EQ(packed->per_epoch(), (1000 - 1 + kT - 1) / kT);
}

TEST(DocumentSequences, NothingThatCountsIsRefused) {
    const MarkedSource silent({row_of(1, 4, 9), row_of(1, 30, 20)});
    EXPECT_TRUE(has(error_of([&] { training_sequences(TokenRange(silent), settings("auto")); }),
                    {"--data: 2 rows", "nothing counts in the first 13 tokens", "longer --seq-len"}));
    EXPECT_TRUE(has(error_of([&] { validation_sequences(TokenRange(silent, 0, 4), settings("auto"), 3); }),
                    {"1 row, of which nothing counts in the first 13 tokens"}));
}

TEST(DocumentSequences, ATokenBeyondTheVocabularyIsNamed) {
    const MarkedSource source({row_of(9'990, 12, 1)});
    const auto sequences = training_sequences(TokenRange(source), settings("auto"));
    EXPECT_TRUE(has(error_of([&] { read(*sequences, 0); }), {"token 10000", "'rows' at token 10", "--vocab-size"}));
}

TEST(SplitOffValidation, CutsBetweenRows) {
    const MarkedSource source(rows());
    const TokenSplit split = split_off_validation(source, kT);
    EXPECT_EQ(split.train.size() + split.validation.size(), source.size());
    EXPECT_EQ(split.validation.first(), split.train.size());
    uint8_t mark = 0;
    split.validation.read_marks(0, {&mark, 1});
    EXPECT_NE(mark & kDocumentStart, 0);
    EXPECT_GE(split.validation.size(), source.size() / 20);
    EXPECT_LE(split.validation.size(), source.size() / 20 + 17);
}

TEST(SplitOffValidation, NeedsTwoRows) {
    const MarkedSource two({row_of(1, 100, 1), row_of(1, 2, 1)}), other({row_of(1, 2, 1), row_of(1, 100, 1)});
    EXPECT_EQ(split_off_validation(two, kT).validation.size(), 2);
    EXPECT_EQ(split_off_validation(other, kT).train.size(), 2);
    const MarkedSource one({row_of(1, 100, 1)});
    EXPECT_TRUE(
        has(error_of([&] { split_off_validation(one, kT); }), {"--data", "one row is too little", "--val-data"}));
}

}  // namespace
}  // namespace llmc
