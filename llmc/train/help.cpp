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

constexpr int kFirstColumn = 34, kNarrowest = 60;

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

    std::string make_option_opts(const CLI::Option* option) const override {
        if (option->get_type_size() == 0) return "";
        std::string text = " " + option->get_type_name();
        if (!option->get_default_str().empty()) text += " [" + option->get_default_str() + "]";
        return text;
    }

    std::string make_option(const CLI::Option* option, bool is_positional) const override {
        return columns("  " + make_option_name(option, is_positional) + make_option_opts(option),
                       make_option_desc(option));
    }

    std::string make_subcommand(const CLI::App* sub) const override {
        return columns("  " + sub->get_name(), sub->get_description());
    }

  private:
    static std::string columns(std::string left, const std::string& right) {
        const int width = std::max(output_columns(), kNarrowest) - kFirstColumn;
        std::string text;
        for (size_t begin = 0; begin <= right.size();) {
            const size_t end = std::min(right.find('\n', begin), right.size());
            text += wrapped(right.substr(begin, end - begin), width, /*indent=*/0);
            begin = end + 1;
        }
        if (left.size() + 2 > kFirstColumn) left += '\n' + std::string(kFirstColumn, ' ');
        if (left.size() < kFirstColumn) left.resize(kFirstColumn, ' ');
        for (size_t i = 0; i + 1 < text.size(); ++i) {
            if (text[i] == '\n') text.insert(i + 1, kFirstColumn, ' ');
        }
        return left + text;
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
                std::max(output_columns(), kNarrowest), /*indent=*/0));
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
