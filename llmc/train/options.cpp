#include "llmc/train/options.h"

#include "llmc/base/error.h"
#include "llmc/base/file.h"
#include "llmc/base/units.h"
#include "llmc/base/version.h"
#include "llmc/train/command_line.h"
#include "llmc/train/config_file.h"
#include "llmc/train/run_folder.h"

#include <CLI/CLI.hpp>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <sstream>
#include <string_view>

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

std::string type_name(const OptionRow& row) {
    if (std::holds_alternative<int64_t Options::*>(row.field)) {
        return row.choices.empty() ? "N" : "N|" + row.choices.front();
    }
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
                const auto validate = [](const std::string& text) -> std::string {
                    try {
                        CLI::detail::to_flag_value(text);
                    } catch (const std::invalid_argument&) {
                        return fmt::format("must be true or false, or stand alone, not '{}'", text);
                    }
                    return "";
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

std::string toml_value(const Options& options, const OptionRow& row) {
    return std::visit(
        [&](auto member) -> std::string {
            const auto& value = options.*member;
            using Value = std::remove_cvref_t<decltype(value)>;
            if constexpr (std::is_same_v<Value, std::string>) {
                return quoted(value);
            } else if constexpr (std::is_same_v<Value, std::vector<std::string>>) {
                return quoted(fmt::format("{}", fmt::join(value, ", ")));
            } else {
                return value == Value() && !row.choices.empty() ? quoted(row.choices.front())
                                                                : fmt::format("{}", value);
            }
        },
        row.field);
}

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

void note_given(const CLI::App& app, bool typed, Options& options) {
    for (const CLI::Option* option : app.get_options()) {
        if (option->count() > 0) options.given.emplace(option->get_single_name(), typed);
    }
}

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
    options.resume = wanted && holds_checkpoint(options.output_dir) ? options.output_dir : "";
    if (options.resume.empty()) return;
    options.output_dir.clear();
    if (options.was_given("model")) options.given["model"] = false;  // As before; the run's own model counts.
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
    for (const CommandRow& row : subcommand_table()) {
        subcommands.push_back(app.add_subcommand(row.name, row.help));
        add_command(*subcommands.back(), row.mask, options);
    }

    const std::vector<const char*> words = in_our_words(argc, argv);
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
    resolve_llmc_resume(options);
    if (!options.resume.empty() && !options.config.empty()) {
        fail_usage("--config={}: a resumed run has its own config.toml; leave --config out", options.config);
    }
    if (!options.config.empty()) apply_config(used, options.config);
    if (!options.resume.empty()) apply_config(used, find_run_folder(options.resume, "--resume") + "/config.toml");
    note_given(used, /*typed=*/false, options);
    if (options.batch_size == 0 && options.total_batch_size == 0) {
        options.total_batch_size = Options().batch_size * options.seq_len;
    }
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

std::string to_toml(const Options& options) {
    std::string text = fmt::format("# train_gpt {}: the options of this run; usable with --config\n", version());
    const char* group = "";
    for (const OptionRow& row : option_table()) {
        if ((row.commands & kTrain) == 0 || !row.shapes_run) continue;
        // An empty or zero override means "not given", and stays so.
        const std::string value = toml_value(options, row);
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

}  // namespace llmc
