// The table of facts about operations, against what the passes of each are known to do.
#include "llmc/model/op.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

namespace llmc {
namespace {

constexpr Pass kPasses[] = {Pass::Forward, Pass::Backward, Pass::BackwardWeight, Pass::BackwardInput};

OpKind kind_at(int i) { return static_cast<OpKind>(i); }

bool is_product(OpKind kind) {
    return kind == OpKind::Matmul || kind == OpKind::Classifier || kind == OpKind::AdapterDown ||
           kind == OpKind::AdapterUp;
}

/// Whether a pass of an operation exists.
bool exists(OpKind kind, Pass pass) {
    if (pass == Pass::Forward) return true;
    if (kind == OpKind::LossSum) return false;
    return is_product(kind) == (pass != Pass::Backward);
}

TEST(OpFacts, EveryKindHasItsRowAndAName) {
    std::set<std::string> names;
    for (int i = 0; i < kNumOpKinds; ++i) {
        EXPECT_EQ(facts_of(kind_at(i)).kind, kind_at(i));
        names.emplace(name_of(kind_at(i)));
    }
    EXPECT_EQ(names.size(), static_cast<size_t>(kNumOpKinds));
    EXPECT_FALSE(names.contains(""));
}

TEST(OpFacts, OnlyPassesThatExistDoAnything) {
    for (int i = 0; i < kNumOpKinds; ++i) {
        for (const Pass pass : kPasses) {
            const PassFacts& facts = facts_of(kind_at(i), pass);
            const bool moves = facts.in + facts.residual + facts.out + facts.weight + facts.weight_sums > 0;
            EXPECT_EQ(moves, exists(kind_at(i), pass)) << name_of(kind_at(i)) << ", pass " << static_cast<int>(pass);
            if (exists(kind_at(i), pass)) continue;
            EXPECT_FALSE(facts.reads_parameters || facts.writes_gradients);
            EXPECT_EQ(facts.products, 0);
        }
        EXPECT_EQ(facts_of(kind_at(i)).splits_backward, exists(kind_at(i), Pass::BackwardWeight));
    }
}

TEST(OpFacts, WhoHasParametersReadsThemAndWritesTheirGradients) {
    for (int i = 0; i < kNumOpKinds; ++i) {
        const OpKind kind = kind_at(i);
        const bool norm = kind == OpKind::LayerNorm || kind == OpKind::RmsNorm || kind == OpKind::HeadNorm;
        const bool product = is_product(kind);
        const bool has = norm || product || kind == OpKind::Embedding;
        EXPECT_EQ(facts_of(kind, Pass::Forward).reads_parameters, has) << name_of(kind);
        EXPECT_FALSE(facts_of(kind, Pass::Forward).writes_gradients) << name_of(kind);
        EXPECT_EQ(facts_of(kind, Pass::Backward).reads_parameters, norm) << name_of(kind);
        EXPECT_EQ(facts_of(kind, Pass::Backward).writes_gradients, norm || kind == OpKind::Embedding) << name_of(kind);
        EXPECT_FALSE(facts_of(kind, Pass::BackwardWeight).reads_parameters) << name_of(kind);
        EXPECT_EQ(facts_of(kind, Pass::BackwardWeight).writes_gradients, product) << name_of(kind);
        EXPECT_EQ(facts_of(kind, Pass::BackwardInput).reads_parameters, product) << name_of(kind);
        EXPECT_FALSE(facts_of(kind, Pass::BackwardInput).writes_gradients) << name_of(kind);
    }
}

TEST(OpFacts, BackwardReadsWhatItsFormulaNeeds) {
    for (int i = 0; i < kNumOpKinds; ++i) {
        const OpKind kind = kind_at(i);
        const BackwardReads& reads = facts_of(kind).backward_reads;
        const bool heads = kind == OpKind::HeadNorm, attention = kind == OpKind::Attention;
        const bool norm = kind == OpKind::LayerNorm || kind == OpKind::RmsNorm || heads;
        const bool gelu = kind == OpKind::Gelu || kind == OpKind::GeluExact, function = gelu || kind == OpKind::Swiglu;
        const bool product = is_product(kind) && kind != OpKind::Classifier;  // Whose chunks are another matter.
        EXPECT_EQ(reads.in, norm || attention || function || product) << name_of(kind);
        EXPECT_EQ(reads.out, attention) << name_of(kind);
        EXPECT_EQ(reads.stats, norm || attention) << name_of(kind);
        EXPECT_EQ(facts_of(kind).d_in_replaces_d_out, gelu || heads) << name_of(kind);
        EXPECT_EQ(facts_of(kind).d_in_replaces_in, attention) << name_of(kind);
    }
}

TEST(OpFacts, ProductsAreThoseOfTheFormulas) {
    for (int i = 0; i < kNumOpKinds; ++i) {
        const OpKind kind = kind_at(i);
        const bool product = is_product(kind), attention = kind == OpKind::Attention;
        EXPECT_EQ(facts_of(kind, Pass::Forward).products, product ? 1 : attention ? 2 : 0) << name_of(kind);
        EXPECT_EQ(facts_of(kind, Pass::Backward).products, attention ? 5 : 0) << name_of(kind);
        EXPECT_EQ(facts_of(kind, Pass::BackwardWeight).products, product ? 1 : 0) << name_of(kind);
        EXPECT_EQ(facts_of(kind, Pass::BackwardInput).products, product ? 1 : 0) << name_of(kind);
    }
}

}  // namespace
}  // namespace llmc
