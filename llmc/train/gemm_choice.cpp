#include "llmc/train/gemm_choice.h"

#include "llmc/base/error.h"
#include "llmc/base/file.h"
#include "llmc/base/log.h"
#include "llmc/base/shallow_json.h"
#include "llmc/io/json_text.h"
#include "llmc/run/gemm_queries.h"
#include "llmc/train/arithmetic.h"
#include "llmc/train/ranks.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <filesystem>
#include <span>
#include <utility>
#include <vector>

namespace llmc {
namespace {

constexpr std::array<std::pair<Epilogue, const char*>, 4> kEpilogues = {{
    {Epilogue::None, "none"},
    {Epilogue::Bias, "bias"},
    {Epilogue::BiasGradient, "bias gradient"},
    {Epilogue::GeluGradient, "gelu gradient"},
}};

const char* name_of(Epilogue epilogue) { return kEpilogues[static_cast<size_t>(epilogue)].second; }

Epilogue epilogue_named(const std::string& name) {
    for (const auto& [epilogue, known] : kEpilogues) {
        if (name == known) return epilogue;
    }
    fail("epilogue '{}' is unknown", name);
}

DType type_named(const std::string& name) {
    for (const DType dtype : {DType::F32, DType::BF16}) {
        if (name == llmc::name_of(dtype)) return dtype;
    }
    fail("type '{}' is unknown", name);
}

std::string kind_of(const GemmAlgorithms& algorithms) {
    return fmt::format("{} on {}", algorithms.library, algorithms.device);
}

nlohmann::json to_json(const GemmAlgorithm& algorithm) {
    const GemmShape& shape = algorithm.key.shape;
    return {{"m", shape.m},
            {"n", shape.n},
            {"k", shape.k},
            {"transpose_a", shape.transpose_a},
            {"transpose_b", shape.transpose_b},
            {"input", llmc::name_of(shape.input)},
            {"output", llmc::name_of(shape.output)},
            {"epilogue", name_of(shape.epilogue)},
            {"adds_c", shape.adds_c},
            {"tf32", algorithm.key.tf32},
            {"alignment", algorithm.key.alignment},
            {"workspace_bytes", algorithm.key.workspace_bytes},
            {"words", algorithm.words}};
}

GemmAlgorithm algorithm_in(const nlohmann::json& json) {
    GemmAlgorithm algorithm;
    GemmShape& shape = algorithm.key.shape;
    json.at("m").get_to(shape.m);
    json.at("n").get_to(shape.n);
    json.at("k").get_to(shape.k);
    json.at("transpose_a").get_to(shape.transpose_a);
    json.at("transpose_b").get_to(shape.transpose_b);
    shape.input = type_named(json.at("input").get<std::string>());
    shape.output = type_named(json.at("output").get<std::string>());
    shape.epilogue = epilogue_named(json.at("epilogue").get<std::string>());
    json.at("adds_c").get_to(shape.adds_c);
    json.at("tf32").get_to(algorithm.key.tf32);
    json.at("alignment").get_to(algorithm.key.alignment);
    json.at("workspace_bytes").get_to(algorithm.key.workspace_bytes);
    json.at("words").get_to(algorithm.words);
    if (std::min({shape.m, shape.n, shape.k}) <= 0) fail("{} x {} x {} is no product", shape.m, shape.n, shape.k);
    return algorithm;
}

/// What all ranks have to have to share algorithms: "" if they do, else which has not.
std::string other_rank(const GemmAlgorithms& here, Comm& comm) {
    const std::vector<std::string> all = comm.all_gather(kind_of(here));
    for (size_t rank = 1; rank < all.size(); ++rank) {
        if (all[rank] != all[0]) return fmt::format("rank 0 has {}, rank {} has {}", all[0], rank, all[rank]);
    }
    return "";
}

/// What was timed on such a device before, beside all that this kernel of our own forms; "" where there is no place for
/// it.
std::string cache_path(const GemmAlgorithms& here) {
    const std::string folder = cache_folder(), kind = fmt::format("{}, own {}, gradients", kind_of(here), kOwnGemm);
    return folder.empty() ? "" : fmt::format("{}/gemms-{}.json", folder, checksum_of(std::as_bytes(std::span(kind))));
}

/// Adds those whose products are not there yet.
void add_missing(std::vector<GemmAlgorithm>* to, const std::vector<GemmAlgorithm>& from) {
    for (const GemmAlgorithm& algorithm : from) {
        const bool is_there =
            std::any_of(to->begin(), to->end(), [&](const GemmAlgorithm& each) { return each.key == algorithm.key; });
        if (!is_there) to->push_back(algorithm);
    }
}

/// Of what the cache holds what is of this kind; a file that cannot be read is written anew.
std::vector<GemmAlgorithm> cached(const std::string& path, const GemmAlgorithms& here) {
    if (path.empty() || !path_exists(path)) return {};
    try {
        GemmAlgorithms kept = read_gemm_algorithms(path, path);
        if (kept.is_of_same_kind(here)) return std::move(kept.chosen);
    } catch (const Error&) {
    }
    return {};
}

void keep(const std::string& path, const GemmAlgorithms& algorithms) {
    if (path.empty()) return;
    try {
        make_directories(std::filesystem::path(path).parent_path().string(), "the cache");
        write_gemm_algorithms(path, algorithms);
    } catch (const Error& error) {
        spdlog::warn("--gemm-algorithms=timed: what was timed is not kept: {}", error.what());
    }
}

/// Times the plan's products, but for those in `chosen` already and, without --calibrate, those timed before.
void add_timed(const Options& options, const Model& model, const Plan& plan, Backend& backend, GemmAlgorithms* chosen) {
    const std::string path = cache_path(*chosen);
    std::vector<GemmAlgorithm> known = chosen->chosen;
    const std::vector<GemmAlgorithm> before = cached(path, *chosen);
    if (!options.calibrate) add_missing(&known, before);
    const GemmAlgorithms timed = backend.time_gemms(gemm_queries(model, plan), known);
    add_missing(&chosen->chosen, timed.chosen);
    GemmAlgorithms kept = timed;
    add_missing(&kept.chosen, before);
    if (kept.chosen.size() != before.size() || options.calibrate) keep(path, kept);
}

bool is_file(const std::string& option) {
    return option != kFirstAlgorithms && option != kTimedAlgorithms && option != kOwnAlgorithms;
}

/// Whether a resumed run takes what it has had, if that can be.
bool goes_on(const Options& options, const GemmAlgorithms& before) {
    return !before.library.empty() && !options.was_typed("gemm-algorithms");
}

bool names_own(const GemmAlgorithms& algorithms) {
    return std::any_of(algorithms.chosen.begin(), algorithms.chosen.end(),
                       [](const GemmAlgorithm& algorithm) { return algorithm.is_own(); });
}

/// Whether our own kernel may be among a run's algorithms, if it can be.
bool may_be_own(const Options& options, const GemmAlgorithms& before, const GemmAlgorithms& here) {
    const std::string& option = options.gemm_algorithms;
    if (option == kTimedAlgorithms || option == kOwnAlgorithms) return true;
    if (goes_on(options, before)) return before.is_of_same_kind(here) && names_own(before);
    return is_file(option) && names_own(read_gemm_algorithms(option, "--gemm-algorithms=" + option));
}

constexpr const char* kDisagree = "on a small case it does not give what the library gives";

/// Why the ranks cannot all have our own kernel; "" if they can.
std::string objection_to_own(Backend& backend, Comm& comm) {
    std::string mine = backend.why_no_hopper();
    try {
        if (mine.empty() && !backend.own_gemms_agree()) mine = kDisagree;
    } catch (const Error& error) {
        throw Error(error.exit_code(), fmt::format("a first try of our own kernel of matrix products: {}; "
                                                   "--gemm-algorithms=first does without it",
                                                   error.what()));
    }
    return first_objection(mine, comm);
}

void say_without_effect(const Options& options) {
    if (!options.was_typed("gemm-algorithms")) return;
    spdlog::warn("--gemm-algorithms: has no effect; a CPU's products have one algorithm each");
}

[[noreturn]] void refuse_own(const std::string& objection) {
    fail_usage("--gemm-algorithms=own: {}; take first, or timed", objection);
}

struct Choice {
    GemmAlgorithms algorithms;
    std::string words;
};

/// What is decided before anything is timed; of one rank.
Choice known_choice(const Options& options, const GemmAlgorithms& before, const GemmAlgorithms& here,
                    const std::string& other) {
    Choice choice = {{here.library, here.device, {}}, "its first algorithm for each"};
    const std::string& option = options.gemm_algorithms;
    const bool is_resumed = goes_on(options, before);
    if (is_resumed && before.is_of_same_kind(here) && other.empty())
        return {before, "the algorithms that the run has had"};
    if (is_resumed) {
        spdlog::info(
            "resume  products by {} from here on, with algorithms of its own; before: {}; the last bits change",
            other.empty() ? kind_of(here) : other, kind_of(before));
        return choice;
    }
    if (!is_file(option)) return choice;
    choice = {read_gemm_algorithms(option, "--gemm-algorithms=" + option),
              fmt::format("the algorithms in '{}'", option)};
    if (choice.algorithms.is_of_same_kind(here) && other.empty()) return choice;
    fail_usage("--gemm-algorithms={}: it is for {}, and here {}; take first, or timed", option,
               kind_of(choice.algorithms), other.empty() ? "is " + kind_of(here) : other);
}

}  // namespace

void settle_own_gemms(const Options& options, const GemmAlgorithms& before, DType dtype, Backend& backend, Comm& comm) {
    const GemmAlgorithms here = backend.gemm_algorithms();
    if (here.library.empty() || !other_rank(here, comm).empty() || !may_be_own(options, before, here)) return;
    const bool is_required = options.gemm_algorithms == kOwnAlgorithms && options.was_typed("gemm-algorithms");
    if (dtype != DType::BF16) {
        if (is_required)
            spdlog::warn("--gemm-algorithms=own: has no effect; our own kernel multiplies bf16, not {}",
                         llmc::name_of(dtype));
        return;
    }
    const std::string objection = objection_to_own(backend, comm);
    if (objection.empty()) return backend.offer_own_gemms(true);
    if (is_required) refuse_own(objection);
    if (objection.starts_with(kDisagree)) {
        spdlog::warn("our own kernel of matrix products is not taken: {}", objection);
    }
}

void assume_own_gemms(const Options& options, Backend& backend) {
    if (!backend.on_gpu()) return say_without_effect(options);
    if (!may_be_own(options, {}, {})) return;
    const std::string objection = objection_to_planned_hopper(options, backend);
    if (options.gemm_algorithms == kOwnAlgorithms && !objection.empty()) refuse_own(objection);
    backend.offer_own_gemms(objection.empty());
}

std::string settle_gemm_algorithms(const Options& options, const GemmAlgorithms& before, const Model& model,
                                   const Plan& plan, Backend& backend, Comm& comm) {
    const GemmAlgorithms here = backend.gemm_algorithms();
    if (here.library.empty()) {
        say_without_effect(options);
        return "";
    }
    const std::string other = other_rank(here, comm);
    Choice choice = known_choice(options, before, here, other);
    const bool is_file_or_first = is_file(options.gemm_algorithms) || options.gemm_algorithms == kFirstAlgorithms;
    if (!is_file_or_first && !other.empty()) {
        spdlog::warn("--gemm-algorithms={}: has no effect; {}", options.gemm_algorithms, other);
    } else if (options.gemm_algorithms == kOwnAlgorithms) {
        const std::vector<GemmAlgorithm> own = backend.own_gemms(gemm_queries(model, plan));
        const bool is_new = choice.algorithms.chosen.empty() && !own.empty();
        if (is_new) choice.words = "our own kernel for what it forms, the library's first algorithm for the rest";
        add_missing(&choice.algorithms.chosen, own);
    } else if (options.gemm_algorithms == kTimedAlgorithms && !options.dry_run) {
        if (choice.algorithms.chosen.empty()) choice.words = "its fastest algorithm for each, timed";
        if (comm.is_root()) add_timed(options, model, plan, backend, &choice.algorithms);
    }
    if (other.empty()) {
        const std::string of_root = comm.broadcast(comm.is_root() ? to_json(choice.algorithms).dump() : "");
        choice.algorithms = gemm_algorithms_in(nlohmann::json::parse(of_root));
    }
    try {
        backend.set_gemm_algorithms(choice.algorithms);
    } catch (const Error& error) {
        fail_usage("--gemm-algorithms={}: {}; --gemm-algorithms=first does without", options.gemm_algorithms,
                   error.what());
    }
    return fmt::format("{}, {}", here.library, choice.words);
}

nlohmann::json to_json(const GemmAlgorithms& algorithms) {
    nlohmann::json products = nlohmann::json::array();
    for (const GemmAlgorithm& algorithm : algorithms.chosen) products.push_back(to_json(algorithm));
    return {{"library", algorithms.library}, {"device", algorithms.device}, {"products", products}};
}

GemmAlgorithms gemm_algorithms_in(const nlohmann::json& json) {
    GemmAlgorithms algorithms;
    json.at("library").get_to(algorithms.library);
    json.at("device").get_to(algorithms.device);
    for (const nlohmann::json& product : json.at("products")) algorithms.chosen.push_back(algorithm_in(product));
    return algorithms;
}

GemmAlgorithms read_gemm_algorithms(const std::string& path, const std::string& option) {
    if (!path_exists(path)) fail_usage("{}: there is no such file", option);
    try {
        return gemm_algorithms_in(nlohmann::json::parse(shallow_json(read_text(path))));
    } catch (const nlohmann::json::exception& error) {
        fail_usage("{}: is no such file as a run folder has ({})", option, error.what());
    } catch (const Error& error) {
        fail_usage("{}: {}", option, error.what());
    }
}

void write_gemm_algorithms(const std::string& path, const GemmAlgorithms& algorithms) {
    write_text_atomically(path, json_text(to_json(algorithms)) + "\n");
}

}  // namespace llmc
