#include "llmc/train/packing.h"

#include "llmc/base/rng.h"
#include "tests/train/marked_source.h"

#include <gtest/gtest.h>

#include <numeric>

namespace llmc {
namespace {

/// Text of documents of these lengths, each behind its separator 0; other tokens are their positions.
class Text final : public TokenSource {
  public:
    explicit Text(const std::vector<int64_t>& lengths) {
        for (const int64_t length : lengths) {
            ids_.push_back(0);
            for (int64_t i = 1; i < length; ++i) ids_.push_back(static_cast<int32_t>(ids_.size()));
        }
    }
    int64_t size() const override { return static_cast<int64_t>(ids_.size()); }
    void read(int64_t position, std::span<int32_t> out) const override {
        std::copy_n(ids_.begin() + position, out.size(), out.begin());
    }
    std::string where(int64_t) const override { return "'text'"; }
    int32_t vocab_size() const override { return 1 << 30; }
    int32_t end_of_text() const override { return 0; }
    std::string tokenizer() const override { return "none"; }
    std::string describe() const override { return "text of a test"; }

  private:
    std::vector<int32_t> ids_;
};

Documents documents_of(const std::vector<int32_t>& slots) {
    Documents documents;
    int64_t first = 0;
    for (const int32_t count : slots) {
        documents.list.push_back({first, count + 1, count});
        first += count + 1;
    }
    return documents;
}

std::vector<std::vector<int32_t>> slots_of(const Packing& packing) {
    std::vector<std::vector<int32_t>> sequences;
    for (int64_t s = 0; s < packing.sequences(); ++s) {
        sequences.emplace_back();
        for (int64_t i = packing.begins[static_cast<size_t>(s)]; i < packing.begins[static_cast<size_t>(s) + 1]; ++i) {
            sequences.back().push_back(packing.documents[static_cast<size_t>(i)].slots());
        }
    }
    return sequences;
}

TEST(FindDocuments, RowsKeepTheirBeginningAndNeedATargetThatCounts) {
    // Nothing counts; the first token never does; too long, with and without something in what is kept.
    const MarkedSource source(
        {row_of(1, 4, 2), row_of(1, 3, 9), row_of(1, 1, 0), row_of(1, 9, 4), row_of(1, 9, 7), row_of(1, 2, 0)});
    const Documents found = find_documents(TokenRange(source), 5);
    EXPECT_TRUE(found.marked);
    EXPECT_EQ(found.list, (std::vector<Document>{{0, 4, 2}, {8, 6, 2}, {26, 2, 1}}));
    EXPECT_EQ(found.counts.documents, 6);
    EXPECT_EQ(found.counts.cut, 2);
    EXPECT_EQ(found.counts.dropped, 3);
}

TEST(FindDocuments, OfTextEveryTargetIsThereOnce) {
    const std::vector<int64_t> lengths = {7, 1, 23, 2, 1, 10, 11, 12};
    const Text source(lengths);
    for (const int64_t T : {1, 4, 10, 11, 100}) {
        const Documents found = find_documents(TokenRange(source), T);
        EXPECT_FALSE(found.marked);
        EXPECT_EQ(found.counts.documents, static_cast<int64_t>(lengths.size()));
        EXPECT_EQ(found.counts.dropped, 0);
        std::vector<int> times(static_cast<size_t>(source.size()), 0);
        for (const Document& document : found.list) {
            ASSERT_LE(document.slots(), T);
            EXPECT_EQ(document.scored, document.slots());
            for (int64_t i = 1; i < document.tokens; ++i) ++times[static_cast<size_t>(document.first + i)];
        }
        EXPECT_EQ(times[0], 0);
        EXPECT_EQ(std::count(times.begin() + 1, times.end(), 1), source.size() - 1) << "T = " << T;
    }
}

/// The walk over the marks is cut into blocks, which documents may cross.
TEST(FindDocuments, OfAnyLength) {
    const Text source({1'500'000, 3, 1'200'000});
    const Documents found = find_documents(TokenRange(source), 2'000'000);
    EXPECT_EQ(found.list,
              (std::vector<Document>{{0, 1'500'001, 1'500'000}, {1'500'000, 4, 3}, {1'500'003, 1'200'000, 1'199'999}}));
}

TEST(Pack, LongestFirstWhereTheyFitBest) {
    EXPECT_EQ(slots_of(pack_documents(documents_of({2, 5, 3, 1, 4, 3}), 9)),
              (std::vector<std::vector<int32_t>>{{5, 4}, {3, 3, 2, 1}}));
    // The 3 goes to the 6, not to the 5 that was there before.
    EXPECT_EQ(slots_of(pack_documents(documents_of({5, 6, 3}), 9)), (std::vector<std::vector<int32_t>>{{6, 3}, {5}}));
    EXPECT_EQ(slots_of(pack_documents(documents_of({9, 9, 9}), 9)), (std::vector<std::vector<int32_t>>{{9}, {9}, {9}}));
}

TEST(Pack, EveryDocumentOnceAndLittleRoomLeft) {
    constexpr int64_t T = 128;
    std::vector<int32_t> slots;
    for (uint64_t i = 0; i < 5000; ++i)
        slots.push_back(1 + static_cast<int32_t>(philox(5, RngStream::Test, 0, i)[0] % (i % 3 == 0 ? 128 : 40)));
    const int64_t total = std::accumulate(slots.begin(), slots.end(), int64_t{0});
    for (const int64_t at_a_time : {100, 1024, 1 << 18}) {
        const Packing packing = pack_documents(documents_of(slots), T, at_a_time);
        EXPECT_TRUE(packing.several);
        std::vector<int64_t> firsts;
        for (const Document& document : packing.documents) firsts.push_back(document.first);
        std::sort(firsts.begin(), firsts.end());
        std::vector<int64_t> expected;
        for (const Document& document : documents_of(slots).list) expected.push_back(document.first);
        EXPECT_EQ(firsts, expected);
        for (const auto& sequence : slots_of(packing)) {
            EXPECT_LE(std::accumulate(sequence.begin(), sequence.end(), int64_t{0}), T);
        }
        const double filled = static_cast<double>(total) / static_cast<double>(packing.sequences() * T);
        EXPECT_GT(filled, at_a_time == 100 ? 0.9 : 0.99) << at_a_time;
    }
}

TEST(Pack, OneByOneLeavesThemAsTheyAre) {
    const Packing packing = one_by_one(documents_of({2, 5, 3}));
    EXPECT_FALSE(packing.several);
    EXPECT_EQ(slots_of(packing), (std::vector<std::vector<int32_t>>{{2}, {5}, {3}}));
    EXPECT_EQ(packing.scored(1), 5);
}

TEST(Pack, IsDescribed) {
    const MarkedSource source({row_of(1, 4, 2), row_of(1, 3, 9), row_of(1, 9, 4)});
    const std::string text = describe(pack_documents(find_documents(TokenRange(source), 5), 5), 5);
    EXPECT_EQ(text,
              "3 rows in 2 sequences of 5 tokens, which they fill to 80.0 %; 4 of 8 targets count (50.0 %); 1 longer "
              "than that, of which the first 6 tokens are kept; 1 left out, since nothing of them counts or is left");
}

}  // namespace
}  // namespace llmc
