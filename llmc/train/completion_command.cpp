#include "llmc/train/completion_command.h"

#include "llmc/base/error.h"
#include "llmc/base/program_name.h"
#include "llmc/model/config.h"
#include "llmc/plan/device_profile.h"
#include "llmc/plan/policy.h"

#include <spdlog/fmt/fmt.h>
#include <spdlog/fmt/ranges.h>

#include <string_view>

namespace llmc {
namespace {

struct Subject {
    std::string name;  ///< "" for training.
    CommandSet mask;
};

std::vector<Subject> subjects() {
    std::vector<Subject> all = {{"", kTrain}};
    for (const CommandRow& command : subcommand_table()) all.push_back({command.name, command.mask});
    return all;
}

/// Words that an option's value may be, beside any file.
std::vector<std::string> words_of(const OptionRow& row) {
    if (row.name() == "model") return preset_names();
    if (row.name() == "device-profile") {
        std::vector<std::string> names;
        for (const DeviceProfile& card : device_profiles()) names.push_back(card.name);
        return names;
    }
    if (row.name() == "recompute") {
        std::vector<std::string> names = {"auto"};
        for (const PolicyRow& policy : policies()) names.emplace_back(policy.name);
        return names;
    }
    if (row.is_flag()) return {"true", "false"};
    return row.choices;
}

std::string bash_flags(CommandSet mask) {
    std::string flags = "--help --help-all";
    for (const OptionRow& row : option_table()) {
        if ((row.commands & mask) == 0 || row.stands_alone()) continue;
        flags += fmt::format(" --{}{}", row.name(), row.is_flag() ? "" : "=");
    }
    return flags;
}

/// "-r" of "-r,--recompute"; "" of an option without a letter.
std::string letter_of(const OptionRow& row) {
    const std::string flags = row.flags;
    const size_t comma = flags.find(',');
    return comma == std::string::npos ? "" : flags.substr(0, comma);
}

std::string bash_script() {
    std::string commands, flags, letters, values;
    for (const Subject& subject : subjects()) {
        if (!subject.name.empty()) commands += (commands.empty() ? "" : " ") + subject.name;
        flags += fmt::format("        '{}') flags='{}' ;;\n", subject.name, bash_flags(subject.mask));
    }
    for (const OptionRow& row : option_table()) {
        const std::vector<std::string> words = words_of(row);
        const std::string letter = letter_of(row);
        if (!letter.empty()) letters += fmt::format("        {}) option=--{} ;;\n", letter, row.name());
        const bool files = row.path != PathKind::None;
        if ((words.empty() && !files) || row.stands_alone()) continue;
        values +=
            fmt::format("    --{}) words='{}'; files={} ;;\n", row.name(), fmt::join(words, " "), files ? "yes" : "no");
    }
    return fmt::format(R"bash(# Completes train_gpt in bash: source <(train_gpt completion bash)
_train_gpt() {{
    local line=${{COMP_LINE:0:COMP_POINT}} command='' flags='' words='' files=no option='' word
    local current=${{line##*[[:space:]]}}
    local before=${{line%"$current"}}
    before=${{before%"${{before##*[![:space:]]}}"}}
    for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
        case " {} " in *" $word "*) command=$word; break ;; esac
    done
    case $command in
{}    esac
    compopt +o nospace 2>/dev/null
    # The value of an option stands behind '=', or is the word after it.
    case $current in
    -*=*) option=${{current%%=*}} current=${{current#*=}} ;;
    -*) ;;
    *)
        option=${{before##*[[:space:]]}}
        case $option in
{}        esac
        [[ " $flags " == *" $option= "* ]] || option=''
        ;;
    esac
    case $option in
{}    esac
    [ -z "$option" ] || {{
        mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current"; [ $files = no ] || compgen -f -- "$current")
        return
    }}
    case $current in
    -*)
        mapfile -t COMPREPLY < <(compgen -W "$flags" -- "$current")
        [[ ${{#COMPREPLY[@]}} -ne 1 || ${{COMPREPLY[0]}} != *= ]] || compopt -o nospace 2>/dev/null
        ;;
    *)
        [ -n "$command" ] || mapfile -t COMPREPLY < <(compgen -W '{}' -- "$current")
        [ "$command" != completion ] || mapfile -t COMPREPLY < <(compgen -W 'bash zsh' -- "$current")
        case $command in report | tokenize) mapfile -t COMPREPLY < <(compgen -f -- "$current") ;; esac
        ;;
    esac
}}
complete -o filenames -F _train_gpt train_gpt ./train_gpt
)bash",
                       commands, flags, letters, values, commands);
}

/// For a word in single quotes that _arguments takes apart at colons and brackets.
std::string zsh_text(std::string_view text) {
    std::string out;
    for (const char c : text) {
        if (c == '\n') break;  // The first line of a long one.
        if (c == ':' || c == '[' || c == ']' || c == '\\') out += '\\';
        out += c;
        if (c == '\'') out += "\\''";
    }
    return out;
}

std::string zsh_arguments(CommandSet mask) {
    std::string text;
    for (const OptionRow& row : option_table()) {
        if ((row.commands & mask) == 0) continue;
        const std::vector<std::string> words = words_of(row);
        const bool is_path = row.path != PathKind::None;
        std::string action = is_path ? "_files" : "";
        if (!words.empty() && !is_path) action = fmt::format("({})", fmt::join(words, " "));
        if (!words.empty() && is_path) {
            action = fmt::format("{{_alternative \"names\\:name\\:({})\" \"files\\:file\\:_files\"}}",
                                 fmt::join(words, " "));
        }
        if (row.stands_alone()) {
            text += fmt::format("            '*:{}:{}' \\\n", row.name(), is_path ? "_files" : "(bash zsh)");
        } else if (row.is_flag()) {
            text += fmt::format("            '--{}[{}]' \\\n", row.name(), zsh_text(row.help));
        } else {
            text +=
                fmt::format("            '--{}=[{}]:{}:{}' \\\n", row.name(), zsh_text(row.help), row.name(), action);
        }
    }
    return text + "            '(- *)'{-h,--help}'[what most people use]' '(- *)--help-all[all options]'\n";
}

std::string zsh_script() {
    std::string commands, cases;
    for (const CommandRow& command : subcommand_table()) {
        commands += fmt::format("        '{}:{}'\n", command.name, zsh_text(command.help));
        cases += fmt::format("        {})\n            _arguments \\\n{}            ;;\n", command.name,
                             zsh_arguments(command.mask));
    }
    return fmt::format(R"zsh(#compdef train_gpt
# Completes train_gpt in zsh: train_gpt completion zsh > ~/.zfunc/_train_gpt, with ~/.zfunc in $fpath.
_train_gpt() {{
    local -a commands
    commands=(
{}    )
    local command=${{words[2]}}
    case $command in
{}        *)
            if (( CURRENT == 2 )) && [[ $words[2] != -* ]]; then
                _describe command commands
                return
            fi
            _arguments \
{}            ;;
    esac
}}
compdef _train_gpt train_gpt
)zsh",
                       commands, cases, zsh_arguments(kTrain));
}

/// Text for troff: backslashes and hyphens as themselves, no line that begins with a control character.
std::string roff(std::string_view text) {
    std::string out;
    bool at_begin = true;
    for (const char c : text) {
        if (at_begin && (c == '.' || c == '\'')) out += "\\&";
        at_begin = c == '\n';
        if (c == '\n') {
            out += "\n.br\n";
        } else if (c == '\\') {
            out += "\\e";
        } else if (c == '-') {
            out += "\\-";
        } else {
            out += c;
        }
    }
    return out;
}

std::string manual_of(const Subject& subject) {
    std::string text, group;
    for (const OptionRow& row : option_table()) {
        if ((row.commands & subject.mask) == 0) continue;
        if (group != row.group) text += fmt::format(".SS {}\n", roff(group = row.group));
        std::string flags = row.flags;
        if (const size_t comma = flags.find(','); comma != std::string::npos) flags.insert(comma + 1, " ");
        text +=
            fmt::format(".TP\n.BR {}{}\n{}\n", fmt::format("\"{}\"", roff(flags)),
                        value_name(row).empty() ? "" : fmt::format(" \" {}\"", roff(value_name(row))), roff(row.help));
        if (const std::string is = option_text(Options(), row); !is.empty() && !row.is_flag()) {
            text += fmt::format("Default: {}.\n", roff(is));
        }
    }
    return text;
}

}  // namespace

std::string completion_script(const Options& options) {
    const std::string shell = options.words.size() == 1 ? options.words.front() : "";
    if (shell == "bash") return bash_script();
    if (shell == "zsh") return zsh_script();
    fail_usage("completion: is for bash or zsh{}; write {} completion bash",
               options.words.empty() ? "" : fmt::format(", not '{}'", fmt::join(options.words, " ")), program_name());
}

std::string manual_page() {
    std::string commands;
    for (const CommandRow& command : subcommand_table()) {
        commands += fmt::format(".TP\n.B {}\n{}.\n", command.name, roff(command.help));
    }
    std::string text = fmt::format(R"man(.TH TRAIN_GPT 1
.SH NAME
train_gpt \- train GPT\-2 and LLaMA models on as much memory as there is
.SH SYNOPSIS
.B train_gpt
.RI [ options ]
.br
.B train_gpt
.I subcommand
.RI [ options ]
.SH DESCRIPTION
Without a subcommand it trains. What the backward pass needs is kept or computed again as
.B \-\-recompute
says; buffers are sized to match, and every level gives the same bits.
.SS Subcommands
{}.SH OPTIONS OF TRAINING
{})man",
                                   commands, manual_of({"", kTrain}));
    for (const CommandRow& command : subcommand_table()) {
        text += fmt::format(".SH OPTIONS OF {}\n{}", command.name, manual_of({command.name, command.mask}));
    }
    return text + R"man(.SH FILES
.TP
.I runs/NAME
A run: config.toml, metrics.jsonl, samples.jsonl, train.log, plan.json, checkpoints/, tokenizer/.
.TP
.I $XDG_CACHE_HOME/train_gpt
Calibrations, and which token files have been checked.
.SH EXIT STATUS
0: what was asked is done, or a training was stopped by a signal and is saved. 1: it failed. 2: the command line or a
configuration was wrong, and nothing was done. 128 + signal: ended by that signal.
)man";
}

}  // namespace llmc
