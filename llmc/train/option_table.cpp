// The table of all options (options.h). One row per option, in the order of --help.
#include "llmc/backend/make_backend.h"
#include "llmc/base/dropout.h"
#include "llmc/base/optimizer.h"
#include "llmc/model/config.h"
#include "llmc/plan/device_profile.h"
#include "llmc/plan/policy.h"
#include "llmc/train/options.h"

#include <spdlog/fmt/fmt.h>

namespace llmc {
namespace {

constexpr double kMany = 1e15;
constexpr CommandSet kComputing = kTrain | kPlan | kGenerate | kEvaluate;
constexpr CommandSet kAll = kComputing | kImport | kExport | kTokenize | kReport;

const std::string& model_help() {
    static const std::string text =
        "Architecture with random weights: a preset (train_gpt explain presets), or llm.c's d6 .. d84; or a model to "
        "begin with: a Hugging Face folder, a run folder or checkpoint, an llm.c model file";
    return text;
}

std::vector<std::string> optimizer_names() {
    std::vector<std::string> names;
    for (const OptimizerRow& row : kOptimizers) names.emplace_back(row.name);
    return names;
}

const std::string& recompute_help() {
    static const std::string text = [] {
        std::string lines = "What the backward computes again instead of keeping it:";
        for (const PolicyRow& row : policies()) {
            lines += fmt::format("\n{}{}{} {}", row.level, *row.level ? " or " : "", row.name, row.description);
        }
        lines += "\nauto the fastest plan within --memory-budget";
        return lines + "\n`plan` takes several, separated by commas, and lists all if none is given";
    }();
    return text;
}

const std::string& profile_help() {
    static const std::string text = [] {
        std::string names;
        for (const DeviceProfile& profile : device_profiles()) names += (names.empty() ? "" : ", ") + profile.name;
        return "Plan for another device, in its memory and by its rates: " + names +
               "; or a TOML file of your own, as --calibrate writes one";
    }();
    return text;
}

OptionRow path(OptionRow row, PathKind kind = PathKind::Path) {
    row.path = kind;
    return row;
}

OptionRow repeated(OptionRow row) {
    row.repeats = true;
    return row;
}

OptionRow implied(OptionRow row, const char* value) {
    row.implied = value;
    return row;
}

OptionRow may_be_number(OptionRow row) {
    row.may_be_number = true;
    return row;
}

}  // namespace

const std::vector<OptionRow>& option_table() {
    using O = Options;
    constexpr const char* kModel = "Model";
    constexpr const char* kData = "Data and batch";
    constexpr const char* kOptimiser = "Optimisation";
    constexpr const char* kMemory = "Memory";
    constexpr const char* kDevice = "Device";
    constexpr const char* kRanks = "Ranks";
    constexpr const char* kRun = "Run";
    constexpr const char* kOutput = "Output";
    // clang-format off
    static const std::vector<OptionRow> table = {
        path({"-e,--model", &O::model, kComputing, kModel, model_help().c_str()}, PathKind::Model),
        {"--layers", &O::layers, kTrain | kPlan, kModel, "Transformer layers", 1, 1000},
        {"--channels", &O::channels, kTrain | kPlan, kModel, "Channels of the residual stream", 1, 1e6},
        {"--heads", &O::heads, kTrain | kPlan, kModel, "Query heads", 1, 1e5},
        {"--kv-heads", &O::kv_heads, kTrain | kPlan, kModel, "Key/value heads (grouped-query attention)", 1, 1e5},
        {"--head-size", &O::head_size, kTrain | kPlan, kModel, "Channels of a head (channels / heads)", 1, 256},
        {"--ffn-size", &O::ffn_size, kTrain | kPlan, kModel, "Hidden channels of the MLP", 1, 1e7},
        {"--vocab-size", &O::vocab_size, kTrain | kPlan | kTokenize, kModel,
         "Vocabulary (that of the data)", 1, kLargestVocabulary},
        {"--max-seq-len", &O::max_seq_len, kTrain | kPlan, kModel, "Longest sequence of the model", 1, 1e8},
        {"--rope-theta", &O::rope_theta, kTrain | kPlan, kModel, "Base of the rotary frequencies", 1, 1e12},
        {"--tied", &O::tied, kTrain | kPlan, kModel, "LM head shares the embedding", 0, 0, {"true", "false"}},

        path({"-i,--data", &O::data, kTrain | kPlan | kEvaluate, kData,
         "Text, JSON Lines or token files (llm.c's, or see --data-format), also packed (.gz, .zst): a file, a quoted "
         "pattern, or a folder"}, PathKind::Data),
        path({"--tokenizer", &O::tokenizer, kTrain | kPlan | kTokenize | kGenerate | kEvaluate | kImport, kData,
         "What turns text into tokens and back: 'bytes', or a tokenizer's folder or file; 'none': token files only, "
         "tokens are shown as numbers"}, PathKind::Tokenizer),
        may_be_number({"--document-token", &O::document_token, kTrain | kTokenize | kEvaluate, kData,
         "Token in front of every document of text, by name or id (the one that the tokenizer's files name)"}),
        {"--tokenizer-pattern", &O::tokenizer_pattern, kTrain | kTokenize | kEvaluate, kData,
         "Expression that cuts text for a rank file (that of the family with its number of ranks)"},
        {"--data-format", &O::data_format, kTrain | kPlan | kEvaluate | kTokenize, kData,
         "What the data is, where its content does not tell: text, instruction rows, or token ids without a header "
         "(nanoGPT) of 16 or 32 bits", 0, 0, {"auto", "text", "rows", "uint16", "uint32"}},
        {"--jsonl-field", &O::jsonl_field, kTrain | kPlan | kEvaluate | kTokenize, kData,
         "Read JSON Lines; every line is a document, in the field of this name"},
        path({"--chat-template", &O::chat_template, kTrain | kPlan | kTokenize | kGenerate, kData,
         "What makes texts of conversations: chatml, llama2, llama3, mistral, zephyr, qwen, or a file with a Jinja "
         "template (that of the tokenizer's folder)"}, PathKind::ChatTemplate),
        {"--score", &O::score, kTrain | kPlan | kTokenize, kData,
         "Which tokens of instruction rows count: those of answers, all, or of the last answer or the completion", 0, 0,
         {"assistant", "all", "completion"}},
        {"--special-tokens", &O::special_tokens, kTrain | kPlan | kEvaluate | kTokenize | kGenerate, kData,
         "Names of special tokens in the text, such as <|endoftext|>, become their ids"},
        {"--skip-bad-lines", &O::skip_bad_lines, kTrain | kPlan | kEvaluate | kTokenize, kData,
         "Pass over lines of JSON Lines, or rows, that are damaged or lack the field, and count them"},
        {"--no-scan", &O::no_scan, kTrain | kEvaluate, kData,
         "Do not look at all ids of token files before the start; each batch is checked", 0, 0, {}, false},
        path({"-j,--val-data", &O::val_data, kTrain, kData, "Validation data (the last 5 % of the training data)"},
             PathKind::Data),
        {"--pack", &O::pack, kTrain | kPlan, kData,
         "What sequences are made of: documents (as many as fit, each of which sees itself alone), or none (pieces of "
         "the whole data; of instruction data one row each). auto: documents for instruction data", 0, 0,
         {"auto", "documents", "none"}},
        {"-b,--batch-size", &O::batch_size, kTrain | kPlan | kEvaluate, kData,
         "Sequences in a micro-batch; auto: the fastest that divides the total batch and fits", 1, 1e6, {"auto"}},
        {"-t,--seq-len", &O::seq_len, kTrain | kPlan | kEvaluate, kData, "Tokens in a sequence", 1, 1e8},
        {"-d,--total-batch-size", &O::total_batch_size, kTrain | kPlan, kData,
         "Tokens per update over all ranks, a multiple of ranks times batch size times sequence length (one "
         "micro-batch each; 16 sequences where the batch size is auto)", 1, kMany},
        {"-x,--steps", &O::steps, kTrain, kData, "Updates", 1, kMany},

        {"-l,--learning-rate", &O::learning_rate, kTrain, kOptimiser,
         "Peak learning rate (of a model that has been trained: 3e-5)", 0, 1e3},
        {"-k,--lr-schedule", &O::lr_schedule, kTrain, kOptimiser, "After the warm-up", 0, 0,
         {"cosine", "linear", "constant", "wsd"}},
        {"-u,--warmup", &O::warmup, kTrain, kOptimiser, "Updates of linear warm-up (at most 5 % of the run)", 0, kMany},
        {"-q,--final-lr-fraction", &O::final_lr_fraction, kTrain, kOptimiser,
         "Learning rate at the end, as a fraction of the peak", 0, 1},
        {"--lr-decay-fraction", &O::lr_decay_fraction, kTrain, kOptimiser,
         "wsd: share of the updates that decay", 0, 1},
        {"-c,--weight-decay", &O::weight_decay, kTrain, kOptimiser, "Decoupled weight decay, on matrices only", 0, 100},
        {"--optimizer", &O::optimizer, kTrain | kPlan, kOptimiser,
         "What updates the parameters; lion wants a learning rate 3 to 10 times smaller", 0, 0, optimizer_names()},
        {"--moments", &O::moments, kTrain | kPlan, kOptimiser,
         "How the optimiser's moments are kept: bf16 is rounded stochastically; 8bit takes a byte and a scale for 256 "
         "of them, small tensors stay fp32", 0, 0, {"fp32", "bf16", "8bit"}},
        {"-w,--masters", &O::masters, kTrain | kPlan, kOptimiser,
         "Master weights of bf16 parameters; none: the parameters are the weights, rounded stochastically", 0, 0,
         {"fp32", "none"}},
        {"--gradients", &O::gradients, kTrain | kPlan, kOptimiser,
         "How gradients are kept between micro-batches; bf16 is rounded stochastically", 0, 0, {"fp32", "bf16"}},
        {"--beta1", &O::beta1, kTrain, kOptimiser, "The optimiser's first momentum", 0, 0.999999},
        {"--beta2", &O::beta2, kTrain, kOptimiser, "The optimiser's second momentum", 0, 0.999999},
        {"--adam-epsilon", &O::adam_epsilon, kTrain, kOptimiser, "AdamW's epsilon", 1e-30, 1},
        {"--grad-clip", &O::grad_clip, kTrain, kOptimiser, "Largest global gradient norm; 0 does not clip", 0, 1e30},
        repeated({"--freeze", &O::freeze, kTrain | kPlan, kOptimiser,
         "Parameters that do not train: patterns with *, ?, [ab] and 6-11, such as 'layers.0-5.*' or '*_bias', "
         "with commas between them (checkpoints have the names). Of patterns that match a name the one with more "
         "literal characters counts, then the later"}),
        repeated({"--trainable", &O::trainable, kTrain | kPlan, kOptimiser,
         "Parameters that train although --freeze matches them; without --freeze, nothing else trains"}),
        {"--lora", &O::lora, kTrain | kPlan, kOptimiser,
         "Train low-rank adapters of this rank instead of the weights, 16 for example (peak learning rate 2e-4, no "
         "weight decay)", 1, 65536},
        {"--lora-alpha", &O::lora_alpha, kTrain | kPlan, kOptimiser,
         "Adapters count alpha/rank times (twice the rank)", 1e-6, 1e6},
        {"--rslora", &O::rslora, kTrain | kPlan, kOptimiser, "Adapters count alpha/sqrt(rank) times"},
        {"--lora-targets", &O::lora_targets, kTrain | kPlan, kOptimiser,
         "Matrices with adapters: all, or names with commas between them, such as q,v or c_attn"},
        {"--lora-bias", &O::lora_bias, kTrain | kPlan, kOptimiser,
         "Biases that train beside adapters: those of the same matrices, or all", 0, 0, {"none", "lora_only", "all"}},
        {"--lora-dropout", &O::lora_dropout, kTrain | kPlan, kOptimiser,
         "Probability that an element of what adapters read is dropped in training; the others count 1/(1-P) times", 0,
         kLargestDropout},
        {"--dropout", &O::dropout, kTrain | kPlan, kOptimiser,
         "Probability that an element of the embedding, or of what attention and MLP add to the residual stream, is "
         "dropped in training; the others count 1/(1-P) times", 0, kLargestDropout},
        {"--max-skipped-steps", &O::max_skipped_steps, kTrain, kOptimiser,
         "Stop after so many updates in a row were skipped for non-finite gradients", 1, kMany},

        may_be_number({"-r,--recompute", &O::recompute, kTrain | kPlan, kMemory, recompute_help().c_str()}),
        {"--base-format", &O::base_format, kTrain | kPlan | kExport, kMemory,
         "How frozen matrices of layers are stored (auto: as the model's folder has them in NF4, else as activations "
         "are); nf4 has 4.5 bits each, nf4-double 4.13. With export --format=hf: as bitsandbytes quantises them", 0, 0,
         {"auto", "bf16", "fp32", "nf4", "nf4-double"}},
        {"--offload", &O::offload, kTrain | kPlan, kMemory,
         "What is in (pinned) host memory, and comes to the device for the steps that use it: a list of moments, "
         "masters, gradients, parameters, boundaries, or all, none; auto, the fastest placement that fits both "
         "memories; the same bits"},
        {"--update", &O::update, kTrain | kPlan, kMemory,
         "When parameters are updated: now, after the last micro-batch; delayed, each layer just before its first use "
         "in the next forward, so that what comes from host memory hides; auto, what is predicted to be faster; the "
         "same bits", 0, 0, {"auto", "now", "delayed"}},
        {"--calibrate", &O::calibrate, kTrain | kPlan, kMemory,
         "Time the model's operations on this device first; later runs of this shape know them", 0, 0, {}, false},
        path({"--device-profile", &O::device_profile, kPlan, kMemory, profile_help().c_str(), 0, 0, {}, false},
             PathKind::Profile),
        {"--link-gbs", &O::link_gbs, kTrain | kPlan, kMemory,
         "GB/s between the device and host memory, each way, instead of what is usual for it", 1e-3, 1e6},
        may_be_number({"--memory-budget", &O::memory_budget, kTrain | kPlan, kMemory,
         "Refuse to start above this, per rank: 6GiB, 512MiB, or 80% of the device (all that is available; with "
         "--device-profile, what that card leaves)", 0, 0, {}, false}),
        may_be_number({"--host-memory-budget", &O::host_memory_budget, kTrain | kPlan, kMemory,
         "The same of host memory, per rank: what --offload keeps there (all that is available)", 0, 0, {}, false}),
        {"--logits-chunk", &O::logits_chunk, kTrain | kPlan, kMemory,
         "Tokens the LM head handles at a time (by model and kind of device); decides the last bits", 1, kMany},
        {"--block-tokens", &O::block_tokens, kTrain | kPlan, kMemory,
         "Tokens that norms, products and activations handle at a time, in multiples of 128 (by model and kind of "
         "device); decides the last bits where a micro-batch has more", 1, kMany},
        may_be_number({"--tile-tokens", &O::tile_tokens, kTrain | kPlan, kMemory,
         "Layers' internals live for so many tokens at a time, in whole blocks: long sequences in little memory, the "
         "same bits; auto: as many as fit; none: for all", 0, 0, {}, false}),
        {"--no-fuse", &O::no_fuse, kTrain | kPlan, kMemory,
         "Run every operation by itself, to compare: without, those run as one that the device does faster so"},

        {"--ranks", &O::ranks, kPlan, kRanks,
         "Plan for one of so many ranks", 1, 65536, {}, false},
        {"-z,--zero", &O::zero, kTrain | kPlan, kRanks,
         "ZeRO: what ranks share instead of each having all of it: 0 nothing, 1 optimiser state, 2 and gradients, "
         "3 and parameters", 0, 3},
        {"--rank-invariant", &O::rank_invariant, kTrain | kPlan, kRanks,
         "The same bits with 1, 2, 4, ... ranks and any --zero: gradients are reduced after every micro-batch, in one "
         "fixed order; costs communication and memory"},
        {"--check-ranks", &O::check_ranks, kTrain, kRanks,
         "Compare the parameters of all ranks after every update, and note their checksum in metrics.jsonl", 0, 0, {},
         false},
        {"--no-overlap", &O::no_overlap, kTrain, kRanks,
         "Wait for communication where it begins, to measure what hiding it gains", 0, 0, {}, false},
        path({"--comm-init", &O::comm_init, kTrain, kRanks,
         "How ranks find each other: mpi; tcp (MASTER_ADDR, MASTER_PORT, RANK, WORLD_SIZE, or Slurm's variables); "
         "file:PATH on a shared disk; none; auto: as mpirun or torchrun started them", 0, 0, {}, false},
             PathKind::Link),
        {"--comm-timeout", &O::comm_timeout, kTrain, kRanks,
         "Seconds to wait for other ranks before the run is ended", 1, 1e6, {}, false},
        {"--comm-insecure", &O::comm_insecure, kTrain, kRanks,
         "Let ranks of other hosts join without LLMC_JOB_SECRET: anybody on the network can", 0, 0, {}, false},

        {"--device", &O::device, kComputing, kDevice,
         "cpu, cuda, cuda:1 for the second GPU, or auto: a GPU if there is one", 0, 0, {}, false},
        {"--dtype", &O::dtype, kTrain | kPlan | kEvaluate | kExport, kDevice,
         "Type of parameters and activations (auto: bf16 on a GPU, else fp32), or of the exported tensors (auto: fp32)",
         0, 0, {"auto", "fp32", "bf16"}},
        {"--threads", &O::threads, kComputing | kTokenize, kDevice,
         "CPU threads (one per core); never changes a result", 1, 4096, {}, false},
        {"--cpu-products", &O::cpu_products, kComputing, kDevice,
         "Matrix products of the CPU: our own for amd-avx512, amx, or, of fp32 numbers, any processor (fp32), or the "
         "library's; decides the last bits (auto: by processor; a run keeps to what it began with)", 0, 0,
         cpu_product_names()},
        {"--kernels", &O::kernels, kTrain | kPlan | kEvaluate, kDevice,
         "Attention of a GPU in bf16: hopper, the kernels for compute capability 9.0 and heads of 64 or 128 channels, "
         "compared with the others before they are used; portable, those for every card; decides the last bits "
         "(fastest: hopper where it can be; a run keeps to what it began with)", 0, 0,
         {"fastest", "hopper", "portable"}},
        {"--tf32", &O::tf32, kComputing, kDevice,
         "Matrix products of fp32 numbers on a GPU's tensor cores, which round them to TF32, 10 bits of mantissa; for "
         "--dtype=fp32"},
        path({"--gemm-algorithms", &O::gemm_algorithms, kTrain | kPlan, kDevice,
         "Matrix products of a GPU: first, the library's first algorithm for each; timed, of its best few and, for "
         "capability 9.0, our own kernel the fastest here, where that is worth 3 %; own, that kernel for all products "
         "in bf16 that it takes, with GELU or SwiGLU, or their gradients, behind them; or a file, as a run folder has "
         "it; decides the last bits (a run keeps to what it began with)"}, PathKind::Algorithms),
        {"--peak-tflops", &O::peak_tflops, kTrain, kDevice,
         "Peak of the device, for MFU (measured)", 0, 1e6, {}, false},

        path({"-o,--output-dir", &O::output_dir, kTrain, kRun, "Run folder (runs/MODEL-TIME)", 0, 0, {}, false}),
        path({"-y,--resume", &O::resume, kTrain, kRun,
         "Run folder or checkpoint to go on from; its options are kept", 0, 0, {}, false}),
        path({"--config", &O::config, kTrain | kPlan, kRun,
         "TOML file with options; the command line wins", 0, 0, {}, false}),
        {"--seed", &O::seed, kTrain | kGenerate, kRun, "Seed of initialisation, shuffling and sampling", 0, kMany},
        {"-v,--val-every", &O::val_every, kTrain, kRun,
         "Updates between validations (one before the first); 0: none", 0, kMany},
        {"--val-sequences", &O::val_sequences, kTrain, kRun,
         "Sequences per validation, the same ones at any batch size; at most one pass", 1, kMany},
        {"-s,--sample-every", &O::sample_every, kTrain, kRun,
         "Updates between samples (one at the end); 0: only then", 0, kMany},
        {"-g,--sample-length", &O::sample_length, kTrain, kRun, "Tokens of a sample; 0: no samples at all", 0, 1e6},
        {"--sample-prompt", &O::sample_prompt, kTrain, kRun,
         "How samples begin (end-of-text); with --special-tokens, names are ids"},
        {"-n,--checkpoint-every", &O::checkpoint_every, kTrain, kRun,
         "Updates between checkpoints (one at the end); 0: by time", 0, kMany},
        {"--checkpoint-minutes", &O::checkpoint_minutes, kTrain, kRun,
         "Minutes between checkpoints where --checkpoint-every is 0; 0: none", 0, 1e6},
        {"--keep-checkpoints", &O::keep_checkpoints, kTrain, kRun, "Newest checkpoints to keep; 0: all", 0, 1e6},
        {"--keep-best", &O::keep_best, kTrain, kRun,
         "Also keep the checkpoint with the lowest validation loss, which checkpoints/best names"},
        {"--log-every", &O::log_every, kTrain, kRun, "Updates between printed lines; metrics.jsonl has all", 1, kMany},
        {"--log-level", &O::log_level, kAll, kRun,
         "Least severe messages shown", 0, 0, {"debug", "info", "warn", "error"}, false},
        path({"--profile", &O::profile, kTrain, kRun,
         "Time every operation of one micro-batch; print a table, write a Chrome trace to this file", 0, 0, {}, false}),
        {"--dry-run", &O::dry_run, kTrain, kRun, "Print model, plan and memory, allocate nothing", 0, 0, {}, false},

        {"--json", &O::json, kPlan, kOutput, "One JSON object instead of tables", 0, 0, {}, false},
        {"--bytes", &O::bytes, kPlan, kOutput, "Sizes in bytes and times in ms, not rounded", 0, 0, {}, false},
        {"--list-steps", &O::list_steps, kPlan, kOutput, "Also print every step of the plan", 0, 0, {}, false},
        {"--frontier", &O::frontier, kPlan, kOutput,
         "Memory against time: the fastest plan for every budget, beside the fixed levels", 0, 0, {}, false},
        path({"--plot", &O::plot, kPlan, kOutput, "With --frontier: also draw it, FILE.svg", 0, 0, {}, false}),
        path({"--timeline", &O::timeline, kPlan, kOutput,
         "Draw the memory of the one level that --recompute names, step by step: FILE.svg", 0, 0, {}, false}),
        implied(may_be_number({"--what-fits", &O::what_fits, kPlan, kOutput,
         "The fastest setting for every level in so much memory, and the largest batch and the longest sequence: all "
         "that the device or --device-profile has, or 24GiB, or 80%", 0, 0, {}, false}), kWholeDevice),
        {"--all-presets", &O::all_presets, kPlan, kOutput,
         "With --what-fits: a line for every preset, trained in full and in part", 0, 0, {}, false},
        path({"--emit-config", &O::emit_config, kPlan, kOutput,
         "With --what-fits: write the fastest setting that fits to FILE.toml, for --config", 0, 0, {}, false}),

        path({"--hellaswag", &O::hellaswag, kEvaluate, kData, "HellaSwag file, as llm.c makes it", 0, 0, {}, false}),
        path({"--run", &O::run, kGenerate | kEvaluate | kExport, kModel, "Run folder or checkpoint", 0, 0, {}, false}),
        path({"--adapter", &O::adapter, kTrain | kGenerate | kEvaluate | kExport, kRun,
         "Adapter's folder, as PEFT writes it: to train it further, or to use its model", 0, 0, {}, false}),
        path({"--from", &O::from, kImport, kModel,
         "Hugging Face folder, llm.c model file, run folder or checkpoint", 0, 0, {}, false}),
        {"--format", &O::format, kExport, kOutput,
         "Hugging Face folder, llm.c model file, GGUF file for llama.cpp, or the adapter alone, for PEFT", 0, 0,
         {"hf", "llmc", "gguf", "peft"}, false},
        {"--merge", &O::merge, kExport, kOutput,
         "Adapters become part of the weights (as they do in every format but peft)", 0, 0, {}, false},
        {"--gguf-type", &O::gguf_type, kExport, kOutput,
         "With --format=gguf: type of its matrices; q8_0 has 8 bits and a scale for 32 of them", 0, 0,
         {"f32", "f16", "bf16", "q8_0"}, false},
        {"words", &O::words, kExplain | kCompletion, kOutput, "What to explain; bash or zsh", 0, 0, {}, false},
        path({"runs", &O::runs, kReport, kModel, "Run folders (the newest in runs/)", 0, 0, {}, false}),
        path({"--out", &O::out, kImport | kExport | kTokenize | kReport, kOutput,
         "Folder or file to make, or beginning of the token files' names; it must not be there, but for a report "
         "(report.html in the run's folder, or here for several runs)", 0, 0, {}, false}),
        path({"files", &O::files, kTokenize, kData,
         "Text files, quoted patterns for them, folders, or - for standard input", 0, 0, {}, false}, PathKind::Data),
        {"--shard-tokens", &O::shard_tokens, kTokenize, kOutput, "Tokens in a file", 1, 2147483647, {}, false},
        {"--val-fraction", &O::val_fraction, kTokenize, kOutput,
         "Share of the text, from its beginning, for validation; at most one file", 0, 1, {}, false},
        {"--val-tokens", &O::val_tokens, kTokenize, kOutput, "The same, as a number of tokens", 1, kMany, {}, false},
        path({"--llmc-tokenizer", &O::llmc_tokenizer, kTokenize, kOutput,
         "Also write the tokenizer as llm.c's file, which decodes", 0, 0, {}, false}),
        {"--train-bpe", &O::train_bpe, kTokenize, "Learning",
         "Learn a byte-level BPE of --vocab-size tokens and write its files into the folder --out", 0, 0, {}, false},
        {"--prompt", &O::prompt, kGenerate, "Generation",
         "How the text begins; the token that separates documents goes in front of it", 0, 0, {}, false},
        {"--chat", &O::chat, kGenerate, "Generation",
         "Answer the --prompt as a turn of a conversation; without one, talk: every line of standard input is a turn",
         0, 0, {}, false},
        {"--system", &O::system, kGenerate, "Generation", "With --chat: the system message in front", 0, 0, {}, false},
        {"--no-bos", &O::no_bos, kGenerate, "Generation", "Nothing in front of the prompt", 0, 0, {}, false},
        {"--ignore-eos", &O::ignore_eos, kGenerate, "Generation",
         "Go on after a token that ends a document (the tokenizer's, and eos_token_id of the model's configuration)",
         0, 0, {}, false},
        {"--stop", &O::stop, kGenerate, "Generation", "End where this text would come, without it", 0, 0, {}, false},
        {"--length", &O::length, kGenerate, "Generation", "New tokens per sample", 1, 1e9, {}, false},
        {"--samples", &O::samples, kGenerate, "Generation", "Texts to generate", 1, 1e6, {}, false},
        {"--temperature", &O::temperature, kGenerate,
         "Generation", "0: always the most likely token", 0, 100, {}, false},
        {"--top-k", &O::top_k, kGenerate,
         "Generation", "Draw from the k most likely tokens; 0: from all", 0, 1e8, {}, false},
        {"--top-p", &O::top_p, kGenerate,
         "Generation", "Draw from the fewest tokens with this probability", 1e-6, 1, {}, false},
    };
    // clang-format on
    return table;
}

const std::vector<CommandRow>& subcommand_table() {
    static const std::vector<CommandRow> table = {
        {"plan", Command::Plan, kPlan, "Print the memory of every --recompute level, without allocating it"},
        {"generate", Command::Generate, kGenerate, "Generate text with a trained model"},
        {"evaluate", Command::Evaluate, kEvaluate,
         "Loss and bits per byte of a trained model on a text, and HellaSwag"},
        {"import", Command::Import, kImport, "Make a run folder of a model from elsewhere"},
        {"export", Command::Export, kExport, "Write a trained model for transformers, llm.c or llama.cpp"},
        {"report", Command::Report, kReport, "Write a page of runs: curves, memory, plan, samples, options"},
        {"tokenize", Command::Tokenize, kTokenize, "Turn text into token files, or learn a vocabulary from it"},
        {"explain", Command::Explain, kExplain, "Say more about an option, a level of --recompute, a preset, a card"},
        {"completion", Command::Completion, kCompletion, "Print what completes these commands in bash or zsh"},
        {"manual", Command::Manual, kManual, "Print the manual page: train_gpt manual | man -l -"},
    };
    return table;
}

std::string OptionRow::name() const {
    const std::string all = flags;
    const size_t dashes = all.rfind("--");
    return dashes == std::string::npos ? all : all.substr(dashes + 2);
}

}  // namespace llmc
