// How a run comes to the algorithms of its matrix products: on devices whose libraries name some, and form nothing.
#include "llmc/train/gemm_choice.h"

#include "llmc/base/error.h"
#include "llmc/base/file.h"
#include "llmc/plan/policy.h"
#include "llmc/run/gemm_queries.h"
#include "llmc/run/memory.h"
#include "llmc/train/checkpointing.h"
#include "tests/backend/null_backend.h"
#include "tests/comm/comm_testing.h"
#include "tests/io/temp_dir.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <spdlog/sinks/ostream_sink.h>

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <memory>
#include <sstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace llmc {
namespace {

/// A library whose fastest algorithm is the same for all products; refuses words that begin with 0.
class FakeLibrary final : public NullBackend {
  public:
    explicit FakeLibrary(std::string library = "cuBLASLt 13.0.0", uint64_t fastest = 7)
        : library_(std::move(library)), fastest_(fastest) {}
    bool on_gpu() const override { return true; }
    GemmAlgorithms gemm_algorithms() const override { return {library_, "a card, sm_90", told_}; }
    void set_gemm_algorithms(const GemmAlgorithms& algorithms) override {
        EXPECT_TRUE(algorithms.is_of_same_kind(gemm_algorithms()));
        for (const GemmAlgorithm& each : algorithms.chosen) {
            if (each.words.at(0) == 0) fail("CUDA: {} refuses the algorithm", library_);
        }
        told_ = algorithms.chosen;
    }
    GemmAlgorithms time_gemms(const std::vector<GemmQuery>& queries, const std::vector<GemmAlgorithm>& known) override {
        GemmAlgorithms result = {library_, "a card, sm_90", {}};
        for (const GemmQuery& query : queries) {
            const GemmKey key = {
                {.m = query.OC, .n = query.N, .k = query.IC, .adds_c = query.kind == GemmKind::WeightGradient},
                query.kind == GemmKind::InputGradient,
                {},
                query.has_bias ? 1 : 0};
            const auto at = std::find_if(known.begin(), known.end(), [&](const auto& each) { return each.key == key; });
            timed_ += at == known.end() ? 1 : 0;
            result.chosen.push_back(at == known.end() ? GemmAlgorithm{key, {fastest_, ~uint64_t{0}}} : *at);
        }
        return result;
    }
    std::string why_no_hopper() const override { return lacks_; }
    bool own_gemms_agree() override { return agrees_; }
    void offer_own_gemms(bool offered) override { offered_ = offered; }
    /// As if it formed all forward products.
    std::vector<GemmAlgorithm> own_gemms(const std::vector<GemmQuery>& queries) const override {
        std::vector<GemmAlgorithm> own;
        for (const GemmQuery& query : queries) {
            if (query.kind != GemmKind::Forward || !offered_) continue;
            own.push_back(
                {{{.m = query.OC, .n = query.N, .k = query.IC}, false, {}, query.has_bias ? 1 : 0}, {kOwnGemm}});
        }
        return own;
    }
    /// What makes our own kernel impossible, in words, and whether it gives what the library gives.
    void set_own(const std::string& lacks, bool agrees) { lacks_ = lacks, agrees_ = agrees; }
    bool offered() const { return offered_; }
    const std::vector<GemmAlgorithm>& told() const { return told_; }
    int timed() const { return timed_; }

  private:
    std::string library_;
    uint64_t fastest_;
    std::vector<GemmAlgorithm> told_;
    int timed_ = 0;
    std::string lacks_;
    bool agrees_ = true, offered_ = false;
};

class GemmChoice : public testing::Test {
  protected:
    GemmChoice() {
        setenv("XDG_CACHE_HOME", folder_.path().c_str(), 1);
        spdlog::set_default_logger(
            std::make_shared<spdlog::logger>("test", std::make_shared<spdlog::sinks::ostream_sink_mt>(log_)));
    }
    ~GemmChoice() override {
        spdlog::set_default_logger(logger_);
        unsetenv("XDG_CACHE_HOME");
    }

    std::string settle(Backend& backend, const Options& options, const GemmAlgorithms& before = {}) {
        Comm alone;
        return settle_gemm_algorithms(options, before, model_, plan_, backend, alone);
    }
    std::string refusal(Backend& backend, const Options& options) {
        try {
            settle(backend, options);
        } catch (const Error& error) {
            EXPECT_EQ(error.exit_code(), kExitBadUsage);
            EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos) << error.what();
            return error.what();
        }
        return "taken";
    }
    /// On each of several ranks; an Error's words where one is thrown.
    std::vector<std::string> settle_together(std::vector<FakeLibrary*> libraries, const Options& options,
                                             const GemmAlgorithms& before = {}) {
        std::vector<std::string> words(libraries.size());
        std::vector<std::thread> threads;
        std::vector<Meeting> meetings = make_meetings(static_cast<int>(libraries.size()));
        for (size_t rank = 0; rank < libraries.size(); ++rank) {
            threads.emplace_back([&, rank, meeting = std::move(meetings[rank])]() mutable {
                const auto end = [](const std::string& line) { ADD_FAILURE() << line; };
                Comm comm(std::make_unique<Control>(std::move(meeting), kPatient, end));
                try {
                    words[rank] = settle_gemm_algorithms(options, before, model_, plan_, *libraries[rank], comm);
                } catch (const Error& error) {
                    words[rank] = error.what();
                }
                comm.barrier();
                comm.finish();
            });
        }
        for (std::thread& thread : threads) thread.join();
        return words;
    }

    static Options asked(const std::string& algorithms) {
        Options options;
        options.gemm_algorithms = algorithms;
        options.given["gemm-algorithms"] = true;
        return options;
    }
    static GemmAlgorithms record(const std::string& library = "cuBLASLt 13.0.0") {
        return {library,
                "a card, sm_90",
                {{{{.m = 5, .n = 6, .k = 7, .epilogue = Epilogue::BiasGradient}, false, {256, 256, 16, 4}, 99},
                  {3, uint64_t{1} << 63}}}};
    }
    static ModelConfig config() {
        ModelConfig config = preset("gpt2-nano");
        config.maxT = 32;
        return config;
    }
    std::string log() const { return log_.str(); }
    int products() const { return static_cast<int>(gemm_queries(model_, plan_).size()); }

    TempDir folder_;
    std::ostringstream log_;
    std::shared_ptr<spdlog::logger> logger_ = spdlog::default_logger();
    Model model_ = make_model(config());
    NullBackend planner_{512};
    Plan plan_ = plan_memory(model_, {2, 32}, Places(DType::BF16), find_policy("layer"), {}, planner_).plan;
};

TEST_F(GemmChoice, ProductsAreThoseOfTheModelWhateverThePolicy) {
    // Forward, gradients of input and of weight, of four matmuls in a layer and of the head.
    EXPECT_EQ(products(), 3 * 5);
    for (const PolicyRow& policy : policies()) {
        const Plan plan = plan_memory(model_, {2, 32}, Places(DType::BF16), policy, {}, planner_).plan;
        EXPECT_EQ(gemm_queries(model_, plan), gemm_queries(model_, plan_)) << policy.name;
    }
    NullBackend fusing(512);
    fusing.set_fusion({.fuses = true, .workspace_bytes = 700}, Fusion::WeightAndBiasGradient);
    fusing.set_fusion({.fuses = true, .stores_between = false, .workspace_bytes = 800},
                      Fusion::InputGradientAndActivation);
    const Plan fused = plan_memory(model_, {2, 32}, Places(DType::BF16), find_policy("none"), {}, fusing).plan;
    int of_weights = 0, of_inputs = 0;
    for (const GemmQuery& query : gemm_queries(model_, fused)) {
        if (query.kind == GemmKind::WeightAndBiasGradient) {
            ++of_weights;
            EXPECT_EQ(query.workspace_bytes, 700);
        }
        if (query.kind == GemmKind::InputGradientAndGelu) {
            ++of_inputs;
            EXPECT_EQ(query.workspace_bytes, 800);
        }
        EXPECT_EQ(query.N, 64);
    }
    EXPECT_EQ(of_weights, 4);
    EXPECT_EQ(of_inputs, 1);
}

TEST_F(GemmChoice, FirstIsTheUsualAndTellsNothing) {
    FakeLibrary library;
    EXPECT_EQ(settle(library, Options()), "cuBLASLt 13.0.0, its first algorithm for each");
    EXPECT_TRUE(library.told().empty());
    EXPECT_EQ(library.timed(), 0);
    NullBackend cpu;
    EXPECT_EQ(settle(cpu, Options()), "");
    EXPECT_EQ(log(), "");
    EXPECT_EQ(settle(cpu, asked("timed")), "");
    EXPECT_NE(log().find("--gemm-algorithms: has no effect; a CPU's products have one algorithm each"),
              std::string::npos);
}

TEST_F(GemmChoice, WhatWasTimedIsKnownToLaterRuns) {
    FakeLibrary library, later("cuBLASLt 13.0.0", 8), again("cuBLASLt 13.0.0", 9), other("cuBLASLt 13.1.0", 10);
    EXPECT_EQ(settle(library, asked("timed")), "cuBLASLt 13.0.0, its fastest algorithm for each, timed");
    EXPECT_EQ(library.timed(), products());
    EXPECT_EQ(static_cast<int>(library.told().size()), products());
    settle(later, asked("timed"));
    EXPECT_EQ(later.timed(), 0);
    EXPECT_EQ(later.told(), library.told());
    Options options = asked("timed");
    options.calibrate = true;
    settle(again, options);
    EXPECT_EQ(again.timed(), products()) << "--calibrate";
    EXPECT_EQ(again.told().front().words.front(), 9u);
    FakeLibrary after("cuBLASLt 13.0.0", 11);
    settle(after, asked("timed"));
    EXPECT_EQ(after.told(), again.told()) << "which is what is kept then";
    settle(other, asked("timed"));
    EXPECT_EQ(other.timed(), products()) << "another library";
    FakeLibrary dry;
    options.dry_run = true;
    settle(dry, options);
    EXPECT_EQ(dry.timed(), 0);
}

TEST_F(GemmChoice, AResumeTakesItsRecordWhereTheLibraryIsTheSame) {
    FakeLibrary same, other("cuBLASLt 13.1.0"), asked_for;
    EXPECT_EQ(settle(same, Options(), record()), "cuBLASLt 13.0.0, the algorithms that the run has had");
    EXPECT_EQ(same.told(), record().chosen);
    EXPECT_EQ(log(), "");
    EXPECT_EQ(settle(other, Options(), record()), "cuBLASLt 13.1.0, its first algorithm for each");
    EXPECT_TRUE(other.told().empty());
    EXPECT_NE(log().find("resume  products by cuBLASLt 13.1.0 on a card, sm_90 from here on, with algorithms of its "
                         "own; before: cuBLASLt 13.0.0 on a card, sm_90; the last bits change"),
              std::string::npos)
        << log();
    settle(asked_for, asked("first"), record());
    EXPECT_TRUE(asked_for.told().empty()) << "an option that was typed wins";
}

/// config.toml says timed; what is new in the plan is timed, what was there stays.
TEST_F(GemmChoice, AResumedTimedRunTimesWhatItHasNot) {
    FakeLibrary first;
    settle(first, asked("timed"));
    GemmAlgorithms before = first.gemm_algorithms();
    before.chosen.pop_back();
    for (GemmAlgorithm& each : before.chosen) each.words = {5};
    Options options;
    options.gemm_algorithms = "timed", options.calibrate = true;
    FakeLibrary resumed;
    settle(resumed, options, before);
    EXPECT_EQ(resumed.timed(), 1);
    EXPECT_EQ(static_cast<int>(resumed.told().size()), products());
    EXPECT_EQ(resumed.told().front().words, (std::vector<uint64_t>{5}));
    EXPECT_EQ(resumed.told().back().words.front(), 7u);
}

TEST_F(GemmChoice, AFileIsForcedOrRefused) {
    const std::string path = folder_ / "gemms.json";
    write_gemm_algorithms(path, record());
    FakeLibrary library, other("cuBLASLt 13.1.0");
    EXPECT_EQ(settle(library, asked(path)), "cuBLASLt 13.0.0, the algorithms in '" + path + "'");
    EXPECT_EQ(library.told(), record().chosen);
    const std::string begin = "--gemm-algorithms=" + path + ": ";
    EXPECT_EQ(refusal(other, asked(path)),
              begin +
                  "it is for cuBLASLt 13.0.0 on a card, sm_90, and here is cuBLASLt 13.1.0 on a card, sm_90; take "
                  "first, or timed");
    GemmAlgorithms bad = record();
    bad.chosen.front().words.front() = 0;
    write_gemm_algorithms(path, bad);
    EXPECT_EQ(refusal(library, asked(path)), begin +
                                                 "CUDA: cuBLASLt 13.0.0 refuses the algorithm; "
                                                 "--gemm-algorithms=first does without");
    EXPECT_EQ(refusal(library, asked(folder_ / "none.json")),
              "--gemm-algorithms=" + (folder_ / "none.json") + ": there is no such file");
    const auto refused = [&](const std::string& text, const std::string& words) {
        write_text(path, text);
        const std::string message = refusal(library, asked(path));
        EXPECT_TRUE(message.starts_with(begin) && message.find(words) != std::string::npos) << message;
    };
    refused("{", "is no such file as a run folder has");
    refused("[]", "is no such file as a run folder has");
    nlohmann::json json = to_json(record());
    const auto changed = [&json](const char* name, const nlohmann::json& value) {
        nlohmann::json copy = json;
        copy["products"][0][name] = value;
        return copy.dump();
    };
    refused(changed("words", "x"), "is no such file as a run folder has");
    refused(changed("epilogue", "relu"), "epilogue 'relu' is unknown");
    refused(changed("input", "fp8"), "type 'fp8' is unknown");
    refused(changed("m", 0), "0 x 6 x 7 is no product");
    json["products"][0].erase("n");
    refused(json.dump(), "'n'");
}

TEST_F(GemmChoice, OurOwnKernelIsOfferedWhereItMayBeNamed) {
    const auto offered = [](const Options& options, const GemmAlgorithms& before = {}, DType dtype = DType::BF16,
                            const std::string& lacks = "", bool agrees = true) {
        FakeLibrary library;
        library.set_own(lacks, agrees);
        Comm alone;
        settle_own_gemms(options, before, dtype, library, alone);
        return library.offered();
    };
    const auto refused = [&](const std::string& lacks, bool agrees) {
        try {
            offered(asked("own"), {}, DType::BF16, lacks, agrees);
        } catch (const Error& error) {
            EXPECT_EQ(error.exit_code(), kExitBadUsage);
            return std::string(error.what());
        }
        return std::string("taken");
    };
    EXPECT_FALSE(offered(Options()));
    EXPECT_TRUE(offered(asked("timed")));
    EXPECT_TRUE(offered(asked("own")));
    const std::string path = folder_ / "gemms.json";
    GemmAlgorithms named = record();
    write_gemm_algorithms(path, named);
    EXPECT_FALSE(offered(asked(path)));
    EXPECT_FALSE(offered(Options(), named));
    named.chosen.front().words = {kOwnGemm};
    write_gemm_algorithms(path, named);
    EXPECT_TRUE(offered(asked(path)));
    EXPECT_TRUE(offered(Options(), named));
    EXPECT_FALSE(offered(asked("first"), named)) << "an option that was typed wins";
    named.library = "cuBLASLt 13.1.0";
    EXPECT_FALSE(offered(Options(), named)) << "of another library";

    const std::string lacks = "its compute capability is 8.6, not 9.0";
    EXPECT_FALSE(offered(asked("timed"), {}, DType::BF16, lacks));
    EXPECT_EQ(log(), "");
    EXPECT_FALSE(offered(asked("timed"), {}, DType::BF16, "", /*agrees=*/false));
    EXPECT_NE(log().find("our own kernel of matrix products is not taken: on a small case it does not give what the "
                         "library gives"),
              std::string::npos)
        << log();
    EXPECT_EQ(refused(lacks, true), "--gemm-algorithms=own: " + lacks + "; take first, or timed");
    EXPECT_EQ(refused("", false),
              "--gemm-algorithms=own: on a small case it does not give what the library gives; take first, or timed");
    EXPECT_FALSE(offered(asked("own"), {}, DType::F32));
    EXPECT_NE(log().find("--gemm-algorithms=own: has no effect; our own kernel multiplies bf16, not fp32"),
              std::string::npos);
    NullBackend cpu;
    Comm alone;
    settle_own_gemms(asked("own"), {}, DType::BF16, cpu, alone);
}

TEST_F(GemmChoice, OwnIsOurKernelForWhatItFormsAndTheLibrarysFirstForTheRest) {
    FakeLibrary library, resumed, more;
    library.offer_own_gemms(true), resumed.offer_own_gemms(true), more.offer_own_gemms(true);
    EXPECT_EQ(settle(library, asked("own")),
              "cuBLASLt 13.0.0, our own kernel for what it forms, the library's first algorithm for the rest");
    EXPECT_EQ(library.told().size(), 5u);
    for (const GemmAlgorithm& each : library.told()) EXPECT_TRUE(each.is_own());
    Options of_config;
    of_config.gemm_algorithms = "own";
    GemmAlgorithms before = library.gemm_algorithms();
    EXPECT_EQ(settle(resumed, of_config, before), "cuBLASLt 13.0.0, the algorithms that the run has had");
    EXPECT_EQ(resumed.told(), library.told());
    before.chosen.pop_back();
    settle(more, of_config, before);
    EXPECT_EQ(more.told().size(), 5u) << "what the plan has beside them";
    FakeLibrary cannot;
    EXPECT_EQ(settle(cannot, asked("own")), "cuBLASLt 13.0.0, its first algorithm for each");
}

TEST_F(GemmChoice, RanksTakeOurOwnKernelTogetherOrNotAtAll) {
    for (const bool agrees : {true, false}) {
        FakeLibrary zero, one;
        one.set_own("", agrees);
        std::vector<FakeLibrary*> libraries = {&zero, &one};
        std::vector<std::thread> threads;
        std::vector<Meeting> meetings = make_meetings(2);
        for (size_t rank = 0; rank < libraries.size(); ++rank) {
            threads.emplace_back([&, rank, meeting = std::move(meetings[rank])]() mutable {
                const auto end = [](const std::string& line) { ADD_FAILURE() << line; };
                Comm comm(std::make_unique<Control>(std::move(meeting), kPatient, end));
                settle_own_gemms(asked("timed"), {}, DType::BF16, *libraries[rank], comm);
                comm.finish();
            });
        }
        for (std::thread& thread : threads) thread.join();
        EXPECT_EQ(zero.offered(), agrees);
        EXPECT_EQ(one.offered(), agrees);
    }
}

TEST_F(GemmChoice, RanksShareWhatRankZeroDecides) {
    FakeLibrary zero("cuBLASLt 13.0.0", 7), one("cuBLASLt 13.0.0", 8);
    settle_together({&zero, &one}, asked("timed"));
    EXPECT_EQ(zero.timed(), products());
    EXPECT_EQ(one.timed(), 0);
    EXPECT_EQ(one.told(), zero.told());

    FakeLibrary another("cuBLASLt 13.1.0");
    const std::string path = folder_ / "gemms.json";
    write_gemm_algorithms(path, record());
    for (const std::string& words : settle_together({&zero, &another}, asked(path))) {
        EXPECT_NE(words.find("and here rank 0 has cuBLASLt 13.0.0 on a card, sm_90, rank 1 has cuBLASLt 13.1.0 on a "
                             "card, sm_90; take first, or timed"),
                  std::string::npos)
            << words;
    }
    FakeLibrary alike, different("cuBLASLt 13.1.0");
    settle_together({&alike, &different}, asked("timed"));
    EXPECT_TRUE(alike.told().empty() && different.told().empty()) << "every rank its library's first";
    EXPECT_EQ(alike.timed() + different.timed(), 0);
    settle_together({&alike, &different}, Options(), record());
    EXPECT_TRUE(alike.told().empty() && different.told().empty());
}

TEST_F(GemmChoice, CheckpointsKeepIt) {
    nlohmann::json state = {{"step", 3},           {"updates", 3},  {"next_sequence", 48},    {"tokenizer", "bytes"},
                            {"dtype", "bf16"},     {"seq_len", 32}, {"total_batch_size", 64}, {"seed", 1},
                            {"train_tokens", 1000}};
    Checkpoint checkpoint;
    checkpoint.state = state.dump();
    EXPECT_EQ(progress_of(checkpoint).gemms, GemmAlgorithms()) << "old ones do not";
    state["gemms"] = to_json(record());
    checkpoint.state = state.dump();
    EXPECT_EQ(progress_of(checkpoint).gemms, record());
    state["gemms"] = nullptr;
    checkpoint.state = state.dump();
    EXPECT_EQ(progress_of(checkpoint).gemms, GemmAlgorithms()) << "of a CPU";
}

}  // namespace
}  // namespace llmc
