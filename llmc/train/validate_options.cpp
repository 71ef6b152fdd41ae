// What no single option can know: combinations that make no sense, refused before anything is allocated.
#include "llmc/base/advice_text.h"
#include "llmc/base/error.h"
#include "llmc/base/program_name.h"
#include "llmc/plan/policy.h"
#include "llmc/train/lora_options.h"
#include "llmc/train/offload.h"
#include "llmc/train/options.h"
#include "llmc/train/profile_file.h"
#include "llmc/train/ranks.h"
#include "llmc/train/tile_options.h"

#include <algorithm>
#include <utility>

namespace llmc {
namespace {

constexpr const char* kOnlyJsonLines =
    "only JSON Lines have such lines; add --jsonl-field, or for instruction rows --data-format=rows";

bool may_have_lines(const Options& options) { return !options.jsonl_field.empty() || options.data_format == "rows"; }

/// An option, whether another makes it meaningless, and why.
struct Ignored {
    const char* name;
    bool ignored;
    const char* why;
};

std::vector<Ignored> rows_of_run_and_plan(const Options& options) {
    // Where a run's own held-out data is evaluated, it is read as it was for training.
    const bool may_lack_data = options.command == Command::Evaluate || options.command == Command::Plan;
    const bool generates = options.command == Command::Generate;
    const bool no_data = may_lack_data && !options.was_given("data");
    const bool only_hellaswag = options.command == Command::Evaluate && no_data && !options.hellaswag.empty();
    const bool what_fits = !options.what_fits.empty();
    return {
        {"lr-decay-fraction", options.lr_schedule != "wsd", "only --lr-schedule=wsd has it"},
        {"final-lr-fraction", options.lr_schedule == "constant", "--lr-schedule=constant does not fall"},
        {"sample-every", options.sample_length == 0, "there are no samples with --sample-length=0"},
        {"sample-prompt", options.sample_length == 0, "there are no samples with --sample-length=0"},
        {"val-sequences", options.val_every == 0, "there is no validation with --val-every=0"},
        {"keep-best", options.val_every == 0, "there is no validation with --val-every=0"},
        {"checkpoint-minutes", options.checkpoint_every > 0, "--checkpoint-every says which steps have one"},
        {"cpu-products", options.device.starts_with("cuda"), "--device=cuda forms its own"},
        {"list-steps", options.json, "--json has no list of steps"},
        {"plot", !options.frontier, "it draws the --frontier; add that"},
        {"bytes", options.json, "--json has bytes in any case"},
        {"list-steps", options.frontier, "--frontier compares plans; leave it out"},
        {"recompute", options.frontier, "--frontier has every level and auto"},
        {"list-steps", what_fits, "--what-fits tries many plans; leave it out"},
        {"memory-budget", what_fits && options.what_fits != kWholeDevice, "--what-fits names the memory"},
        {"batch-size", what_fits, "--what-fits finds the fastest and the largest"},
        {"total-batch-size", what_fits, "--what-fits is about one micro-batch"},
        {"model", options.all_presets, "--all-presets goes through all of them"},
        {"freeze", options.all_presets, "--all-presets has its own parts"},
        {"host-memory-budget",
         options.offload == "none" && options.recompute.find("offload") == std::string::npos &&
             options.recompute.find("auto") == std::string::npos && !what_fits && !options.frontier,
         "nothing is kept in host memory; add --offload"},
        {"calibrate", what_fits, "--what-fits tries many shapes; leave it out"},
        {"zero", options.command == Command::Plan && options.ranks == 1,
         "one rank has nobody to share with; add --ranks"},
        {"adam-epsilon", options.optimizer != "adamw", "only --optimizer=adamw has it"},
        {"comm-timeout", options.comm_init == "none", "there are no other ranks with --comm-init=none"},
        {"comm-insecure", options.comm_init == "none", "there are no other ranks with --comm-init=none"},
        {"calibrate", !options.device_profile.empty(), "--device-profile has another device's times"},
        {"profile", options.dry_run, "--dry-run runs no operation"},
        {"gguf-type", options.command == Command::Export && options.format != "gguf",
         "it is of --format=gguf; choose with --dtype"},
        {"top-k", options.temperature == 0, "--temperature=0 takes the most likely token"},
        {"top-p", options.temperature == 0, "--temperature=0 takes the most likely token"},
        {"special-tokens", generates && options.prompt.empty(), "there is no --prompt"},
        {"samples", options.chat && options.prompt.empty(), "a conversation has one answer at a time; add --prompt"},
        {"seq-len", only_hellaswag, "--hellaswag has sequences of its own; add --data, or leave it out"},
        {"no-scan", only_hellaswag, "--hellaswag is no token file; add --data, or leave it out"},
        {"data-format", no_data, "there is no --data"},
        {"jsonl-field", no_data, "there is no --data"},
        {"special-tokens", no_data, "there is no --data"},
        {"skip-bad-lines", no_data, "there is no --data"},
        {"document-token", no_data, "there is no --data"},
        {"chat-template", no_data, "there is no --data"},
        {"score", no_data, "there is no --data"},
        {"chat-template", generates && !options.chat, "only conversations have one; add --chat"},
        {"system", !options.chat, "only conversations have one; add --chat"},
        {"no-bos", options.chat, "--chat begins as the chat template says"},
        {"ignore-eos", options.chat, "an answer of --chat ends with its turn"},
        {"special-tokens", options.chat, "in conversations, names of special tokens are always their ids"},
        {"skip-bad-lines", !no_data && !may_have_lines(options), kOnlyJsonLines},
    };
}

std::vector<Ignored> rows_of_tokenize(const Options& options) {
    std::vector<Ignored> rows = {
        {"vocab-size", !options.train_bpe, "only --train-bpe chooses a vocabulary"},
        {"skip-bad-lines", !may_have_lines(options), kOnlyJsonLines},
    };
    for (const char* name : {"chat-template", "score", "tokenizer", "special-tokens", "document-token",
                             "tokenizer-pattern", "shard-tokens", "val-fraction", "val-tokens", "llmc-tokenizer"}) {
        rows.push_back({name, options.train_bpe, "--train-bpe only learns a vocabulary"});
    }
    return rows;
}

void validate_tokenize(const Options& options) {
    if (options.files.empty()) fail_usage("tokenize needs text files: {} tokenize [options] FILE...", program_name());
    if (options.out.empty()) {
        fail_usage("tokenize needs --out=NAME (token files NAME_train_000000.bin ..., or with --train-bpe a folder)");
    }
    if (options.data_format.starts_with("uint")) {
        fail_usage("--data-format={}: those are tokens already; train on them with --data and --data-format",
                   options.data_format);
    }
    if (options.train_bpe) {
        if (options.vocab_size == 0) {
            fail_usage("tokenize --train-bpe needs --vocab-size=N, the number of tokens to learn, such as 4096");
        }
        if (options.vocab_size < 258) {
            fail_usage("--vocab-size={}: --train-bpe needs at least 258: 256 bytes, end-of-text and a token to learn",
                       options.vocab_size);
        }
        return;
    }
    if (options.tokenizer.empty()) {
        fail_usage(
            "tokenize needs --tokenizer=PATH (a folder or file of GPT-2, Hugging Face, Llama 3 or SentencePiece, or "
            "'bytes'), or --train-bpe");
    }
    if (options.was_typed("val-fraction") && options.was_typed("val-tokens")) {
        fail_usage("--val-tokens={}: says the same as --val-fraction={}; leave one of them out", options.val_tokens,
                   options.val_fraction);
    }
    if (options.out.ends_with('/')) {
        fail_usage("--out={}: is a folder; add how the files' names begin, such as {}text", options.out, options.out);
    }
}

/// The reports of `plan`: one at a time, and pictures only where they can be drawn.
void validate_plan(const Options& options) {
    const bool what_fits = options.was_given("what-fits"), timeline = options.was_given("timeline");
    if (options.frontier && what_fits) fail_usage("--what-fits: is another report than --frontier; ask for one");
    if (timeline && (options.frontier || what_fits)) {
        fail_usage("--timeline={}: draws one plan; leave out {}", options.timeline,
                   what_fits ? "--what-fits" : "--frontier");
    }
    if (timeline && (!options.was_given("recompute") || options.recompute.find(',') != std::string::npos)) {
        fail_usage("--timeline={}: draws the plan of one level; name it, such as --recompute=1", options.timeline);
    }
    if (options.frontier && options.batch_size == 0) {
        fail_usage("--frontier: compares plans of one shape; give --batch-size as a number");
    }
    if (what_fits && options.what_fits != kWholeDevice) {
        parse_budget("--what-fits", options.what_fits, int64_t{1} << 40);
    }
    if (options.was_given("emit-config") && options.all_presets) {
        fail_usage("--emit-config={}: writes the setting of one model; name it with --model, without --all-presets",
                   options.emit_config);
    }
    if (options.was_given("emit-config") && !options.emit_config.ends_with(".toml")) {
        fail_usage("--emit-config={}: is written as TOML; end the file's name in .toml", options.emit_config);
    }
    if (!options.device_profile.empty()) device_profile_of(options);
    for (const auto& [name, path] : {std::pair("plot", options.plot), std::pair("timeline", options.timeline)}) {
        if (options.was_given(name) && !path.ends_with(".svg")) {
            fail_usage("--{}={}: is drawn as SVG; end the file's name in .svg", name, path);
        }
    }
}

/// A GGUF file has types of its own.
void require_type_of_format(const Options& options) {
    const bool is_gguf = options.format == "gguf";
    if (is_gguf && options.was_typed("dtype")) {
        fail_usage("--dtype={}: --format=gguf takes --gguf-type instead (f32, f16, bf16, q8_0); leave --dtype out",
                   options.dtype);
    }
    if (options.base_format == "bf16" || options.base_format == "fp32") {
        fail_usage("--base-format={}: an export has all tensors in the type that --dtype says; take --dtype={}",
                   options.base_format, options.base_format);
    }
    if (options.base_format != "auto" && options.format != "hf") {
        fail_usage("--base-format={}: --format={} cannot have it; choose --format=hf, or leave --base-format out",
                   options.base_format, options.format);
    }
}

/// What the commands that take a trained model cannot do without.
void require_operands(const Options& options) {
    const auto required = [](const char* command, const std::string& value, const char* wanted) {
        if (value.empty()) fail_usage("{} needs {}", command, wanted);
    };
    if (options.command == Command::Import) {
        required("import", options.from, "--from=PATH (a Hugging Face folder, or an llm.c model file)");
        required("import", options.out, "--out=RUN_FOLDER (a new folder, such as runs/NAME)");
        return;
    }
    if (options.command == Command::Export) {
        required("export", options.run, "--run=RUN_FOLDER (a folder under runs/, or a checkpoint)");
        required("export", options.out, "--out=PATH (a new folder, or for --format=llmc and gguf a new file)");
        return require_type_of_format(options);
    }
    const bool generates = options.command == Command::Generate;
    if (options.run.empty() && !options.was_given("model")) {
        fail_usage(
            "{} needs --run=RUN_FOLDER (a folder under runs/, or a checkpoint), or --model=PATH (a Hugging Face "
            "folder, or an llm.c model file)",
            generates ? "generate" : "evaluate");
    }
    if (!options.run.empty() && options.was_given("model")) {
        fail_usage("--model={}: --run={} already names the model; leave one of them out", options.model, options.run);
    }
    if (!generates && options.run.empty() && !options.was_given("data") && options.hellaswag.empty()) {
        fail_usage("evaluate needs --data=FILE or --hellaswag=FILE (or a --run, whose held-out data it takes)");
    }
}

/// The tokens per update of a file or of the run that goes on, which what was typed does not divide.
[[noreturn]] void refuse_remainder(const Options& options, int64_t at_once) {
    const int64_t total = options.total_batch_size, T = options.seq_len;
    const std::string source = options.resume.empty() ? "of the config file" : "of the run";
    if (!options.was_typed("batch-size")) {
        fail_usage(
            "--seq-len={}: the {} tokens per update {} are no multiple of {}{}; give another "
            "--total-batch-size, too",
            T, total, source, at_once, options.batch_size > 1 ? fmt::format(" ({} x {})", options.batch_size, T) : "");
    }
    int64_t less = std::min(options.batch_size, total / T);
    while (less > 0 && total % (less * T) != 0) --less;
    fail_usage(
        "--batch-size={}: the {} tokens per update {} are no multiple of {} x {} = {}; {}give another "
        "--total-batch-size for other updates",
        options.batch_size, total, source, options.batch_size, T, at_once,
        less > 0 ? fmt::format("choose --batch-size={}, or ", less) : "");
}

}  // namespace

void require_whole_updates(const Options& options) {
    const int64_t micro_batch = options.batch_size * options.seq_len;
    const int64_t at_once = micro_batch == 0 ? options.seq_len : micro_batch;
    if (options.total_batch_size % at_once == 0) return;
    const bool is_from_file = options.was_given("total-batch-size") && !options.was_typed("total-batch-size");
    if (is_from_file && (options.was_typed("batch-size") || options.was_typed("seq-len"))) {
        refuse_remainder(options, at_once);
    }
    const std::string nearest = nearest_multiples(options.total_batch_size, at_once);
    if (micro_batch == 0) {
        fail_usage("--total-batch-size={}: must be a multiple of --seq-len={}; take {}", options.total_batch_size,
                   options.seq_len, nearest);
    }
    fail_usage(
        "--total-batch-size={}: must be a multiple of --batch-size times --seq-len, {} x {} = {} tokens; take {}",
        options.total_batch_size, options.batch_size, options.seq_len, micro_batch, nearest);
}

void validate(const Options& options) {
    validate_lora(options);
    if (options.data_format == "rows" && !options.jsonl_field.empty() && options.was_typed("jsonl-field")) {
        fail_usage("--jsonl-field={}: instruction rows have fields of their own; leave it out with --data-format=rows",
                   options.jsonl_field);
    }
    const bool are_typed = options.was_typed("data-format") || options.was_typed("jsonl-field");
    if (are_typed && options.data_format.starts_with("uint") && !options.jsonl_field.empty()) {
        fail_usage("--jsonl-field={}: token ids have no fields; leave it out with --data-format={}",
                   options.jsonl_field, options.data_format);
    }
    for (const auto& [name, path] : {std::pair("data", options.data), std::pair("val-data", options.val_data)}) {
        if (path != "-" || options.command == Command::Evaluate) continue;
        fail_usage(
            "--{}=-: standard input can be read only once, by one rank; save it to a file, or make token files of "
            "it: {} tokenize [options] -",
            name, program_name());
    }
    if (options.command == Command::Tokenize) return validate_tokenize(options);
    const bool only_reads = options.command == Command::Report || options.command == Command::Explain ||
                            options.command == Command::Completion || options.command == Command::Manual;
    if (only_reads) return;
    if (options.command != Command::Train && options.command != Command::Plan) {
        return require_operands(options);
    }
    if (options.command == Command::Train && options.recompute != "auto") find_policy(options.recompute);
    if (!options.memory_budget.empty()) parse_budget("--memory-budget", options.memory_budget, int64_t{1} << 40);
    if (!options.host_memory_budget.empty()) {
        parse_budget("--host-memory-budget", options.host_memory_budget, int64_t{1} << 40);
    }
    validate_offload(options);
    given_tile_tokens(options);
    if (options.rank_invariant && options.gradients != "fp32") {
        fail_usage(
            "--rank-invariant: adds up micro-batches in an order that holds for any number of ranks, in fp32; take "
            "--gradients=fp32, or leave --rank-invariant out");
    }
    // Where a run goes on, another length of sequences is first of all another run (resume_options.h).
    if (options.resume.empty() || !options.was_typed("seq-len")) require_whole_updates(options);
    // A file's warm-up may be longer than a short trial of the same settings.
    if (options.warmup > options.steps && options.was_typed("warmup")) {
        fail_usage("--warmup={}: longer than the run, --steps={}", options.warmup, options.steps);
    }
    if (options.command == Command::Plan) {
        validate_plan(options);
        require_divisible(options);
    }
    const std::string& init = options.comm_init;
    const bool is_file = init.starts_with("file:") && init.size() > 5;
    if (!is_file && init != "auto" && init != "mpi" && init != "tcp" && init != "none") {
        fail_usage("--comm-init={}: must be auto, mpi, tcp, file:PATH or none", init);
    }
}

std::vector<std::string> without_effect(const Options& options) {
    const bool tokenizes = options.command == Command::Tokenize;
    std::vector<std::string> lines;
    for (const Ignored& row : tokenizes ? rows_of_tokenize(options) : rows_of_run_and_plan(options)) {
        if (!row.ignored || !options.was_typed(row.name)) continue;
        lines.push_back(fmt::format("--{}: has no effect; {}", row.name, row.why));
    }
    return lines;
}

}  // namespace llmc
