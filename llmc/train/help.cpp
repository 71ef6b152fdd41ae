#include "llmc/train/help.h"

#include "llmc/base/program_name.h"
#include "llmc/base/terminal.h"
#include "llmc/draw/text_table.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <memory>
#include <set>
#include <string>
#include <utility>

namespace llmc {
namespace {

constexpr int kNarrowest = 40;

int help_columns() { return std::max(output_columns(), kNarrowest); }

/// Where what is said of an option begins: beside its name, or in a narrow terminal below it.
int second_column() { return help_columns() >= 60 ? 34 : 6; }

std::string with_indent(std::string text, int columns) {
    const std::string blanks(static_cast<size_t>(columns), ' ');
    for (size_t i = 0; i + 1 < text.size(); ++i) {
        if (text[i] == '\n') text.insert(i + 1, blanks);
    }
    return blanks + text;
}

struct CommonOption {
    const char* name;
    CommandSet commands;
};

constexpr CommonOption kCommon[] = {{"model", kTrain | kPlan},
                                    {"data", kTrain},
                                    {"tokenizer", kTrain},
                                    {"batch-size", kTrain | kPlan},
                                    {"seq-len", kTrain | kPlan},
                                    {"steps", kTrain},
                                    {"learning-rate", kTrain},
                                    {"lora", kTrain | kPlan},
                                    {"recompute", kTrain | kPlan},
                                    {"memory-budget", kTrain | kPlan},
                                    {"offload", kPlan},
                                    {"device-profile", kPlan},
                                    {"what-fits", kPlan},
                                    {"all-presets", kPlan},
                                    {"dtype", kTrain | kPlan},
                                    {"ranks", kPlan},
                                    {"zero", kTrain | kPlan},
                                    {"resume", kTrain},
                                    {"output-dir", kTrain},
                                    {"json", kPlan}};

class Formatter : public CLI::Formatter {
  public:
    explicit Formatter(std::set<const CLI::Option*> left_out) : left_out_(std::move(left_out)) {
        label("OPTIONS", "options");
    }

    std::string make_group(std::string group, bool is_positional,
                           std::vector<const CLI::Option*> options) const override {
        std::erase_if(options, [this](const CLI::Option* option) { return left_out_.count(option) > 0; });
        return options.empty() ? "" : CLI::Formatter::make_group(std::move(group), is_positional, std::move(options));
    }

    std::string make_description(const CLI::App* app) const override {
        return wrapped(CLI::Formatter::make_description(app), help_columns(), /*indent=*/0);
    }

    std::string make_usage(const CLI::App* app, std::string name) const override {
        return wrapped(CLI::Formatter::make_usage(app, std::move(name)), help_columns());
    }

    std::string make_option_opts(const CLI::Option* option) const override {
        if (option->get_type_size() == 0) return "";
        std::string text = " " + option->get_type_name();
        if (!option->get_default_str().empty()) text += " [" + option->get_default_str() + "]";
        return text;
    }

    std::string make_option(const CLI::Option* option, bool is_positional) const override {
        return columns(make_option_name(option, is_positional) + make_option_opts(option), make_option_desc(option));
    }

    std::string make_subcommand(const CLI::App* sub) const override {
        return columns(sub->get_name(), sub->get_description());
    }

  private:
    static std::string columns(const std::string& left, const std::string& right) {
        constexpr int kFirst = 2;
        const int second = second_column();
        const std::string name = with_indent(wrapped(left, help_columns() - kFirst), kFirst);
        std::string text = with_indent(wrapped(right, help_columns() - second, /*indent=*/0), second);
        const size_t length = name.size() - 1;  // Without the line's end.
        const bool has_room = name.find('\n') == length && length + 2 <= static_cast<size_t>(second);
        return has_room ? text.replace(0, length, name, 0, length) : name + text;
    }

    const std::set<const CLI::Option*> left_out_;
};

/// Leaves all out that --help of the command does not have. (CLI11 has hidden options, whose names its errors lack.)
void leave_to_help_all(CLI::App& app, CommandSet command, std::set<const CLI::Option*>* left_out) {
    for (const CLI::Option* option : app.get_options()) {
        const std::string name = option->get_single_name();
        if (name != "help" && name != "version" && !is_in_short_help(name, command)) left_out->insert(option);
    }
    const std::string who = command == kTrain ? "" : " plan";
    app.footer(
        wrapped(fmt::format("All options: {0}{1} --help-all. More about one: {0} explain OPTION.", program_name(), who),
                help_columns(), /*indent=*/0));
}

}  // namespace

bool is_in_short_help(std::string_view option, CommandSet command) {
    const bool is_long = command == kTrain || command == kPlan;
    return !is_long || std::any_of(std::begin(kCommon), std::end(kCommon), [&](const CommonOption& common) {
        return common.name == option && (common.commands & command) != 0;
    });
}

void shape_help(CLI::App& app, std::vector<const char*>& words) {
    const auto all = std::find(words.begin(), words.end(), std::string_view("--help-all"));
    const bool has_all = all != words.end();
    if (has_all) *all = "--help";
    std::set<const CLI::Option*> left_out;
    if (!has_all) leave_to_help_all(app, kTrain, &left_out);
    if (!has_all) leave_to_help_all(*app.get_subcommand("plan"), kPlan, &left_out);
    const auto formatter = std::make_shared<Formatter>(std::move(left_out));
    app.formatter(formatter);
    for (CLI::App* sub : app.get_subcommands({})) sub->formatter(formatter);
}

}  // namespace llmc
