#include "llmc/train/command_line.h"

#include "llmc/base/error.h"
#include "llmc/base/file.h"
#include "llmc/base/nearest_word.h"
#include "llmc/base/program_name.h"
#include "llmc/train/option_hints.h"
#include "llmc/train/options.h"

#include <algorithm>
#include <string>
#include <string_view>

namespace llmc {
namespace {

/// The subcommand that a command line begins with; null where it trains.
const CommandRow* subcommand_named(std::string_view word) {
    const auto& table = subcommand_table();
    const auto row = std::find_if(table.begin(), table.end(), [&](const CommandRow& r) { return r.name == word; });
    return row == table.end() ? nullptr : &*row;
}

std::string_view before_value(std::string_view word) { return word.substr(0, word.find('=')); }

/// The row of "--batch-size" or "-b", with or without "=4"; null if there is none.
const OptionRow* row_of(std::string_view word) {
    const std::string_view flag = before_value(word);
    if (!flag.starts_with('-') || flag.size() < 2) return nullptr;
    for (const OptionRow& row : option_table()) {
        const std::string_view flags = row.flags;
        const size_t comma = flags.find(',');
        const bool is_short = comma != std::string_view::npos && flags.substr(0, comma) == flag;
        if (is_short || flags.substr(comma == std::string_view::npos ? 0 : comma + 1) == flag) return &row;
    }
    return nullptr;
}

bool is_option(std::string_view word) { return row_of(word) != nullptr || word == "--help" || word == "--version"; }

/// "plan --help".
std::string help_of(const CommandRow* command) {
    return command == nullptr ? program_name() + " --help" : fmt::format("{} {} --help", program_name(), command->name);
}

[[noreturn]] void refuse_option(std::string_view word, const CommandRow* command) {
    const CommandSet mask = command == nullptr ? CommandSet{kTrain} : command->mask;
    const std::string who = command == nullptr ? "training" : command->name;
    const std::string given(before_value(word));
    if (const OptionRow* row = row_of(word)) {
        fail_usage("{}: {} does not have this option, only {}; leave it out, or see {}", given, who,
                   commands_with(*row), help_of(command));
    }
    std::string name =
        given.substr(given.find_first_not_of('-') == std::string::npos ? given.size() : given.find_first_not_of('-'));
    std::replace(name.begin(), name.end(), '_', '-');
    std::vector<std::string> names = {"help"};
    for (const OptionRow& row : option_table()) {
        if ((row.commands & mask) != 0 && !row.stands_alone()) names.push_back(row.name());
    }
    std::string hint = did_you_mean(name, mask);
    if (const std::string meant = likely_word(name, names); hint.empty() && !meant.empty()) {
        hint = fmt::format("; did you mean --{}?", meant);
    }
    if (subcommand_named(name) != nullptr) {
        hint = fmt::format("; did you mean the subcommand, {} {}?", program_name(), name);
    }
    fail_usage("{}: there is no such option{} see {}", given, hint.empty() ? ";" : hint + " If not,", help_of(command));
}

/// The option that a word without dashes is probably for; "" if the command has none that names what it is about.
std::string option_for(const CommandRow* command) {
    if (command == nullptr) return "data";
    switch (command->command) {
        case Command::Plan: return "model";
        case Command::Generate: return "prompt";
        case Command::Evaluate: return "data";
        case Command::Import: return "from";
        default: break;
    }
    const auto& table = option_table();
    const bool has_run = std::any_of(table.begin(), table.end(), [&](const OptionRow& row) {
        return (row.commands & command->mask) != 0 && row.name() == "run";
    });
    return has_run ? "run" : "";
}

/// What editors and web pages make of two hyphens.
void refuse_long_dash(const std::string& word) {
    constexpr std::string_view kDashes[] = {"\u2010", "\u2011", "\u2012", "\u2013", "\u2014", "\u2015", "\u2212"};
    for (const std::string_view dash : kDashes) {
        if (!word.starts_with(dash)) continue;
        std::string name = word.substr(dash.size());
        while (name.starts_with(dash) || name.starts_with('-')) name.erase(0, name.starts_with('-') ? 1 : dash.size());
        if (name.empty()) return;
        const bool is_short = before_value(name).size() == 1;
        if (is_short && name.size() > 1) name[1] = ' ';
        const char* hyphens = is_short ? "-" : "--";
        fail_usage("'{}': begins with a long dash, which is not two hyphens; write {}{}", word, hyphens, name);
    }
}

[[noreturn]] void refuse_word(const std::string& word, const CommandRow* command,
                              const std::vector<const char*>& words) {
    refuse_long_dash(word);
    for (size_t i = 2; i < words.size(); ++i) {
        const OptionRow* before = row_of(words[i - 1]);
        if (word != words[i] || before == nullptr || !before->is_flag()) continue;
        fail_usage("--{}: takes no value, but is followed by '{}'; write it alone, or --{}=false", before->name(), word,
                   before->name());
    }
    if (word == "help" && !path_exists(word)) fail_usage("'help': is an option; write {}", help_of(command));
    std::vector<std::string> names;
    for (const CommandRow& row : subcommand_table()) names.emplace_back(row.name);
    const std::string option = option_for(command);
    const std::string quoted_word = word.find_first_of(" *?'\"") == std::string::npos ? word : "'" + word + "'";
    if (command == nullptr) {
        std::vector<std::string> with_train = names;
        with_train.emplace_back("train");
        const std::string meant = likely_word(word, with_train);
        if (meant == "train" && !path_exists(word)) {
            fail_usage("'{}': training is no subcommand, but what happens without one; leave it out", word);
        }
        if (!meant.empty() && !path_exists(word)) {
            fail_usage("'{}': there is no such subcommand; did you mean {}? If not, see {}", word, meant,
                       help_of(nullptr));
        }
        if (!path_exists(word)) {
            fail_usage("'{}': there is no such subcommand; there are {}, and to train on a file it is --data=FILE",
                       word, fmt::join(names, ", "));
        }
    }
    if (option.empty())
        fail_usage("'{}': {} takes no such word; leave it out, or see {}", word, command->name, help_of(command));
    fail_usage("'{}': stands alone; {}{}", word,
               subcommand_named(word) != nullptr && command != nullptr
                   ? "one subcommand at a time"
                   : fmt::format("if it is what --{} is about, write --{}={}", option, option, quoted_word),
               option == "data" ? ", and for several files a folder or a quoted pattern" : "");
}

/// An option as the word has it: "--batch-size", or "-b (--batch-size)".
std::string as_typed(std::string_view word, const std::string& name) {
    return before_value(word) == name ? name : fmt::format("{} ({})", before_value(word), name);
}
std::string as_typed(const CLI::Option& option, const std::vector<const char*>& words) {
    const std::string name = option.get_name();
    const auto word = std::find_if(words.begin(), words.end(), [&](const char* typed) {
        return row_of(typed) != nullptr && row_of(typed) == row_of(name);
    });
    return word == words.end() ? name : as_typed(*word, name);
}

/// The option that a message of CLI11 begins with.
const CLI::Option* option_in(const std::string& message, const CLI::App& app) {
    return app.get_option_no_throw(message.substr(0, message.find(':')));
}

}  // namespace

void refuse_before_subcommand(const CLI::App& app, const CLI::App& used) {
    const CommandRow* command = subcommand_named(used.get_name());
    for (const CLI::Option* option : app.get_options()) {
        const OptionRow* row = row_of(option->get_name());
        if (option->count() == 0 || row == nullptr) continue;
        if ((row->commands & command->mask) == 0) refuse_option(option->get_name(), command);
        fail_usage("{}: stands before the subcommand; write {} {} {}{}", option->get_name(), program_name(),
                   used.get_name(), option->get_name(), row->is_flag() ? "" : "=" + option->results().front());
    }
}

void require_plain_words(const std::vector<const char*>& words) {
    for (size_t i = 1; i < words.size(); ++i) {
        const std::string_view word = words[i];
        if (word == "--") return;
        if (word.size() > 2 && word[0] == '-' && word[1] != '-') {
            std::string longer = "-" + std::string(word);
            std::replace(longer.begin(), longer.begin() + static_cast<std::ptrdiff_t>(before_value(longer).size()), '_',
                         '-');
            if (is_option(longer)) fail_usage("'{}': a long name has two dashes; write {}", word, longer);
        }
        const OptionRow* row = row_of(word);
        if (row == nullptr) continue;
        if (word.starts_with("--") && word.ends_with('=') && before_value(word).size() + 1 == word.size()) {
            fail_usage("{}: there is no value behind the '='; write {}VALUE, or leave it out", before_value(word),
                       word);
        }
        if (row->is_flag() || word.find('=') != std::string_view::npos || i + 1 == words.size()) continue;
        const std::string_view value = words[++i];
        if (row->implied != nullptr && is_option(value)) {
            --i;
            continue;
        }
        if (is_option(value)) {
            fail_usage("{}: needs a value, but '{}' comes next; write --{}=VALUE", as_typed(word, "--" + row->name()),
                       value, row->name());
        }
    }
}

void refuse_words(const CLI::ParseError& error, const CLI::App& app, const std::vector<const char*>& words) {
    const std::vector<const CLI::App*> parsed = app.get_subcommands([](const CLI::App* sub) { return sub->parsed(); });
    const CLI::App& used = parsed.empty() ? app : *parsed.front();
    const CommandRow* command = subcommand_named(used.get_name());
    for (const CLI::App* where : {&app, &used}) {
        for (const std::string& word : where->remaining()) {
            if (word == "--") continue;
            if (word.starts_with('-')) refuse_option(word, where == &app ? nullptr : command);
            refuse_word(word, where == &app ? nullptr : command, words);
        }
    }
    std::string message = error.what();
    const CLI::Option* option = option_in(message, used);
    if (option != nullptr && dynamic_cast<const CLI::ArgumentMismatch*>(&error) != nullptr) {
        const std::string name = option->get_name(), typed = as_typed(*option, words);
        if (option->results().size() > 1) {
            fail_usage("{}: was given {} times, as {}; give it once", name, option->results().size(),
                       fmt::join(option->results(), " and "));
        }
        fail_usage("{}: needs a value; write {}={}", typed, name, option->get_type_name());
    }
    if (option != nullptr) message.replace(0, message.find(':'), as_typed(*option, words));
    std::replace(message.begin(), message.end(), '\n', ' ');
    fail_usage("{}", message);
}

}  // namespace llmc
