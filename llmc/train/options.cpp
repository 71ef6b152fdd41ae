#include "llmc/train/options.h"

#include "llmc/base/error.h"
#include "llmc/base/file.h"
#include "llmc/base/log.h"
#include "llmc/base/output.h"
#include "llmc/base/program_name.h"
#include "llmc/base/units.h"
#include "llmc/base/version.h"
#include "llmc/model/trainable.h"
#include "llmc/train/about.h"
#include "llmc/train/command_line.h"
#include "llmc/train/config_file.h"
#include "llmc/train/config_options.h"
#include "llmc/train/config_paths.h"
#include "llmc/train/help.h"
#include "llmc/train/lora_options.h"
#include "llmc/train/run_folder.h"

#include <CLI/CLI.hpp>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <map>
#include <sstream>
#include <string_view>
#include <utility>
#include <vector>

namespace llmc {
namespace {

/// What to write for a whole number that is written otherwise, such as 1e6 or 4_096; "" for other texts.
std::string in_digits(const OptionRow& row, std::string text) {
    std::erase_if(text, [](char c) { return c == '_' || c == ','; });
    double number = 0;
    const char* end = text.data() + text.size();
    const auto [rest, error] = std::from_chars(text.data(), end, number);
    const bool fits = error == std::errc() && rest == end && number >= row.minimum && number <= row.maximum;
    return fits && number == std::floor(number) ? fmt::format("; write {:.0f}", number) : "";
}

/// Why `text` is no value for the option, or "" if it is one. NaN is none: it is in no range.
template <typename Value>
std::string find_fault(const OptionRow& row, const std::string& text) {
    if constexpr (std::is_arithmetic_v<Value>) {
        if (!row.choices.empty() && text == row.choices.front()) return "";
        Value value = 0;
        const char* end = text.data() + text.size();
        const auto [rest, error] = std::from_chars(text.data(), end, value);
        const auto number = static_cast<double>(value);
        if (error == std::errc() && rest == end && number >= row.minimum && number <= row.maximum) return "";
        if constexpr (std::is_same_v<Value, double>) {
            return fmt::format("must be a number from {:g} to {:g}, not '{}'", row.minimum, row.maximum, text);
        } else {
            const std::string word = row.choices.empty() ? "" : row.choices.front() + " or ";
            return fmt::format("must be {}a whole number from {:.0f} to {:.0f}, not '{}'{}", word, row.minimum,
                               row.maximum, text, in_digits(row, text));
        }
    } else {
        if (row.choices.empty() || std::count(row.choices.begin(), row.choices.end(), text) > 0) return "";
        return fmt::format("must be one of {}, not '{}'", fmt::join(row.choices, ", "), text);
    }
}

void add_option(CLI::App& app, const OptionRow& row, Options& options) {
    CLI::Option* option = std::visit(
        [&](auto member) -> CLI::Option* {
            using Value = std::remove_reference_t<decltype(options.*member)>;
            if constexpr (std::is_same_v<Value, bool>) {
                const auto validate = [](const std::string& text) -> std::string {
                    bool is_truth = false;
                    try {
                        is_truth = std::abs(CLI::detail::to_flag_value(text)) <= 1;
                    } catch (const std::invalid_argument&) {
                        is_truth = false;
                    }
                    return is_truth ? "" : fmt::format("must be true or false, or stand alone, not '{}'", text);
                };
                return app.add_flag(row.flags, options.*member, row.help)->check(validate);
            } else {
                CLI::Option* added = app.add_option(row.flags, options.*member, row.help);
                if (options.*member != Value()) added->capture_default_str();
                const auto validate = [&row](std::string& text) {
                    std::string fault = find_fault<Value>(row, text);
                    const bool is_word = std::is_arithmetic_v<Value> && !row.choices.empty();
                    if (fault.empty() && is_word && text == row.choices.front()) text = "0";
                    return fault;
                };
                added->transform(CLI::Validator(validate, ""));
                if (row.implied != nullptr) added->expected(0, 1)->default_str(row.implied);
                if (row.repeats) added->multi_option_policy(CLI::MultiOptionPolicy::Join);
                return added->type_name(value_name(row));
            }
        },
        row.field);
    option->group(row.group);
}

void add_command(CLI::App& app, CommandSet command, Options& options) {
    for (const OptionRow& row : option_table()) {
        if ((row.commands & command) != 0) add_option(app, row, options);
    }
}

constexpr std::string_view kFirstWords = "# train_gpt ";  ///< Of every file that a run wrote, of earlier versions too.

/// What CLI11 has to say, as our error, in one line.
[[noreturn]] void refuse(const std::string& where, const CLI::ParseError& error) {
    std::string message = where + error.what();
    std::replace(message.begin(), message.end(), '\n', ' ');
    throw Error(kExitBadUsage, message + "; see " + program_name() + " --help");
}

/// A file of options, --config or a run's own.
struct GivenFile {
    std::string path;
    std::string who;  ///< What messages about it begin with.
    bool is_of_run = false;
};

/// Gives the parser the options of a file, those that the command line left open. A training run's file may be used
/// with `plan`, which takes what it knows of it.
void apply(const ConfigOptions& file, const GivenFile& given, CLI::App& app, Options& options) {
    const ConfigPlace place = given.is_of_run ? ConfigPlace(given.path, file.written_folder) : ConfigPlace(given.path);
    for (const ConfigOption& entry : file.options) {
        CLI::Option* option = app.get_option_no_throw("--" + entry.row->name());
        if (option == nullptr && (entry.row->commands & kTrain) == 0) {
            options.remarks.push_back(fmt::format("{}: line {}: '{}' has no effect here; it is an option of plan",
                                                  given.who, entry.line, entry.row->name()));
        }
        if (option == nullptr || option->count() > 0) continue;
        try {
            option->add_result(place.resolve(*entry.row, entry.value, &options.remarks));
            option->run_callback();
        } catch (const CLI::ParseError& error) {
            refuse(fmt::format("{}: line {}: ", given.who, entry.line), error);
        }
    }
}

/// --config=FILE, which may also be the file of a run.
void apply_config_file(const std::string& path, CLI::App& app, Options& options) {
    GivenFile given = {path, "--config=" + path};
    const ConfigOptions file = options_in(read_config(path, given.who), given.who);
    given.is_of_run = !file.written_folder.empty() || read_text(path).starts_with(kFirstWords);
    apply(file, given, app, options);
}

/// A run's own file, which must be whole: defaults in the place of what is lost would be another training. `option`
/// names the run, "--resume=runs/x".
void apply_run_config(const std::string& run_folder, const std::string& option, CLI::App& app, Options& options) {
    const std::string path = run_folder + "/config.toml";
    const GivenFile given = {path, fmt::format("{}: '{}'", option, path), /*is_of_run=*/true};
    try {
        const ConfigOptions file = options_in(read_config(path, given.who), given.who);
        if (file.options.empty()) fail("{}: holds no options; the file is damaged", given.who);
        for (const char* name : {"model", "batch-size", "seq-len", "steps", "learning-rate", "seed"}) {
            const bool is_there = std::any_of(file.options.begin(), file.options.end(),
                                              [&](const ConfigOption& entry) { return entry.row->name() == name; });
            if (!is_there) fail("{}: '{}' is missing; the file is damaged", given.who, name);
        }
        apply(file, given, app, options);
    } catch (const Error& error) {
        fail("{}; put back a copy of the file, or {}", error.what(),
             option.starts_with("--resume")
                 ? fmt::format("begin a new run with the weights of this one: --model={} --data=FILE", run_folder)
                 : "give --data=FILE, for which it is not needed");
    }
}

void note_given(const CLI::App& app, bool typed, Options& options) {
    for (const CLI::Option* option : app.get_options()) {
        if (option->count() > 0) options.given.emplace(option->get_single_name(), typed);
    }
}

/// llm.c has flags of two letters, which CLI11 would take apart: -nk means the same here. Its -w is 1 to keep a master
/// copy of the weights, and 0 not to.
std::vector<const char*> in_our_words(int argc, const char* const* argv) {
    std::vector<const char*> words(argv, argv + argc);
    for (size_t i = 0; i < words.size(); ++i) {
        const std::string_view word = words[i], next = i + 1 < words.size() ? words[i + 1] : "";
        if (word == "-nk") words[i] = "--keep-checkpoints";
        if (word == "-w1" || word == "-w0") words[i] = word == "-w1" ? "--masters=fp32" : "--masters=none";
        if (word == "-w" && (next == "1" || next == "0")) words[i + 1] = next == "1" ? "fp32" : "none";
    }
    // What `explain` is about may have an option's dashes.
    const bool explains = words.size() > 1 && words[1] == std::string_view("explain");
    for (size_t i = 2; explains && i < words.size(); ++i) {
        const std::string_view word = words[i];
        const bool is_help = word == "-h" || word.starts_with("--help");
        if (!is_help && word.find_first_not_of('-') != std::string_view::npos) words[i] += word.find_first_not_of('-');
    }
    return words;
}

/// llm.c's -y is 0, or 1 to go on with what is in the output folder, if there is something: one command that can be
/// repeated. Whether it goes on.
bool resolve_llmc_resume(Options& options) {
    if (options.resume != "0" && options.resume != "1") return false;
    const bool wanted = options.resume == "1";
    if (wanted && options.output_dir.empty()) {
        fail_usage("--resume=1: goes on with the run in --output-dir, which is not given; write --resume=FOLDER");
    }
    options.resume = wanted && holds_checkpoint(options.output_dir) ? options.output_dir : "";
    if (options.resume.empty()) return false;
    options.output_dir.clear();
    for (const char* name : {"model", "adapter"}) {  // It began with those; now its own weights count.
        if (options.was_given(name)) options.given[name] = false;
    }
    return true;
}

/// Whether two values mean the same; paths may be written in several ways.
bool is_same_value(const std::string& one, const std::string& other, const OptionRow& row) {
    std::error_code not_there;
    return one == other || (row.path != PathKind::None && std::filesystem::equivalent(one, other, not_there));
}

/// What a run has taken into its folder, and keeps to: given as it was when the run began it is no wish for another.
void settle_what_run_has(const std::string& run_folder, const CLI::App& app, Options& options) {
    const Options before = with_absolute_paths(options_of_run(run_folder, "--resume=" + options.resume));
    const Options now = with_absolute_paths(options);
    for (const OptionRow& row : option_table()) {
        const std::string name = row.name();
        const bool is_kept = name == "tokenizer" || name == "document-token" || name == "tokenizer-pattern";
        if (!is_kept || app.get_option("--" + name)->count() == 0) continue;
        const std::string was = option_text(before, row);
        if (!is_same_value(option_text(now, row), was, row)) {
            fail_usage("--{}={}: the run began {}, and keeps to that; leave --{} out", name, option_text(options, row),
                       was.empty() ? "without" : fmt::format("with '{}'", was), name);
        }
        options.given[name] = false;
    }
}

/// --freeze and --trainable as one list in the order of the command line, after what a file says.
void join_patterns(const CLI::App& used, Options& options) {
    std::vector<TrainablePattern> patterns;
    const auto add = [&](const char* name, const std::string& text) {
        const auto more =
            parse_patterns(fmt::format("--{}", name), text, /*trainable=*/name == std::string_view("trainable"));
        patterns.insert(patterns.end(), more.begin(), more.end());
    };
    for (const auto& [name, text] :
         {std::pair("freeze", &options.freeze), std::pair("trainable", &options.trainable)}) {
        if (!text->empty() && !options.was_typed(name)) add(name, *text);
    }
    std::map<const CLI::Option*, size_t> seen;
    for (const CLI::Option* option : used.parse_order()) {
        const size_t index = seen[option]++;
        for (const char* name : {"freeze", "trainable"}) {
            if (option->get_single_name() == name) add(name, option->results().at(index));
        }
    }
    const auto freezes = [](const TrainablePattern& pattern) { return !pattern.trainable; };
    const bool adapts = options.lora > 0 || !options.adapter.empty();  // Then the rest is frozen anyway.
    if (!adapts && !patterns.empty() && std::none_of(patterns.begin(), patterns.end(), freezes)) {
        patterns.insert(patterns.begin(), {.trainable = false, .glob = "*"});
    }
    options.freeze = text_of(patterns);
    options.trainable.clear();
}

}  // namespace

Options parse_options(int argc, const char* const* argv) {
    Options options;
    CLI::App app(
        "train_gpt trains GPT-2 and LLaMA models, on as much memory as you have.\n"
        "Without a subcommand it trains; without any option it trains the demo.");
    app.set_version_flag("--version", about_this_program());
    add_command(app, kTrain, options);
    app.require_subcommand(0, 1);
    std::vector<CLI::App*> subcommands;
    for (const CommandRow& row : subcommand_table()) {
        subcommands.push_back(app.add_subcommand(row.name, row.help));
        add_command(*subcommands.back(), row.mask, options);
    }

    std::vector<const char*> words = in_our_words(argc, argv);
    shape_help(app, words);
    try {
        require_plain_words(words);
        app.parse(static_cast<int>(words.size()), words.data());
    } catch (const CLI::Success& done) {
        std::ostringstream text;
        app.exit(done, text, text);
        options.command = Command::Help;
        options.help_text = text.str();
        return options;
    } catch (const CLI::ParseError& error) {
        refuse_words(error, app, words);
    }
    CLI::App* parsed = &app;
    for (size_t i = 0; i < subcommands.size(); ++i) {
        if (!subcommands[i]->parsed()) continue;
        parsed = subcommands[i];
        options.command = subcommand_table()[i].command;
    }
    CLI::App& used = *parsed;
    note_given(app, /*typed=*/true, options);
    if (&used != &app && !options.given.empty()) refuse_before_subcommand(app, used);
    note_given(used, /*typed=*/true, options);
    const bool repeats = resolve_llmc_resume(options);
    if (!options.resume.empty() && !options.config.empty() && !repeats) {
        fail_usage("--config={}: a resumed run has its own config.toml; leave --config out", options.config);
    }
    if (!options.config.empty()) apply_config_file(options.config, used, options);
    if (!options.resume.empty()) {
        const std::string run_folder = find_run_folder(options.resume, "--resume");
        settle_what_run_has(run_folder, used, options);
        apply_run_config(run_folder, "--resume=" + options.resume, used, options);
        std::error_code elsewhere;  // It goes on in its own folder anyway.
        if (std::filesystem::equivalent(options.output_dir, run_folder, elsewhere)) options.output_dir.clear();
    }
    note_given(used, /*typed=*/false, options);
    join_patterns(used, options);
    if (options.batch_size == 0 && options.total_batch_size == 0) {
        options.total_batch_size = Options().batch_size * options.seq_len;
    }
    const bool asks_what_fits = options.all_presets || options.was_given("emit-config");
    if (asks_what_fits && options.what_fits.empty()) options.what_fits = kWholeDevice;
    validate(options);
    for (std::string& line : without_effect(options)) options.remarks.push_back(std::move(line));
    if (std::string remark = remark_on_lora(options); !remark.empty()) options.remarks.push_back(std::move(remark));
    return options;
}

Options options_of_run(const std::string& run_folder, const std::string& option) {
    Options options;
    CLI::App app;
    add_command(app, kTrain, options);
    apply_run_config(run_folder, option, app, options);
    return options;
}

std::string value_name(const OptionRow& row) {
    if (row.is_flag()) return "";
    if (std::holds_alternative<int64_t Options::*>(row.field)) {
        return row.choices.empty() ? "N" : "N|" + row.choices.front();
    }
    if (std::holds_alternative<double Options::*>(row.field)) return "NUMBER";
    std::string names;
    for (const std::string& choice : row.choices) names += (names.empty() ? "" : "|") + choice;
    return names.empty() ? "TEXT" : names;
}

std::string commands_with(const OptionRow& row) {
    std::vector<std::string> names;
    if ((row.commands & kTrain) != 0) names.emplace_back("training");
    for (const CommandRow& command : subcommand_table()) {
        if ((row.commands & command.mask) != 0) names.emplace_back(command.name);
    }
    const std::string last = names.back();
    names.pop_back();
    return names.empty() ? last : fmt::format("{} and {}", fmt::join(names, ", "), last);
}

std::string option_text(const Options& options, const OptionRow& row) {
    return std::visit(
        [&](auto member) -> std::string {
            const auto& value = options.*member;
            using Value = std::remove_cvref_t<decltype(value)>;
            if constexpr (std::is_same_v<Value, std::string>) {
                return value;
            } else if constexpr (std::is_same_v<Value, std::vector<std::string>>) {
                return fmt::format("{}", fmt::join(value, ", "));
            } else if constexpr (std::is_same_v<Value, bool>) {
                return value ? "true" : "false";
            } else {
                if (value == Value() && !row.choices.empty()) return row.choices.front();
                return value == Value() && row.minimum > 0 ? "" : fmt::format("{}", value);
            }
        },
        row.field);
}

/// As TOML has it: numbers and flags bare, all else in quotes.
std::string toml_value(const OptionRow& row, const std::string& value) {
    const bool is_word = std::find(row.choices.begin(), row.choices.end(), value) != row.choices.end();
    const bool is_text = std::holds_alternative<std::string Options::*>(row.field) ||
                         std::holds_alternative<std::vector<std::string> Options::*>(row.field);
    return is_text || is_word ? quoted(value) : value;
}

std::string to_toml(const Options& options) {
    std::string text = fmt::format("{}{}: the options of this run; usable with --config\n", kFirstWords, version());
    const char* group = "";
    for (const OptionRow& row : option_table()) {
        if ((row.commands & kTrain) == 0 || !row.shapes_run) continue;
        // An empty or zero override means "not given", and stays so.
        const std::string value = option_text(options, row);
        if (value.empty()) continue;
        if (std::string(group) != row.group) text += fmt::format("\n[{}]\n", section_of_group(group = row.group));
        text += fmt::format("{} = {}\n", row.name(), toml_value(row, value));
    }
    return text;
}

std::string config_of_run(const Options& options, const std::string& run_folder) {
    std::error_code error;
    std::filesystem::path folder = std::filesystem::absolute(run_folder, error);
    if (!error) folder = std::filesystem::weakly_canonical(folder, error);
    const std::string text = to_toml(with_absolute_paths(options));
    if (error) return text;
    return text + "\n# Where this folder was. What is no longer at a path above is looked for as seen from here.\n" +
           fmt::format("[{}]\n{} = {}\n", kWrittenSection, kWrittenFolder, quoted(folder.string()));
}

void say_remarks(const Options& options) {
    for (const std::string& remark : options.remarks) spdlog::warn("{}", remark);
}

int64_t parse_budget(const std::string& option, const std::string& text, int64_t whole) {
    int64_t bytes = 0;
    if (!text.empty() && text.back() == '%') {
        char* end = nullptr;
        const double percent = std::strtod(text.c_str(), &end);
        if (end == text.c_str() + text.size() - 1 && percent > 0 && percent <= 100) {
            return static_cast<int64_t>(static_cast<double>(whole) * percent / 100);
        }
        if (end == text.c_str() + text.size() - 1 && end != text.c_str()) {
            fail_usage(
                "{}={}: is a share of the memory there is, above 0% and up to 100%; or write a size, such as 6GiB",
                option, text);
        }
    } else if (parse_bytes(text, &bytes) && bytes > 0) {
        const bool is_bare = std::isdigit(static_cast<unsigned char>(text.back())) != 0;
        constexpr int64_t kLeastBare = 1 << 20;  // Less is meant as another unit.
        if (is_bare && bytes < kLeastBare) fail_usage("{}={}: {} bytes; write {}GiB", option, text, text, text);
        return bytes;
    }
    fail_usage("{}={}: not a size; write for example 6GiB, 512MiB or 80%", option, text);
}

}  // namespace llmc
