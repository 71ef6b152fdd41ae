#include "llmc/train/options.h"

#include "llmc/base/error.h"
#include "llmc/base/file.h"
#include "llmc/base/units.h"
#include "llmc/base/version.h"
#include "llmc/model/config.h"
#include "llmc/plan/policy.h"
#include "llmc/train/config_file.h"
#include "llmc/train/run_folder.h"

#include <CLI/CLI.hpp>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <map>
#include <string_view>

namespace llmc {
namespace {

constexpr double kMany = 1e15;
constexpr uint8_t kComputing = kTrain | kPlan | kGenerate | kEvaluate;
constexpr uint8_t kAll = kComputing | kImport | kExport | kTokenize;

std::string join(const std::vector<std::string>& words) {
    std::string text;
    for (const std::string& word : words) text += (text.empty() ? "" : ", ") + word;
    return text;
}

const std::string& model_help() {
    static const std::string text = "Architecture with random weights: " + join(preset_names()) +
                                    ", or llm.c's d6 .. d84; or a model to begin with: a Hugging Face folder, a run "
                                    "folder or checkpoint, an llm.c model file";
    return text;
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

/// Options that were given, and whether on the command line rather than in a file.
std::map<std::string, bool>& given_options() {
    static std::map<std::string, bool> options;
    return options;
}

}  // namespace

const std::vector<OptionRow>& option_table() {
    using O = Options;
    constexpr const char* kModel = "Model";
    constexpr const char* kData = "Data and batch";
    constexpr const char* kOptimiser = "Optimisation";
    constexpr const char* kMemory = "Memory";
    constexpr const char* kDevice = "Device";
    constexpr const char* kRun = "Run";
    constexpr const char* kOutput = "Output";
    // clang-format off
    static const std::vector<OptionRow> table = {
        {"-e,--model", &O::model, kComputing, kModel, model_help().c_str()},
        {"--layers", &O::layers, kTrain | kPlan, kModel, "Transformer layers", 1, 1000},
        {"--channels", &O::channels, kTrain | kPlan, kModel, "Channels of the residual stream", 1, 1e6},
        {"--heads", &O::heads, kTrain | kPlan, kModel, "Query heads", 1, 1e5},
        {"--kv-heads", &O::kv_heads, kTrain | kPlan, kModel, "Key/value heads (grouped-query attention)", 1, 1e5},
        {"--head-size", &O::head_size, kTrain | kPlan, kModel, "Channels of a head (channels / heads)", 1, 256},
        {"--ffn-size", &O::ffn_size, kTrain | kPlan, kModel, "Hidden channels of the MLP", 1, 1e7},
        {"--vocab-size", &O::vocab_size, kTrain | kPlan | kTokenize, kModel, "Vocabulary (that of the data)", 1, 1e8},
        {"--max-seq-len", &O::max_seq_len, kTrain | kPlan, kModel, "Longest sequence of the model", 1, 1e8},
        {"--rope-theta", &O::rope_theta, kTrain | kPlan, kModel, "Base of the rotary frequencies (LLaMA)", 1, 1e12},
        {"--tied", &O::tied, kTrain | kPlan, kModel, "LM head shares the embedding (LLaMA)", 0, 0, {"true", "false"}},

        {"-i,--data", &O::data, kTrain | kPlan | kEvaluate, kData,
         "Text file, quoted glob of text files, or llm.c token files"},
        {"--tokenizer", &O::tokenizer, kTrain | kPlan | kTokenize | kGenerate | kEvaluate | kImport, kData,
         "What turns text into tokens and back: 'bytes', or a tokenizer's folder or file"},
        {"-j,--val-data", &O::val_data, kTrain, kData, "Validation data (the last 5 % of the training data)"},
        {"-b,--batch-size", &O::batch_size, kTrain | kPlan | kEvaluate, kData, "Sequences in a micro-batch", 1, 1e6},
        {"-t,--seq-len", &O::seq_len, kTrain | kPlan | kEvaluate, kData, "Tokens in a sequence", 1, 1e8},
        {"-d,--total-batch-size", &O::total_batch_size, kTrain, kData,
         "Tokens per update, a multiple of batch size times sequence length (one micro-batch)", 1, kMany},
        {"-x,--steps", &O::steps, kTrain, kData, "Updates", 1, kMany},

        {"-l,--learning-rate", &O::learning_rate, kTrain, kOptimiser, "Peak learning rate", 0, 1e3},
        {"-k,--lr-schedule", &O::lr_schedule, kTrain, kOptimiser, "After the warm-up", 0, 0,
         {"cosine", "linear", "constant", "wsd"}},
        {"-u,--warmup", &O::warmup, kTrain, kOptimiser, "Updates of linear warm-up", 0, kMany},
        {"-q,--final-lr-fraction", &O::final_lr_fraction, kTrain, kOptimiser,
         "Learning rate at the end, as a fraction of the peak", 0, 1},
        {"--lr-decay-fraction", &O::lr_decay_fraction, kTrain, kOptimiser,
         "wsd: share of the updates that decay", 0, 1},
        {"-c,--weight-decay", &O::weight_decay, kTrain, kOptimiser, "Decoupled weight decay, on matrices only", 0, 100},
        {"--beta1", &O::beta1, kTrain, kOptimiser, "AdamW's first momentum", 0, 0.999999},
        {"--beta2", &O::beta2, kTrain, kOptimiser, "AdamW's second momentum", 0, 0.999999},
        {"--adam-epsilon", &O::adam_epsilon, kTrain, kOptimiser, "AdamW's epsilon", 1e-30, 1},
        {"--grad-clip", &O::grad_clip, kTrain, kOptimiser, "Largest global gradient norm; 0 does not clip", 0, 1e30},
        {"--max-skipped-steps", &O::max_skipped_steps, kTrain, kOptimiser,
         "Stop after so many updates in a row were skipped for non-finite gradients", 1, kMany},

        {"-r,--recompute", &O::recompute, kTrain | kPlan, kMemory, recompute_help().c_str()},
        {"--calibrate", &O::calibrate, kTrain | kPlan, kMemory,
         "Time the model's operations on this device first; later runs of this shape know them", 0, 0, {}, false},
        {"--device-profile", &O::device_profile, kPlan, kMemory,
         "Predict times for another device: a100, h100, h200, b200, l40s, rtx3090, rtx4090, rtx5090", 0, 0, {}, false},
        {"--memory-budget", &O::memory_budget, kTrain | kPlan, kMemory,
         "Refuse to start above this: 6GiB, 512MiB, or 80% of the device (all that is available)", 0, 0, {}, false},
        {"--logits-chunk", &O::logits_chunk, kTrain | kPlan, kMemory,
         "Tokens the LM head handles at a time (as many as cost no memory)", 1, kMany},

        {"--device", &O::device, kComputing, kDevice, "auto or cpu", 0, 0, {}, false},
        {"--dtype", &O::dtype, kTrain | kPlan | kEvaluate | kExport, kDevice,
         "Type of parameters and activations, or of the exported tensors", 0, 0, {"fp32", "bf16"}},
        {"--threads", &O::threads, kComputing | kTokenize, kDevice,
         "CPU threads (one per core); never changes a result", 1, 4096, {}, false},
        {"--peak-tflops", &O::peak_tflops, kTrain, kDevice,
         "Peak of the device, for MFU (measured)", 0, 1e6, {}, false},

        {"-o,--output-dir", &O::output_dir, kTrain, kRun, "Run folder (runs/MODEL-TIME)", 0, 0, {}, false},
        {"-y,--resume", &O::resume, kTrain, kRun,
         "Run folder or checkpoint to go on from; its options are kept", 0, 0, {}, false},
        {"--config", &O::config, kTrain | kPlan, kRun,
         "TOML file with options; the command line wins", 0, 0, {}, false},
        {"--seed", &O::seed, kTrain | kGenerate, kRun, "Seed of initialisation, shuffling and sampling", 0, kMany},
        {"-v,--val-every", &O::val_every, kTrain, kRun, "Updates between validations; 0: none", 0, kMany},
        {"--val-sequences", &O::val_sequences, kTrain, kRun,
         "Sequences per validation, the same ones at any batch size", 1, kMany},
        {"-s,--sample-every", &O::sample_every, kTrain, kRun,
         "Updates between samples (one at the end); 0: only then", 0, kMany},
        {"-g,--sample-length", &O::sample_length, kTrain, kRun, "Tokens of a sample; 0: no samples at all", 0, 1e6},
        {"--sample-prompt", &O::sample_prompt, kTrain, kRun, "How samples begin (end-of-text)"},
        {"-n,--checkpoint-every", &O::checkpoint_every, kTrain, kRun,
         "Updates between checkpoints (one at the end); 0: only then", 0, kMany},
        {"--keep-checkpoints", &O::keep_checkpoints, kTrain, kRun, "Newest checkpoints to keep; 0: all", 0, 1e6},
        {"--log-every", &O::log_every, kTrain, kRun, "Updates between printed lines; metrics.jsonl has all", 1, kMany},
        {"--log-level", &O::log_level, kAll, kRun,
         "Least severe messages shown", 0, 0, {"debug", "info", "warn", "error"}, false},
        {"--dry-run", &O::dry_run, kTrain, kRun, "Print model, plan and memory, allocate nothing", 0, 0, {}, false},

        {"--json", &O::json, kPlan, kOutput, "One JSON object instead of tables", 0, 0, {}, false},
        {"--list-steps", &O::list_steps, kPlan, kOutput, "Also print every step of the plan", 0, 0, {}, false},

        {"--hellaswag", &O::hellaswag, kEvaluate, kData, "HellaSwag file, as llm.c makes it", 0, 0, {}, false},
        {"--run", &O::run, kGenerate | kEvaluate | kExport, kModel, "Run folder or checkpoint", 0, 0, {}, false},
        {"--from", &O::from, kImport, kModel,
         "Hugging Face folder, llm.c model file, run folder or checkpoint", 0, 0, {}, false},
        {"--format", &O::format, kExport, kOutput,
         "Hugging Face folder, or llm.c model file", 0, 0, {"hf", "llmc"}, false},
        {"--out", &O::out, kImport | kExport | kTokenize, kOutput,
         "Folder or file to make, or beginning of the token files' names; it must not be there", 0, 0, {}, false},
        {"files", &O::files, kTokenize, kData, "Text files, or quoted patterns for them", 0, 0, {}, false},
        {"--jsonl-field", &O::jsonl_field, kTokenize, kData,
         "Read JSON Lines; every line is a document, in the field of this name", 0, 0, {}, false},
        {"--special-tokens", &O::special_tokens, kTokenize, kData,
         "Names of special tokens in the text, such as <|endoftext|>, become their ids", 0, 0, {}, false},
        {"--shard-tokens", &O::shard_tokens, kTokenize, kOutput, "Tokens in a file", 1, 2147483647, {}, false},
        {"--val-fraction", &O::val_fraction, kTokenize, kOutput,
         "Share of the text, from its beginning, for validation; at most one file", 0, 1, {}, false},
        {"--val-tokens", &O::val_tokens, kTokenize, kOutput, "The same, as a number of tokens", 1, kMany, {}, false},
        {"--llmc-tokenizer", &O::llmc_tokenizer, kTokenize, kOutput,
         "Also write the tokenizer as llm.c's file, which decodes", 0, 0, {}, false},
        {"--train-bpe", &O::train_bpe, kTokenize, "Learning",
         "Learn a byte-level BPE of --vocab-size tokens and write its files into the folder --out", 0, 0, {}, false},
        {"--prompt", &O::prompt, kGenerate, "Generation", "How the text begins (end-of-text)", 0, 0, {}, false},
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

std::string OptionRow::name() const {
    const std::string all = flags;
    const size_t dashes = all.rfind("--");
    return dashes == std::string::npos ? all : all.substr(dashes + 2);
}

namespace {

/// Why `text` is no value for the option, or "" if it is one. NaN is none: it is in no range.
template <typename Value>
std::string find_fault(const OptionRow& row, const std::string& text) {
    if constexpr (std::is_arithmetic_v<Value>) {
        Value value = 0;
        const char* end = text.data() + text.size();
        const auto [rest, error] = std::from_chars(text.data(), end, value);
        const auto number = static_cast<double>(value);
        if (error == std::errc() && rest == end && number >= row.minimum && number <= row.maximum) return "";
        if constexpr (std::is_same_v<Value, double>) {
            return fmt::format("must be a number from {:g} to {:g}, not '{}'", row.minimum, row.maximum, text);
        } else {
            return fmt::format("must be a whole number from {:.0f} to {:.0f}, not '{}'", row.minimum, row.maximum,
                               text);
        }
    } else {
        if (row.choices.empty() || std::count(row.choices.begin(), row.choices.end(), text) > 0) return "";
        return fmt::format("must be one of {}, not '{}'", join(row.choices), text);
    }
}

std::string type_name(const OptionRow& row) {
    if (std::holds_alternative<int64_t Options::*>(row.field)) return "N";
    if (std::holds_alternative<double Options::*>(row.field)) return "NUMBER";
    std::string names;
    for (const std::string& choice : row.choices) names += (names.empty() ? "" : "|") + choice;
    return names.empty() ? "TEXT" : names;
}

void add_option(CLI::App& app, const OptionRow& row, Options& options) {
    CLI::Option* option = std::visit(
        [&](auto member) -> CLI::Option* {
            using Value = std::remove_reference_t<decltype(options.*member)>;
            if constexpr (std::is_same_v<Value, bool>) {
                return app.add_flag(row.flags, options.*member, row.help);
            } else {
                CLI::Option* added = app.add_option(row.flags, options.*member, row.help);
                if (options.*member != Value()) added->capture_default_str();
                added->check([&row](const std::string& text) { return find_fault<Value>(row, text); });
                return added->type_name(type_name(row));
            }
        },
        row.field);
    option->group(row.group);
}

/// --help as a column of options with their defaults.
class Formatter : public CLI::Formatter {
  public:
    Formatter() {
        column_width(34);
        label("OPTIONS", "options");
    }
    std::string make_option_opts(const CLI::Option* option) const override {
        if (option->get_type_size() == 0) return "";
        std::string text = " " + option->get_type_name();
        if (!option->get_default_str().empty()) text += " [" + option->get_default_str() + "]";
        return text;
    }
};

void add_command(CLI::App& app, uint8_t command, Options& options) {
    app.formatter(std::make_shared<Formatter>());
    for (const OptionRow& row : option_table()) {
        if ((row.commands & command) != 0) add_option(app, row, options);
    }
}

std::string toml_value(const Options& options, const OptionField& field) {
    return std::visit(
        [&](auto member) -> std::string {
            const auto& value = options.*member;
            using Value = std::remove_cvref_t<decltype(value)>;
            if constexpr (std::is_same_v<Value, std::string>) {
                return quoted(value);
            } else if constexpr (std::is_same_v<Value, std::vector<std::string>>) {
                return quoted(join(value));
            } else {
                return fmt::format("{}", value);
            }
        },
        field);
}

}  // namespace

namespace {

/// What CLI11 has to say, as our error, in one line.
[[noreturn]] void refuse(const std::string& where, const CLI::ParseError& error) {
    std::string message = where + error.what();
    std::replace(message.begin(), message.end(), '\n', ' ');
    throw Error(kExitBadUsage, message + "; see train_gpt --help");
}

/// The options of a file, for those that the command line left open. A training run's file may be used with `plan`,
/// which takes what it knows of it.
void apply_config(CLI::App& app, const std::string& path) {
    for (const ConfigEntry& entry : read_config(path)) {
        const auto& table = option_table();
        const auto row =
            std::find_if(table.begin(), table.end(), [&](const auto& r) { return r.name() == entry.name; });
        if (row == table.end() || entry.name == "config" || entry.name == "resume") {
            fail_usage("--config={}: line {}: '{}' is no option for a file; see train_gpt --help", path, entry.line,
                       entry.name);
        }
        CLI::Option* option = app.get_option_no_throw("--" + entry.name);
        if (option == nullptr || option->count() > 0) continue;
        try {
            option->add_result(entry.value);
            option->run_callback();
        } catch (const CLI::ParseError& error) {
            refuse(fmt::format("--config={}: line {}: ", path, entry.line), error);
        }
    }
}

void note_given(const CLI::App& app, bool typed) {
    for (const CLI::Option* option : app.get_options()) {
        if (option->count() > 0) given_options().emplace(option->get_single_name(), typed);
    }
}

}  // namespace

namespace {

struct CommandRow {
    const char* name;
    Command command;
    uint8_t mask;
    const char* help;
};
constexpr CommandRow kSubcommands[] = {
    {"plan", Command::Plan, kPlan, "Print the memory of every --recompute level, without allocating it"},
    {"generate", Command::Generate, kGenerate, "Generate text with a trained model"},
    {"evaluate", Command::Evaluate, kEvaluate, "Loss and bits per byte of a trained model on a text, and HellaSwag"},
    {"import", Command::Import, kImport, "Make a run folder of a model from elsewhere"},
    {"export", Command::Export, kExport, "Write a trained model for transformers or llm.c"},
    {"tokenize", Command::Tokenize, kTokenize, "Turn text into token files, or learn a vocabulary from it"},
};

/// llm.c has flags of two letters, which CLI11 would take apart. This one means the same here.
std::vector<const char*> in_our_words(int argc, const char* const* argv) {
    std::vector<const char*> words(argv, argv + argc);
    for (const char*& word : words) {
        if (std::string_view(word) == "-nk") word = "--keep-checkpoints";
    }
    return words;
}

/// llm.c's -y is 0, or 1 to go on with what is in the output folder, if there is something.
void resolve_llmc_resume(Options& options) {
    if (options.resume != "0" && options.resume != "1") return;
    const bool wanted = options.resume == "1";
    if (wanted && options.output_dir.empty()) {
        fail_usage("--resume=1: goes on with the run in --output-dir, which is not given; write --resume=FOLDER");
    }
    options.resume = wanted && path_exists(options.output_dir + "/checkpoints") ? options.output_dir : "";
    if (options.resume.empty()) return;
    options.output_dir.clear();
    if (was_given("model")) given_options()["model"] = false;  // As before; the run's own model counts.
}

}  // namespace

Options parse_options(int argc, const char* const* argv) {
    Options options;
    CLI::App app(
        "train_gpt trains GPT-2 and LLaMA models, on as much memory as you have.\n"
        "Without a subcommand it trains; without any option it trains the demo.");
    app.set_version_flag("--version", fmt::format("train_gpt {}", version()));
    app.get_formatter()->column_width(34);
    add_command(app, kTrain, options);
    app.require_subcommand(0, 1);
    std::vector<CLI::App*> subcommands;
    for (const CommandRow& row : kSubcommands) {
        subcommands.push_back(app.add_subcommand(row.name, row.help));
        add_command(*subcommands.back(), row.mask, options);
    }

    given_options().clear();
    try {
        const std::vector<const char*> words = in_our_words(argc, argv);
        app.parse(static_cast<int>(words.size()), words.data());
    } catch (const CLI::Success& done) {
        app.exit(done);
        std::exit(kExitDone);
    } catch (const CLI::ParseError& error) {
        refuse("", error);
    }
    CLI::App* parsed = &app;
    for (size_t i = 0; i < subcommands.size(); ++i) {
        if (!subcommands[i]->parsed()) continue;
        parsed = subcommands[i];
        options.command = kSubcommands[i].command;
    }
    CLI::App& used = *parsed;
    note_given(app, /*typed=*/true);
    if (&used != &app && !given_options().empty()) {
        fail_usage("--{}: stands before the subcommand; write train_gpt {} --{}", given_options().begin()->first,
                   used.get_name(), given_options().begin()->first);
    }
    note_given(used, /*typed=*/true);
    resolve_llmc_resume(options);
    if (!options.resume.empty() && !options.config.empty()) {
        fail_usage("--config={}: a resumed run has its own config.toml; leave --config out", options.config);
    }
    if (!options.config.empty()) apply_config(used, options.config);
    if (!options.resume.empty()) apply_config(used, find_run_folder(options.resume, "--resume") + "/config.toml");
    note_given(used, /*typed=*/false);
    validate(options);
    return options;
}

Options options_of_run(const std::string& run_folder) {
    Options options;
    CLI::App app;
    add_command(app, kTrain, options);
    apply_config(app, run_folder + "/config.toml");
    return options;
}

bool was_given(const std::string& name) { return given_options().count(name) > 0; }

bool was_typed(const std::string& name) { return was_given(name) && given_options()[name]; }

std::string to_toml(const Options& options) {
    std::string text = fmt::format("# train_gpt {}: the options of this run; usable with --config\n", version());
    const char* group = "";
    for (const OptionRow& row : option_table()) {
        if ((row.commands & kTrain) == 0 || !row.shapes_run) continue;
        // An empty or zero override means "not given", and stays so.
        const std::string value = toml_value(options, row.field);
        if (value == "\"\"" || (value == "0" && row.minimum > 0)) continue;
        if (std::string(group) != row.group) text += fmt::format("\n# {}\n", group = row.group);
        text += fmt::format("{} = {}\n", row.name(), value);
    }
    return text;
}

int64_t parse_budget(const std::string& option, const std::string& text, int64_t whole) {
    int64_t bytes = 0;
    if (!text.empty() && text.back() == '%') {
        char* end = nullptr;
        const double percent = std::strtod(text.c_str(), &end);
        if (end == text.c_str() + text.size() - 1 && percent > 0 && percent <= 100) {
            return static_cast<int64_t>(static_cast<double>(whole) * percent / 100);
        }
    } else if (parse_bytes(text, &bytes) && bytes > 0) {
        return bytes;
    }
    fail_usage("{}={}: not a size; write for example 6GiB, 512MiB or 80%", option, text);
}

namespace {

/// An option that was typed although another makes it meaningless.
void refuse_ignored(const Options& options) {
    const struct {
        const char* name;
        bool ignored;
        const char* why;
    } rows[] = {
        {"lr-decay-fraction", options.lr_schedule != "wsd", "only --lr-schedule=wsd has it"},
        {"final-lr-fraction", options.lr_schedule == "constant", "--lr-schedule=constant does not fall"},
        {"sample-every", options.sample_length == 0, "there are no samples with --sample-length=0"},
        {"sample-prompt", options.sample_length == 0, "there are no samples with --sample-length=0"},
        {"val-sequences", options.val_every == 0, "there is no validation with --val-every=0"},
        {"list-steps", options.json, "--json has no list of steps"},
    };
    for (const auto& row : rows) {
        if (row.ignored && was_typed(row.name)) fail_usage("--{}: has no effect; {}", row.name, row.why);
    }
}

}  // namespace

namespace {

void validate_tokenize(const Options& options) {
    if (options.files.empty()) fail_usage("tokenize needs text files: train_gpt tokenize [options] FILE...");
    if (options.out.empty()) {
        fail_usage("tokenize needs --out=NAME (token files NAME_train_000000.bin ..., or with --train-bpe a folder)");
    }
    if (options.train_bpe) {
        if (options.vocab_size < 258) {
            fail_usage("--vocab-size={}: --train-bpe needs at least 258: 256 bytes, end-of-text and a token to learn",
                       options.vocab_size);
        }
        for (const char* name :
             {"tokenizer", "special-tokens", "shard-tokens", "val-fraction", "val-tokens", "llmc-tokenizer"}) {
            if (was_typed(name)) fail_usage("--{}: has no effect; --train-bpe only learns a vocabulary", name);
        }
        return;
    }
    if (options.tokenizer.empty()) {
        fail_usage(
            "tokenize needs --tokenizer=PATH (a folder or file of GPT-2, Hugging Face, Llama 3 or SentencePiece, or "
            "'bytes'), or --train-bpe");
    }
    if (was_typed("vocab-size")) fail_usage("--vocab-size: has no effect; only --train-bpe chooses a vocabulary");
    if (was_typed("val-fraction") && was_typed("val-tokens")) {
        fail_usage("--val-tokens={}: says the same as --val-fraction={}; leave one of them out", options.val_tokens,
                   options.val_fraction);
    }
    if (options.out.ends_with('/')) {
        fail_usage("--out={}: is a folder; add how the files' names begin, such as {}text", options.out, options.out);
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
        required("export", options.out, "--out=PATH (a new folder, or for --format=llmc a new file)");
        return;
    }
    const bool generates = options.command == Command::Generate;
    if (options.run.empty() && !was_given("model")) {
        fail_usage(
            "{} needs --run=RUN_FOLDER (a folder under runs/, or a checkpoint), or --model=PATH (a Hugging Face "
            "folder, or an llm.c model file)",
            generates ? "generate" : "evaluate");
    }
    if (!options.run.empty() && was_given("model")) {
        fail_usage("--model={}: --run={} already names the model; leave one of them out", options.model, options.run);
    }
    if (!generates && options.run.empty() && !was_given("data") && options.hellaswag.empty()) {
        fail_usage("evaluate needs --data=FILE or --hellaswag=FILE (or a --run, whose held-out data it takes)");
    }
}

}  // namespace

void validate(const Options& options) {
    if (options.command == Command::Tokenize) return validate_tokenize(options);
    if (options.command != Command::Train && options.command != Command::Plan) return require_operands(options);
    if (options.command == Command::Train && options.recompute != "auto") find_policy(options.recompute);
    if (!options.memory_budget.empty()) parse_budget("--memory-budget", options.memory_budget, int64_t{1} << 40);
    const int64_t micro_batch = options.batch_size * options.seq_len;
    if (options.total_batch_size % micro_batch != 0) {
        fail_usage("--total-batch-size={}: must be a multiple of --batch-size times --seq-len, {} x {} = {} tokens",
                   options.total_batch_size, options.batch_size, options.seq_len, micro_batch);
    }
    // A file's warm-up may be longer than a short trial of the same settings.
    if (options.warmup > options.steps && was_typed("warmup")) {
        fail_usage("--warmup={}: longer than the run, --steps={}", options.warmup, options.steps);
    }
    refuse_ignored(options);
}

}  // namespace llmc
