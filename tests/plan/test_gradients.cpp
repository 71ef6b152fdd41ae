// Gradients of parameters, element by element: over a whole update, the first that touches an element defines it, what
// comes later adds to it, and nothing is left undefined where the sums are used.
#include "llmc/plan/gradients.h"

#include "llmc/plan/communicate.h"
#include "llmc/plan/simulate.h"
#include "llmc/plan/verify.h"
#include "tests/plan/plan_cases.h"

#include <gtest/gtest.h>
#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <string>
#include <vector>

namespace llmc {
namespace {

using namespace plan_cases;

constexpr BatchShape kShape = {3, 7};  // T is far less than maxT = 512; 48 channels leave gaps behind vectors.

enum class Element : uint8_t { Undefined, Zeroed, Written };

/// One flat buffer of gradients, by bucket.
class Map {
  public:
    explicit Map(const Partition& partition) {
        for (int bucket = 0; bucket <= partition.last_bucket(); ++bucket) {
            elements_.emplace_back(static_cast<size_t>(partition.bucket_elements(bucket)), Element::Undefined);
        }
    }
    std::vector<Element>& bucket(int index) { return elements_[static_cast<size_t>(index)]; }

    /// Whether all elements of a range were undefined, or none was.
    bool none_defined(int index, const ElementRange& range) { return undefined(index, range) == range.count(); }
    bool all_defined(int index, const ElementRange& range) { return undefined(index, range) == 0; }
    bool all_defined(int index) { return all_defined(index, {0, static_cast<int64_t>(bucket(index).size())}); }
    void set(int index, const ElementRange& range, Element value) {
        std::fill(bucket(index).begin() + range.begin, bucket(index).begin() + range.end, value);
    }
    void forget() {
        for (std::vector<Element>& elements : elements_)
            std::fill(elements.begin(), elements.end(), Element::Undefined);
    }

  private:
    int64_t undefined(int index, const ElementRange& range) {
        const std::vector<Element>& elements = bucket(index);
        return std::count(elements.begin() + range.begin, elements.begin() + range.end, Element::Undefined);
    }
    std::vector<std::vector<Element>> elements_;
};

/// Rows that a step writes whole, by what the operations are; apart from what plans are made by.
std::vector<std::pair<int, int64_t>> written_by(const Model& model, const Step& step) {
    const auto whole = [&](int row) {
        return std::pair<int, int64_t>(row, row == kNone ? 0 : model.parameters[static_cast<size_t>(row)].count());
    };
    if (step.kind != StepKind::Compute || step.pass == Pass::Forward || step.pass == Pass::BackwardInput) return {};
    if (step.op == OpKind::Embedding) return {{model.wpe, model.wpe == kNone ? 0 : kShape.T * model.config.C}};
    if (step.op == OpKind::Classifier) return {whole(model.head)};
    if (step.row < 0 && step.op == model.norm) return {whole(model.lnf_weight), whole(model.lnf_bias)};
    if (step.row < 0) return {};
    const OpRow& row = model.block[static_cast<size_t>(step.row)];
    return {whole(model.parameter_index(step.layer, row.weight)), whole(model.parameter_index(step.layer, row.bias))};
}

/// Walks the micro-batches of an update and keeps the maps.
class Walk {
  public:
    Walk(const Model& model, const Plan& plan)
        : model_(model),
          plan_(plan),
          pieces_(plan.places.in_pieces(Buffer::Gradients)),
          to_zero_(ranges_to_zero(model, plan)),
          work_(plan.partition),
          kept_(plan.partition),
          folds_(plan.parallel.rank_invariant && plan.parallel.micro_batches > 1) {}

    /// What is wrong; empty if nothing.
    std::string run() {
        const int64_t count = plan_.parallel.micro_batches;
        for (int64_t i = 0; i < count; ++i) {
            const Turn turn = {.first = i == 0, .last = i == count - 1};
            if (pieces_ || plan_.parallel.rank_invariant) work_.forget();  // They live for a micro-batch.
            if (plan_.parallel.rank_invariant) kept_.forget();
            for (const Step& step : plan_.steps) {
                if (!runs(step, turn)) continue;
                const std::string fault = take(step, turn);
                if (!fault.empty()) return fmt::format("micro-batch {}, {}: {}", i, describe_step(model_, step), fault);
            }
        }
        return "";
    }
    Map& work() { return work_; }

  private:
    std::string take(const Step& step, Turn turn) {
        const int bucket = step.bucket;
        switch (step.kind) {
            case StepKind::Compute: return write(step, turn);
            case StepKind::ZeroGradients: return zero(step);
            case StepKind::Reduce: return work_.all_defined(bucket) ? "" : "reduces what is undefined";
            case StepKind::WaitReduce:
                if (!pieces_) return "";
                if (adds(step, turn) != kept_.all_defined(bucket)) return "adds to nothing, or overwrites";
                kept_.set(bucket, {0, plan_.partition.bucket_elements(bucket)}, Element::Written);
                return "";
            case StepKind::FoldGradients:
                ++folded_;
                for (int b = 0; b <= plan_.partition.last_bucket(); ++b) {
                    if (!sums().all_defined(b)) return "folds what is undefined";
                }
                return "";
            case StepKind::SquareSums:
                if (folds_ && folded_ != plan_.parallel.micro_batches)
                    return "comes before all micro-batches are folded";
                return sums().all_defined(bucket) ? "" : "sums up what is undefined";
            default: return "";
        }
    }

    Map& sums() { return pieces_ ? kept_ : work_; }

    std::string write(const Step& step, Turn turn) {
        for (const auto& [row, elements] : written_by(model_, step)) {
            if (row == kNone) continue;
            const int bucket = plan_.partition.bucket_of_row(row);
            const int64_t first = plan_.partition.row_in_bucket(model_, row);
            const ElementRange range = {first, first + elements};
            if (adds(step, turn)) {
                if (!work_.all_defined(bucket, range)) return "adds to what is undefined";
            } else if (!work_.none_defined(bucket, range)) {
                return "overwrites";
            }
            work_.set(bucket, range, Element::Written);
        }
        if (step.op != OpKind::Embedding || step.pass == Pass::Forward) return "";
        const ElementRange rows = {0, model_.parameters[static_cast<size_t>(model_.wte)].count()};
        return work_.all_defined(0, rows) ? "" : "adds to rows that are undefined";
    }

    std::string zero(const Step& step) {
        int64_t elements = 0;
        for (const ElementRange& range : to_zero_[static_cast<size_t>(step.bucket)]) {
            if (!work_.none_defined(step.bucket, range)) return "zeroes what is there";
            work_.set(step.bucket, range, Element::Zeroed);
            elements += range.count();
        }
        return elements == step.elements ? "" : "says another number of elements";
    }

    const Model& model_;
    const Plan& plan_;
    const bool pieces_;
    const std::vector<std::vector<ElementRange>> to_zero_;
    Map work_, kept_;  ///< What the backward writes; where a rank keeps only its pieces, those.
    const bool folds_;
    int64_t folded_ = 0;
};

/// Zeroed are an untied embedding's rows, positions beyond T, and what belongs to no parameter: nothing else.
void expect_only_the_rest_zeroed(const Model& model, const Partition& partition, Map& map) {
    for (int b = 0; b <= partition.last_bucket(); ++b) {
        std::vector<bool> zeroed(map.bucket(b).size(), true);
        const Bucket& bucket = partition.bucket(b);
        for (int row = bucket.first_row; row < bucket.first_row + bucket.rows; ++row) {
            const ParameterRow& parameter = model.parameters[static_cast<size_t>(row)];
            int64_t written = parameter.count();
            if (row == model.wte && !model.config.tied) written = 0;
            if (row == model.wpe) written = kShape.T * model.config.C;
            const auto first = zeroed.begin() + partition.row_in_bucket(model, row);
            std::fill(first, first + written, false);
        }
        int64_t wrong = 0;
        for (size_t i = 0; i < zeroed.size(); ++i) wrong += zeroed[i] != (map.bucket(b)[i] == Element::Zeroed);
        EXPECT_EQ(wrong, 0) << "bucket " << b;
    }
}

TEST(GradientWrites, DefineEveryElementOnceInEveryUpdate) {
    int plans = 0;
    for (const Model& model : small_models(2)) {
        for (int ranks = 1; ranks <= 4; ++ranks) {
            for (int zero = 0; zero <= (ranks > 1 ? 3 : 0); ++zero) {
                for (const bool invariant : {false, true}) {
                    for (const PolicyRow& policy : policies()) {
                        PlanRequest request = request_of_ranks(model, kShape, DType::F32, ranks, zero);
                        request.logits_chunk_tokens = 8;  // Three chunks write the head's gradient.
                        request.parallel.rank_invariant = invariant;
                        request.parallel.micro_batches = 1 + (plans + zero) % 3;
                        const Plan plan = make_training_plan(model, request, policy);
                        const std::string where =
                            fmt::format("{}, {}, {} ranks, ZeRO {}, {}{} micro-batches, {}", model.config.name,
                                        model.config.tied ? "tied" : "untied", ranks, zero,
                                        invariant ? "rank-invariant, " : "", plan.parallel.micro_batches, policy.name);
                        Walk walk(model, plan);
                        ASSERT_EQ(walk.run(), "") << where;
                        ASSERT_EQ(find_fault(model, plan, make_layout(plan)), "") << where;
                        expect_only_the_rest_zeroed(model, plan.partition, walk.work());
                        ASSERT_FALSE(HasFailure()) << where;
                        ++plans;
                    }
                }
            }
        }
    }
    EXPECT_EQ(plans, 4 * (1 + 3 * 4) * 2 * 6);
}

TEST(GradientWrites, OfPlansThatAreDamagedLeaveOrOverwriteSomething) {
    // The walk above sees what it is there to see: each step that begins gradients made to add, each that adds made to
    // overwrite, and each that zeroes left out.
    for (const Model& model : small_models(2)) {
        for (const int zero : {0, 2}) {
            PlanRequest request = request_of_ranks(model, kShape, DType::F32, 3, zero);
            request.logits_chunk_tokens = 8;
            const Plan plan = make_training_plan(model, request, find_policy("layer"));
            int damaged = 0;
            for (size_t i = 0; i < plan.steps.size(); ++i) {
                Plan bad = plan;
                if (plan.steps[i].kind == StepKind::ZeroGradients) {
                    bad.steps.erase(bad.steps.begin() + static_cast<int64_t>(i));
                } else if (!rows_written(model, plan, plan.steps[i]).empty()) {
                    bad.steps[i].adds = plan.steps[i].adds == Adds::Always ? Adds::Never : Adds::Always;
                } else {
                    continue;
                }
                EXPECT_NE(Walk(model, bad).run(), "") << describe_step(model, plan.steps[i]);
                ++damaged;
            }
            EXPECT_GT(damaged, 15);
        }
    }
}

TEST(GradientWrites, OfSequencesAsLongAsTheModelLeaveNoPositionToZero) {
    ModelConfig config = small_config(Family::Gpt2, 1);
    config.maxT = 7;
    const Model model = make_model(config);
    const Plan plan = make_training_plan(model, request_of(model, kShape, DType::F32), find_policy("none"));
    int64_t rows = 0;
    for (const int row : {model.wte, model.wpe}) rows += model.parameters[static_cast<size_t>(row)].count();
    for (const Step& step : plan.steps) {
        if (step.kind != StepKind::ZeroGradients || step.bucket != 0) continue;
        EXPECT_EQ(step.elements, plan.partition.bucket_elements(0) - rows) << "gaps and padding only";
    }
}

TEST(GradientWrites, ABucketWithoutGapsIsNotZeroed) {
    // 128 channels, and everything a multiple of it: only positions beyond T and, untied, the embedding's rows are
    // left.
    for (const Family family : kFamilies) {
        for (const bool tied : {true, false}) {
            if (family == Family::Gpt2 && !tied) continue;
            ModelConfig config = small_config(family, 2);
            config.tied = tied, config.C = 128, config.NH = config.NKV = 2, config.HD = 64, config.F = 256;
            config.maxT = 7;
            const Model model = make_model(config);
            const Plan plan = make_training_plan(model, request_of(model, kShape, DType::F32), find_policy("layer"));
            std::vector<int> zeroed;
            for (const Step& step : plan.steps) {
                if (step.kind == StepKind::ZeroGradients) zeroed.push_back(step.bucket);
            }
            EXPECT_EQ(zeroed, tied ? std::vector<int>{} : std::vector<int>{0}) << config.name;
        }
    }
}

TEST(GradientWrites, ZeroingStandsBeforeTheFirstWriterOfItsBucket) {
    for (const Model& model : small_models(3)) {
        const Plan plan =
            make_training_plan(model, request_of_ranks(model, kShape, DType::F32, 3, 2), find_policy("sqrt"));
        std::vector<bool> met(plan.partition.buckets.size(), false);
        for (size_t i = 0; i < plan.steps.size(); ++i) {
            const Step& step = plan.steps[i];
            if (step.kind == StepKind::ZeroGradients) {
                EXPECT_FALSE(met[static_cast<size_t>(step.bucket)]);
                ASSERT_TRUE(writes_gradients(model, plan.steps[i + 1]));
                EXPECT_EQ(bucket_of(model, plan.partition, plan.steps[i + 1]), step.bucket);
                EXPECT_EQ(step.phase, plan.steps[i + 1].phase);
            }
            if (writes_gradients(model, step)) met[static_cast<size_t>(bucket_of(model, plan.partition, step))] = true;
        }
        EXPECT_EQ(std::count(met.begin(), met.end(), true), 5);
    }
}

TEST(RowsWritten, AreThoseOfTheOperations) {
    for (const Model& model : small_models(2)) {
        const Plan plan = make_training_plan(model, request_of(model, kShape, DType::F32), find_policy("none"));
        for (const Step& step : plan.steps) {
            std::vector<std::pair<int, int64_t>> expected = written_by(model, step), found;
            std::erase_if(expected, [](const auto& row) { return row.first == kNone; });
            for (const WrittenRow& row : rows_written(model, plan, step))
                found.emplace_back(row.parameter, row.elements);
            EXPECT_EQ(found, expected) << describe_step(model, step);
        }
    }
}

TEST(GradientWrites, EvaluationAndGenerationWriteNone) {
    for (const Model& model : small_models(2)) {
        const PlanRequest request = request_of(model, {1, 7}, DType::F32);
        for (const Plan& plan : {make_evaluation_plan(model, request), make_generation_plan(model, request, 40)}) {
            EXPECT_FALSE(plan.trains());
            for (const Step& step : plan.steps) {
                EXPECT_EQ(step.kind, StepKind::Compute);
                EXPECT_FALSE(writes_gradients(model, step));
                EXPECT_EQ(step.when, When::Always);
            }
        }
    }
}

}  // namespace
}  // namespace llmc
