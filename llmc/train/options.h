// Options: every choice a user has, as fields of one struct and rows of one table. The parser, --help, config.toml and
// the tests iterate the table; the rest of the program reads the struct, which is constant after the parse. What a run
// makes of it (a device for "auto", a batch size) is a RunDescription (run_description.h). The defaults are the demo: a
// small GPT-2 on the demo text, about two minutes on two CPU cores.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace llmc {

enum class Command : uint8_t {
    Train,
    Plan,
    Generate,
    Evaluate,
    Import,
    Export,
    Tokenize,
    Report,
    Explain,
    Completion,
    Manual,
    Help
};

constexpr const char* kWholeDevice = "device";       ///< What --what-fits without a value stands for.
constexpr const char* kFirstAlgorithms = "first";    ///< --gemm-algorithms: the library's first of each product ...
constexpr const char* kTimedAlgorithms = "timed";    ///< ... or the fastest of its best few and our own kernel ...
constexpr const char* kOwnAlgorithms = "own";        ///< ... or our own kernel wherever it forms the product.
constexpr int64_t kLargestVocabulary = 100'000'000;  ///< That --vocab-size takes.

struct Options {
    Command command = Command::Train;

    // Model. Overrides of the preset are 0 (or empty) where not given.
    std::string model = "gpt2-nano";
    int64_t layers = 0, heads = 0, kv_heads = 0, channels = 0, head_size = 0, ffn_size = 0;
    int64_t vocab_size = 0, max_seq_len = 0;
    double rope_theta = 0;
    std::string tied;

    // Data and batch.
    std::string data = "data/demo.txt";
    std::string val_data;
    std::string tokenizer;
    std::string document_token;
    std::string tokenizer_pattern;
    std::string data_format = "auto";
    std::string jsonl_field;
    std::string chat_template;
    std::string score = "assistant";
    bool special_tokens = false;
    bool skip_bad_lines = false;
    bool no_scan = false;
    std::string pack = "auto";
    int64_t batch_size = 16;  ///< Sequences in a micro-batch; 0 = auto, until the plan is chosen.
    int64_t seq_len = 128;
    bool packed = false, partly_scored = false;  ///< No options: what the data's sequences are (BatchShape).
    int64_t total_batch_size = 0;                ///< Tokens per update; 0 = one micro-batch.
    int64_t steps = 2000;

    // Optimisation.
    double learning_rate = 3e-3;
    std::string lr_schedule = "cosine";
    int64_t warmup = 100;
    double final_lr_fraction = 0.1;
    double lr_decay_fraction = 0.2;
    double weight_decay = 0.1;
    double beta1 = 0.9, beta2 = 0.95;
    double adam_epsilon = 1e-8;
    double grad_clip = 1.0;
    double dropout = 0;
    int64_t max_skipped_steps = 5;
    std::string optimizer = "adamw";
    std::string moments = "fp32", masters = "fp32", gradients = "fp32";
    /// Patterns, each frozen or (with "!") trainable, as parse_patterns() reads them and in the order in which they
    /// count: after the parse --trainable has joined --freeze.
    std::string freeze, trainable;

    // Adapters. What --adapter says of them is filled in before the model is made.
    int64_t lora = 0;       ///< Rank; 0: none.
    double lora_alpha = 0;  ///< 0: twice the rank.
    std::string lora_targets = "all";
    std::string lora_bias = "none";
    bool rslora = false;
    double lora_dropout = 0;
    std::string adapter;  ///< Folder to begin with, or to generate, evaluate and export with.
    bool merge = false;

    // Memory.
    std::string recompute = "0";
    std::string memory_budget, host_memory_budget;
    std::string offload = "none";
    std::string base_format = "auto";  ///< Of train and plan a WeightFormat's name, or "auto": as activations are.
    std::string update = "auto";
    bool calibrate = false;
    std::string device_profile;
    double link_gbs = 0;  ///< 0 = as the profile, or what is usual.
    int64_t logits_chunk = 0;
    int64_t block_tokens = 0;          ///< 0 = by model, shape and kind of device.
    std::string tile_tokens = "none";  ///< A number, "auto" or "none".
    bool no_fuse = false;

    // Ranks. How many there are comes from what started them; `plan` is told.
    int64_t ranks = 1;
    int64_t zero = 0;
    bool rank_invariant = false;
    bool check_ranks = false;
    bool no_overlap = false;
    std::string comm_init = "auto";
    double comm_timeout = 300;
    bool comm_insecure = false;
    int64_t memory_share = 0;        ///< No option: bytes every rank has available, where several agreed on it.
    std::string memory_share_limit;  ///< What bounds it, and on which rank; empty with one rank.
    int64_t memory_sharing = 1;      ///< No option: ranks that share the memory of this one's device.
    int64_t host_sharing = 1;        ///< No option: ranks of this one's host ...
    int64_t host_share = 0;          ///< ... and bytes of host memory that every rank has available, as memory_share.

    // Device.
    std::string device = "auto";
    std::string dtype = "auto";
    int64_t threads = 0;
    std::string cpu_products = "auto";
    std::string kernels = "fastest";
    bool tf32 = false;
    std::string gemm_algorithms = kFirstAlgorithms;  ///< Or another of these words, or a file.
    double peak_tflops = 0;

    // Run.
    std::string output_dir;
    std::string resume;
    std::string config;
    int64_t seed = 1337;
    int64_t val_every = 250;
    int64_t val_sequences = 320;
    int64_t sample_every = 0;
    int64_t sample_length = 256;
    std::string sample_prompt;
    int64_t checkpoint_every = 0;
    double checkpoint_minutes = 30;
    int64_t keep_checkpoints = 3;
    bool keep_best = false;
    int64_t log_every = 10;
    std::string log_level = "info";
    bool dry_run = false;
    std::string profile;

    // plan
    bool json = false;
    bool bytes = false;
    bool list_steps = false;
    bool frontier = false;
    std::string plot;
    std::string timeline;
    std::string what_fits;  ///< kWholeDevice: what a run may take there.
    bool all_presets = false;
    std::string emit_config;

    // generate
    std::string run;
    std::string prompt;
    int64_t length = 500;
    int64_t samples = 1;
    double temperature = 0.8;
    int64_t top_k = 0;
    double top_p = 1.0;
    std::string stop;
    bool chat = false;
    std::string system;
    bool no_bos = false;
    bool ignore_eos = false;

    // evaluate, import, export
    std::string hellaswag;
    std::string from;
    std::string out;
    std::string format = "hf";
    std::string gguf_type = "f16";

    std::vector<std::string> runs;   ///< Of report.
    std::vector<std::string> words;  ///< Of explain, completion.

    // tokenize
    std::vector<std::string> files;
    int64_t shard_tokens = 100'000'000;
    double val_fraction = 0.05;
    int64_t val_tokens = 0;  ///< 0 = as val_fraction says.
    std::string llmc_tokenizer;
    bool train_bpe = false;

    std::vector<std::string> remarks;  ///< Lines for say_remarks().
    std::string help_text;             ///< No option: what --help or --version print.

    /// Names of options that were given on the command line or in a config file, as opposed to defaults, and whether
    /// they were typed, on the command line.
    std::map<std::string, bool, std::less<>> given;
    bool was_given(std::string_view name) const { return given.find(name) != given.end(); }
    bool was_typed(std::string_view name) const {
        const auto found = given.find(name);
        return found != given.end() && found->second;
    }
};

/// Which commands take an option.
using CommandSet = uint16_t;
enum CommandMask : CommandSet {
    kTrain = 1,
    kPlan = 2,
    kGenerate = 4,
    kEvaluate = 8,
    kImport = 16,
    kExport = 32,
    kTokenize = 64,
    kReport = 128,
    kExplain = 256,
    kCompletion = 512,
    kManual = 1024
};

using OptionField = std::variant<std::string Options::*, int64_t Options::*, double Options::*, bool Options::*,
                                 std::vector<std::string> Options::*>;

/// Where the text of an option is a path, what else it may be. Paths are what config_paths.h makes absolute, or counts
/// from a file.
enum class PathKind : uint8_t {
    None,          ///< It is no path.
    Path,          ///< Nothing else.
    Data,          ///< A pattern, or "-".
    Model,         ///< A preset's name.
    Tokenizer,     ///< "bytes" or "none".
    ChatTemplate,  ///< A family's name.
    Link,          ///< A word, or "file:" and a path.
    Profile,       ///< A device's name (profile_file.h).
    Algorithms,    ///< "first" or "timed".
};

/// One option. Numbers outside [minimum, maximum] and texts outside `choices` (if there are any) are refused. A number
/// may have one choice, a word that stands for 0.
struct OptionRow {
    const char* flags;  ///< As CLI11 writes them: "-b,--batch-size"; without dashes what stands alone.
    OptionField field;
    CommandSet commands;
    const char* group;
    const char* help;
    double minimum = 0;
    double maximum = 0;
    std::vector<std::string> choices = {};
    bool shapes_run = true;          ///< Saved in config.toml.
    PathKind path = PathKind::None;  ///< Of a text.
    bool may_be_number = false;      ///< A text that a config file may have without quotes.
    bool repeats = false;            ///< A text that may be given several times: a list with commas.
    const char* implied = nullptr;   ///< The value that it has where it stands alone; null: it needs one.
    std::string name() const;        ///< "batch-size".
    bool is_flag() const { return std::holds_alternative<bool Options::*>(field); }
    bool stands_alone() const { return flags[0] != '-'; }
};

/// All options, in the order of --help.
const std::vector<OptionRow>& option_table();

/// "N", "true|false", "TEXT": what stands for an option's value.
std::string value_name(const OptionRow& row);

struct CommandRow {
    const char* name;
    Command command;
    CommandSet mask;
    const char* help;
};
/// All subcommands; without one of them the program trains.
const std::vector<CommandRow>& subcommand_table();

/// The commands that take an option: "training, plan and evaluate".
std::string commands_with(const OptionRow& row);

/// Parses the command line (and --config, and on --resume the run's own config.toml under it). --help and --version are
/// Command::Help, with the text to print. Anything wrong is an Error with exit code 2 that names the option, the value,
/// and what to write instead.
Options parse_options(int argc, const char* const* argv);

/// The options of a run, from its config.toml; `option` names the run in messages. They do not count as given. Paths
/// are those where its files are now (config_paths.h).
Options options_of_run(const std::string& run_folder, const std::string& option);

/// The value of an option as text; "" where it was left open.
std::string option_text(const Options& options, const OptionRow& row);

/// The options that shape a run as TOML, readable by --config: one `name = value` per line, in a section per group.
std::string to_toml(const Options& options);

/// The config.toml of a run folder: to_toml() with absolute paths, and where the folder is.
std::string config_of_run(const Options& options, const std::string& run_folder);

/// Warns of what the options of a file became, such as data that was found elsewhere. One of all ranks does it.
void say_remarks(const Options& options);

/// "6GiB", "80%" of `whole`, or bytes: "1500B"; a number alone only from 1 MiB on. Fails naming the option.
int64_t parse_budget(const std::string& option, const std::string& text, int64_t whole);

/// Refuses combinations that make no sense, before anything is allocated.
void validate(const Options& options);

/// A line for every option that was typed and that another makes meaningless: "--plot: has no effect; ...".
std::vector<std::string> without_effect(const Options& options);

/// Refuses a --total-batch-size that is no multiple of --batch-size times --seq-len, in words about those that were
/// typed.
void require_whole_updates(const Options& options);

}  // namespace llmc
