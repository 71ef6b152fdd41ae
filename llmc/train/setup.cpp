#include "llmc/train/setup.h"

#include "llmc/base/counted.h"
#include "llmc/base/error.h"
#include "llmc/base/file.h"
#include "llmc/base/log.h"
#include "llmc/base/units.h"
#include "llmc/base/version.h"
#include "llmc/io/models_tokenizer.h"
#include "llmc/model/dropout.h"
#include "llmc/model/trainable.h"
#include "llmc/plan/formats.h"
#include "llmc/train/arithmetic.h"
#include "llmc/train/config_paths.h"
#include "llmc/train/initial_weights.h"
#include "llmc/train/lora_options.h"
#include "llmc/train/placement.h"
#include "llmc/train/remedy.h"
#include "llmc/train/tile_options.h"

#include <algorithm>
#include <cmath>

namespace llmc {
namespace {

constexpr double kTrainedLearningRate = 3e-5;  ///< A new model's would spoil what it has learned.
constexpr int64_t kStepsPerWarmup = 20;        ///< The default warm-up is at most so much of the run: 5 %.

/// Data that nobody named now: the demo's does not exist until data/demo.sh has made it, and a run's may be gone.
void require_data(const Options& options) {
    if (options.was_typed("data") || is_data_there(options.data)) return;
    if (options.data != Options().data) {
        if (options.resume.empty()) return;  // It is said where it is opened.
        fail("--resume={}: the run's data '{}' is not there any more; say where it is now: --data=FILE", options.resume,
             options.data);
    }
    fail("the demo text {} is not there; run data/demo.sh{} to make it, or train on your own: --data=FILE.txt",
         options.data, path_exists("data/demo.sh") ? "" : " in the folder of train_gpt, and start there,");
}

/// Options about instruction rows say nothing of other data.
void require_rows(const Options& options, const TokenSource& source) {
    for (const char* name : {"chat-template", "score"}) {
        if (!options.was_typed(name) || source.is_marked()) continue;
        fail_usage("--{}: is about instruction rows, but {}; leave it out, or give --data-format=rows", name,
                   source.describe());
    }
}

}  // namespace

DataReading reading_of(const Options& options) {
    return {options.data_format,
            options.jsonl_field,
            options.special_tokens,
            options.skip_bad_lines,
            /*only_text=*/options.command == Command::Tokenize,
            options.chat_template,
            options.score};
}

Data open_data(const Options& options, const std::string& models_tokenizer) {
    require_data(options);
    for (const char* name : {"document-token", "tokenizer-pattern"}) {
        if (!options.was_typed(name)) continue;
        if (options.tokenizer.empty() && models_tokenizer.empty()) fail_usage("--{}: needs --tokenizer", name);
    }
    const bool is_chosen = models_tokenizer.empty() || options.resume.empty();
    const std::string tokenizer = is_chosen && !options.tokenizer.empty() ? options.tokenizer : models_tokenizer;
    const DataReading reading = reading_of(options);
    Data data;
    const TokenizerChoices choices = {options.document_token, options.tokenizer_pattern};
    if (!tokenizer.empty()) {
        const bool was_asked_for = tokenizer == options.tokenizer;
        data.tokenizer = was_asked_for ? make_given_tokenizer(tokenizer, models_tokenizer, choices)
                                       : make_models_tokenizer(tokenizer, choices);
    }
    const Tokenizer* reads_text = data.tokenizer.get();
    data.source = open_token_source(options.data, "--data", reads_text, reading, FolderUse::Training);
    require_rows(options, *data.source);
    if (data.tokenizer == nullptr) data.tokenizer = make_models_tokenizer(data.source->tokenizer());
    warn_if_unread(*data.tokenizer);
    if (tokenizer == "bytes" && data.source->tokenizer() != tokenizer) {
        fail("--data={}: {}, but the model reads bytes; give text", options.data, data.source->describe());
    }
    const bool has_validation = has_validation_files(options.data);
    if (has_validation && !options.val_data.empty()) {
        spdlog::warn(
            "--data: the folder '{}' has files for validation, which are left out: --val-data={} is read instead",
            options.data, options.val_data);
    }
    const bool brings_validation = has_validation && options.val_data.empty();
    const std::string val_data = brings_validation ? options.data : options.val_data;
    if (val_data.empty()) {
        const TokenSplit split = split_off_validation(*data.source, options.seq_len);
        data.train = split.train;
        data.validation = split.validation;
        return data;
    }
    // Token files with a tokenizer beside them name it; that of --data holds for both.
    const std::string of_data = data.source->tokenizer();
    const bool is_named = reads_text == nullptr && of_data != "bytes" && of_data != "none";
    data.val_source = open_token_source(val_data, brings_validation ? "--data" : "--val-data",
                                        is_named ? data.tokenizer.get() : reads_text, reading, FolderUse::Validation);
    if (data.val_source->tokenizer() != data.source->tokenizer() ||
        data.val_source->vocab_size() != data.source->vocab_size()) {
        fail("--val-data={}: has other tokens than --data ({}, not {}); use files of one kind", val_data,
             data.val_source->describe(), data.source->describe());
    }
    data.train = TokenRange(*data.source);
    data.validation = TokenRange(*data.val_source);
    if (data.source->is_marked() != data.val_source->is_marked()) {
        fail("--val-data={}: is {}instruction data, other than --data; use files of one kind", val_data,
             data.val_source->is_marked() ? "" : "no ");
    }
    if (data.source->is_marked()) return data;  // Rows may be shorter than a sequence.
    require_one_sequence(*data.train, options.seq_len, "--data");
    require_one_sequence(*data.validation, options.seq_len, "--val-data");
    return data;
}

namespace {

/// Refuses sizes whose bytes would not fit in 64 bits, by an estimate from above in floating point.
void require_countable(const ModelConfig& config, const Options& options) {
    const auto L = static_cast<double>(config.L), C = static_cast<double>(config.C), F = static_cast<double>(config.F);
    const auto A = static_cast<double>(config.NH * config.HD), Vp = static_cast<double>(config.Vp());
    const double N = static_cast<double>(options.batch_size) * static_cast<double>(options.seq_len);
    const double parameters = 2 * Vp * C + static_cast<double>(config.maxT) * C + L * C * (4 * A + 3 * F + 20);
    const double activations = (L + 2) * N * (20 * C + 10 * F + 20 * A) + N * Vp;
    if (16 * parameters + 4 * activations < 4e18) return;
    fail(
        "not enough memory: {} with --batch-size={} and --seq-len={} needs about {:.0e} bytes, more than this program "
        "can count; lower those, or the model's dimensions",
        describe(config), options.batch_size, options.seq_len, 16 * parameters + 4 * activations);
}

}  // namespace

ModelConfig resolve_model(const Options& options, int64_t data_vocabulary, int64_t least_vocabulary) {
    ModelConfig config = preset(options.model);
    const auto override_with = [](int64_t value, int64_t* field) {
        if (value > 0) *field = value;
    };
    const double ffn_ratio = static_cast<double>(config.F) / static_cast<double>(config.C);
    const bool grouped = config.NKV != config.NH;
    if (options.layers > 0) config = with_layers(config, options.layers);
    override_with(options.channels, &config.C);
    override_with(options.heads, &config.NH);
    if (options.heads > 0 && !grouped) config.NKV = config.NH;
    override_with(options.kv_heads, &config.NKV);
    if (options.channels > 0 || options.heads > 0) {
        if (options.head_size == 0 && config.C % config.NH != 0) {
            fail_usage("--heads={}: does not divide the {} channels; change --heads or --channels, or give --head-size",
                       config.NH, config.C);
        }
        config.HD = config.C / config.NH;
    }
    override_with(options.head_size, &config.HD);
    if (options.channels > 0) {
        config.F = round_up(static_cast<int64_t>(std::llround(ffn_ratio * static_cast<double>(config.C))), 4);
    }
    override_with(options.ffn_size, &config.F);
    override_with(data_vocabulary, &config.V);
    override_with(options.vocab_size, &config.V);
    override_with(options.max_seq_len, &config.maxT);
    if (config.maxT == 0) config.maxT = options.seq_len;
    if (options.rope_theta > 0) {
        if (!config.is_rotary()) {
            fail_usage("--rope-theta: {} has learned positions; choose a LLaMA model", name_of(config.family));
        }
        config.rope_theta = options.rope_theta;
    }
    if (!options.tied.empty()) config.tied = options.tied == "true";
    if (options.seq_len > config.maxT) {
        fail_usage("--seq-len={}: {} takes at most {} tokens; raise --max-seq-len too", options.seq_len, config.name,
                   config.maxT);
    }
    if (least_vocabulary > config.V) {
        fail_usage("--vocab-size={}: the data needs at least {} tokens", config.V, least_vocabulary);
    }
    validate(config);
    require_countable(config, options);
    return config;
}

ModelConfig accept_model(const Options& options, const ModelConfig& config, const Tokenizer* tokenizer) {
    const std::string overriding = given_architecture_option(options);
    if (!overriding.empty()) {
        fail_usage("{}: the model comes with its weights ({}), which fit no other; leave it out", overriding,
                   describe(config));
    }
    if (options.seq_len > config.maxT) {
        fail_usage("--seq-len={}: '{}' takes at most {} tokens; choose --seq-len={} or less", options.seq_len,
                   config.name, config.maxT, config.maxT);
    }
    if (tokenizer != nullptr) require_vocabulary(*tokenizer, config.V);
    require_countable(config, options);
    return config;
}

Model model_to_train(const Options& options, const ModelConfig& config) {
    Model model = with_adapters(options, with_dropout(make_model(config), options.dropout));
    if (options.freeze.empty()) return model;
    return with_trainable(std::move(model), parse_patterns("--freeze", options.freeze, /*trainable=*/false));
}

void settle_seq_len(Options& options, const ModelConfig& config) {
    if (options.was_given("seq-len") || options.seq_len <= config.maxT) return;
    options.seq_len = config.maxT;
    const bool is_default = options.total_batch_size > 0 && !options.was_given("total-batch-size");
    if (is_default) options.total_batch_size = Options().batch_size * options.seq_len;
}

void require_dtype(const Backend& backend, DType dtype) {
    const DeviceInfo info = backend.info();
    if (dtype == DType::BF16 && !info.supports_bf16) {
        fail_usage(
            "--dtype=bf16: {} has no bf16 dot products (AVX512_BF16 or AMX), or this build has no oneDNN; use "
            "--dtype=fp32",
            info.name);
    }
}

void require_memory(const Options& options, const Model& model, const PlannedMemory& memory, const Backend& backend) {
    const DeviceInfo device = backend.info();
    const bool limited = !options.memory_budget.empty();
    const int64_t budget = memory_limit(options, device);
    if (memory.total_bytes() <= budget) return require_host_memory(options, model, memory, backend);
    const std::string floor = floor_words(options, model, memory.plan.shape, backend);
    std::string fits;
    for (const PolicyRow& policy : policies()) {
        if (!floor.empty()) break;  // No level helps.
        Options other = options;
        other.recompute = policy.name;
        const PlanRequest request = request_for(options, model, memory.plan.shape, backend);
        const int64_t bytes = with_memory(model, make_training_plan(model, request, policy)).total_bytes();
        const int64_t batch = largest_batch(other, model, backend);
        fits += fmt::format("{} {} needs {}, {}", fits.empty() ? "By level:" : ";", policy.name, format_bytes(bytes),
                            batch > 0 ? fmt::format("fits with --batch-size={}", batch) : "fits with no batch size");
    }
    const std::string bound = memory_bound(options, device);
    fail(
        "not enough memory: --recompute={} with --batch-size={} and --seq-len={} needs {}, {} is {}{}. {}. What would "
        "do: {}",
        options.recompute, options.batch_size, options.seq_len, format_bytes(memory.total_bytes()),
        limited ? "--memory-budget" : "available", format_bytes(budget),
        limited || bound.empty() ? "" : ", by " + bound, floor.empty() ? fits : "At any level " + floor,
        advice(options, model, memory.plan.shape, backend));
}

void settle_schedule(Options& options, bool is_trained) {
    // An imported model's folder has options that nobody chose.
    const auto is_open = [&](const char* name) {
        return options.resume.empty() ? !options.was_given(name) : is_trained && !options.was_typed(name);
    };
    if (is_trained && is_open("learning-rate")) {
        options.learning_rate = kTrainedLearningRate;
        options.given.erase("learning-rate");
    }
    if (is_open("warmup")) {
        options.warmup = std::min(options.warmup, options.steps / kStepsPerWarmup);
        options.given.erase("warmup");
    }
}

namespace {

/// The peak and the warm-up, and where they were not chosen why they are so.
std::string describe_schedule(const Options& options) {
    const bool trained = !options.was_given("learning-rate") && options.learning_rate == kTrainedLearningRate;
    const bool is_short = !options.was_given("warmup") && options.warmup < Options().warmup;
    const std::string warmup =
        options.warmup == 0 ? "without warm-up" : fmt::format("after {} of warm-up", counted(options.warmup, "update"));
    return fmt::format("peak {:g}{}, {}, {}{}", options.learning_rate,
                       trained ? " (the model has been trained; --learning-rate for another)" : "", options.lr_schedule,
                       warmup, is_short ? " (5 % of the run; --warmup for more)" : "");
}

/// What decides the last bits, and why the portable kernels run although the card may have faster ones.
std::string describe_arithmetic(const Model& model, const Plan& plan, const DeviceInfo& device) {
    const bool is_portable = device.kind == "sm_90" && device.arithmetic.kernels == kPortableKernels;
    const std::string why = is_portable ? why_portable(plan.dtype, model.config) : "";
    return describe(device.arithmetic) + (why.empty() ? "" : fmt::format(" ({})", why));
}

}  // namespace

void log_banner(const Options& options, const Model& model, const std::string& weights, const Data& data,
                const Sequences& sequences, const ChosenPlan& chosen, const DeviceInfo& device,
                const std::string& ranks) {
    const PlannedMemory& memory = chosen.memory;
    const Simulation& simulation = memory.simulation;
    spdlog::info("train_gpt {} on {}", version(), device.name);
    spdlog::info("model   {}: {}; {} parameters, {}", model.config.name, describe(model.config),
                 format_count(model.parameter_count()), weights);
    if (model.lora) spdlog::info("lora    {}", describe_adapters(options, model));
    if (model.dropout > 0) {
        spdlog::info("dropout {:g}, of the embedding and of what attention and MLP add", options.dropout);
    }
    if (model.has_frozen()) {
        spdlog::info("trains  {}{}", describe_trainable(model),
                     options.freeze.empty() ? "" : "; --freeze=" + options.freeze);
    }
    if (const std::string base = describe_base(model, memory.plan.places); !base.empty()) {
        spdlog::info("base    {}", base);
    }
    spdlog::info("data    {}; {} {} for training, {} for validation{}", data.source->describe(),
                 format_count(data.train->size()), noun(data.train->size(), "token"),
                 format_count(data.validation->size()),
                 data.val_source == nullptr ? "" : ": " + data.val_source->describe());
    if (const std::string packing = sequences.describe(); !packing.empty()) spdlog::info("pack    {}", packing);
    const Parallel& parallel = memory.plan.parallel;
    const Places& places = memory.plan.places;
    const int64_t total = parallel.ranks * parallel.micro_batches * memory.plan.shape.N();
    const double trained = static_cast<double>(total) * static_cast<double>(options.steps);
    const bool is_stream = !reads_documents(*data.train, options.pack);
    const double epochs =
        trained / static_cast<double>(is_stream ? data.train->size() : sequences.per_epoch() * options.seq_len);
    if (parallel.ranks > 1) {
        const std::string cut = places.describe();
        spdlog::info("ranks   {}; ZeRO {}: {}{}", ranks, options.zero, cut.empty() ? "everything whole" : cut,
                     parallel.rank_invariant ? "; sums in an order that holds for any number of ranks" : "");
    } else if (options.zero > 0) {
        spdlog::info("ranks   1 rank: --zero={} has nobody to share with", options.zero);
    }
    if (chosen.placed) {
        spdlog::info("offload {}; --offload=auto: the fastest placement that fits",
                     options.offload == "none" ? "nothing" : places.describe());
    } else if (options.offload != "none") {
        spdlog::info("offload {}", places.describe());
    }
    spdlog::info("batch   {}{} x {} {}, {} per update, {} = {} {} ({:.1f} epochs)",
                 parallel.ranks > 1 ? fmt::format("{} ranks x ", parallel.ranks) : "", options.batch_size,
                 options.seq_len, noun(memory.plan.shape.N(), "token"),
                 counted(parallel.micro_batches, "micro-batch", "micro-batches"), counted(options.steps, "update"),
                 format_count(total * options.steps), noun(total * options.steps, "token"), epochs);
    spdlog::info("rate    {}", describe_schedule(options));
    if (const std::string formats = describe(formats_of(places)); !formats.empty()) {
        spdlog::info("state   {}{}", formats, places.rounds() ? "; bf16 of it is rounded stochastically" : "");
    }
    spdlog::info("plan    --recompute={}: {}; {:+.1f} % FLOPs, LM head in chunks of {}", memory.plan.policy,
                 chosen.words, 100 * simulation.extra_flops_ratio(), counted(memory.plan.logits_chunk_tokens, "token"));
    if (const std::string tiles = describe_tiles(options, memory.plan); !tiles.empty()) {
        spdlog::info("plan    tiles: {}", tiles);
    }
    spdlog::info("plan    fused: {}", chosen.fusion);
    spdlog::info("plan    arithmetic: {}", describe_arithmetic(model, memory.plan, device));
    if (!chosen.gemms.empty()) spdlog::info("plan    products: {}", chosen.gemms);
    if (chosen.delays_update()) {
        spdlog::info(
            "plan    update delayed: each layer's comes before its first use in the next forward; at once, a step "
            "would take {:.0f} ms",
            chosen.now_seconds * 1e3);
    }
    const double step_ms = chosen.step_seconds * 1e3;
    spdlog::info("plan    predicted {:.{}f} ms per step ({})", step_ms, step_ms < 10 ? 1 : 0, chosen.times.source);
    constexpr double kLongUpdate = 600;
    if (chosen.step_seconds > kLongUpdate) {
        spdlog::warn(
            "--total-batch-size={}: an update of {} takes about {}; between updates only can the run be "
            "stopped and saved",
            options.total_batch_size, counted(parallel.micro_batches, "micro-batch", "micro-batches"),
            format_duration(chosen.step_seconds));
    }
    for (const MemoryRow& row : memory.rows()) spdlog::info("memory  {:>12}  {}", format_bytes(row.bytes), row.name);
    if (device.memory_held > 0) {
        spdlog::info("memory  {:>12}  of the device held by CUDA and other programs, measured (not part of the sum)",
                     format_bytes(device.memory_held));
    }
    spdlog::info("memory  {:>12}  in all{}, allocated before step 1; activations peak at {}",
                 format_bytes(memory.total_bytes()), parallel.ranks > 1 ? " per rank" : "",
                 describe_step(model, memory.plan.steps[static_cast<size_t>(simulation.peak_step)]));
    if (memory.host_bytes() == 0) return;
    for (const MemoryRow& row : memory.host_rows()) {
        spdlog::info("host    {:>12}  {}", format_bytes(row.bytes), row.name);
    }
    const HostTraffic traffic = host_traffic_per_update(memory.plan);
    spdlog::info("host    {:>12}  in all{}, allocated before step 1; {} to the device and {} back per update",
                 format_bytes(memory.host_bytes()), parallel.ranks > 1 ? " per rank" : "", format_bytes(traffic.in),
                 format_bytes(traffic.out));
}

}  // namespace llmc
