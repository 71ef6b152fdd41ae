#include "llmc/train/config_options.h"

#include "llmc/base/error.h"
#include "llmc/base/nearest_word.h"
#include "llmc/base/program_name.h"
#include "llmc/train/option_hints.h"

#include <algorithm>
#include <cctype>

namespace llmc {
namespace {

using Kind = ConfigValue::Kind;

constexpr CommandSet kFromFiles = kTrain | kPlan;  ///< The commands that read a file.

std::string in_small_letters(std::string_view text) {
    std::string result;
    for (const char c : text) {
        result += c == ' ' || c == '_' ? '-' : static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    }
    return result;
}

std::vector<std::string> sections() {
    std::vector<std::string> names;
    for (const OptionRow& row : option_table()) {
        const std::string name = section_of_group(row.group);
        const bool is_new = std::find(names.begin(), names.end(), name) == names.end();
        if ((row.commands & kFromFiles) != 0 && is_new) names.push_back(name);
    }
    return names;
}

/// Whether a section's name is that of the group: its own, the group's as it stands, or the American spelling.
bool is_section_of(const std::string& section, const OptionRow& row) {
    std::string name = in_small_letters(section);
    if (name == "optimization") name = "optimisation";
    return name == section_of_group(row.group) || name == in_small_letters(row.group);
}

const OptionRow* find_row(const std::string& name) {
    for (const OptionRow& row : option_table()) {
        if (row.name() == name) return &row;
    }
    return nullptr;
}

bool is_section(const std::string& name) {
    const auto& table = option_table();
    return std::any_of(table.begin(), table.end(), [&](const OptionRow& row) {
        return (row.commands & kFromFiles) != 0 && is_section_of(name, row);
    });
}

[[noreturn]] void refuse_section(const ConfigEntry& entry, const std::string& at) {
    const std::vector<std::string> names = sections();
    const OptionRow* row = find_row(entry.name);
    if (find_row(entry.section) != nullptr && row == nullptr) {
        fail_usage("{}: '{}' is an option, and has no '{}' in it; write {} = VALUE", at, entry.section, entry.name,
                   entry.section);
    }
    const bool is_for_files = row != nullptr && (row->commands & kFromFiles) != 0;
    const std::string meant =
        is_for_files ? section_of_group(row->group) : nearest_word(in_small_letters(entry.section), names);
    fail_usage("{}: there is no section [{}]; {}sections are [{}], and any option may stand above all of them", at,
               entry.section, meant.empty() ? "" : fmt::format("did you mean [{}]? The ", meant),
               fmt::join(names, "], ["));
}

/// The option that an entry is about.
const OptionRow& row_of(const ConfigEntry& entry, const std::string& at) {
    if (!entry.section.empty() && !is_section(entry.section)) refuse_section(entry, at);
    const OptionRow* row = find_row(entry.name);
    if (entry.value.kind == Kind::Table && row == nullptr) {
        fail_usage("{}: '{}' is a table in a table, and no option; an option is name = value", at, entry.name);
    }
    if (row == nullptr) {
        const std::string hint = did_you_mean(entry.name, kFromFiles, "");
        fail_usage("{}: '{}' is no option for a file{}", at, entry.name,
                   hint.empty() ? fmt::format("; see {} --help", program_name()) : hint);
    }
    if (entry.name == "config" || entry.name == "resume") {
        fail_usage("{}: '{}' is no option for a file; give --{} on the command line", at, entry.name, entry.name);
    }
    if ((row->commands & kFromFiles) == 0) {
        fail_usage("{}: '{}' is no option for a file: it is of a command that reads none; give --{} there", at,
                   entry.name, entry.name);
    }
    if (entry.section.empty() || is_section_of(entry.section, *row)) return *row;
    fail_usage("{}: '{}' is in the section [{}], but belongs to [{}]; put it there, or above all sections", at,
               entry.name, entry.section, section_of_group(row->group));
}

bool is_text(const OptionRow& row) { return std::holds_alternative<std::string Options::*>(row.field); }
/// Whether a value of this kind can be the option's, whatever its range.
bool takes(const OptionRow& row, const ConfigValue& value) {
    const bool is_choice = std::count(row.choices.begin(), row.choices.end(), value.text) > 0;
    switch (value.kind) {
        case Kind::Boolean: return row.is_flag() || (is_text(row) && is_choice);
        case Kind::Integer: return is_text(row) ? row.may_be_number : !row.is_flag();
        case Kind::Float: return std::holds_alternative<double Options::*>(row.field);
        case Kind::String: return is_text(row) || is_choice;
        default: return false;
    }
}

/// "must be a whole number from 1 to 1000".
std::string wanted(const OptionRow& row) {
    if (row.is_flag()) return "must be true or false";
    if (is_text(row)) {
        return row.choices.empty() ? "must be a text in quotes"
                                   : fmt::format("must be one of {}, in quotes", fmt::join(row.choices, ", "));
    }
    if (std::holds_alternative<double Options::*>(row.field)) {
        return fmt::format("must be a number from {:g} to {:g}", row.minimum, row.maximum);
    }
    return fmt::format("must be {}a whole number from {:.0f} to {:.0f}",
                       row.choices.empty() ? "" : "'" + row.choices.front() + "' or ", row.minimum, row.maximum);
}

std::string text_of(const OptionRow& row, const ConfigValue& value, const std::string& at) {
    if (!takes(row, value)) {
        const bool could_be_unquoted = value.kind == Kind::String && !is_text(row) && is_bare_value(value.text);
        fail_usage("{}: --{}: {}, not {}{}", at, row.name(), wanted(row), describe(value),
                   could_be_unquoted ? "; leave the quotes out" : "");
    }
    if (value.text.find('\0') != std::string::npos) {
        fail_usage("{}: --{}: has a character with the code 0 in it; leave that out", at, row.name());
    }
    return value.text;
}

/// `plan` takes a list of one option.
std::string text_of_list(const OptionRow& row, const ConfigValue& value, const std::string& at) {
    if (value.kind != Kind::Array || row.name() != "recompute") return text_of(row, value, at);
    if (value.elements.empty()) fail_usage("{}: --{}: the list is empty; name at least one", at, row.name());
    std::string text;
    for (const ConfigValue& element : value.elements) text += (text.empty() ? "" : ",") + text_of(row, element, at);
    return text;
}

/// The one thing in [written].
std::string written_folder_of(const ConfigEntry& entry, const std::string& at) {
    if (entry.name == kWrittenFolder && entry.value.kind == Kind::String) return entry.value.text;
    fail_usage("{}: the section [{}] has one text, '{}'; options belong into others", at, kWrittenSection,
               kWrittenFolder);
}

}  // namespace

std::string section_of_group(std::string_view group) { return in_small_letters(group.substr(0, group.find(' '))); }

ConfigOptions options_in(const std::vector<ConfigEntry>& entries, const std::string& who) {
    ConfigOptions result;
    for (const ConfigEntry& entry : entries) {
        const std::string at = fmt::format("{}: line {}", who, entry.line);
        if (entry.section == kWrittenSection) {
            result.written_folder = written_folder_of(entry, at);
            continue;
        }
        const OptionRow& row = row_of(entry, at);
        for (const ConfigOption& other : result.options) {
            if (other.row != &row) continue;
            fail_usage("{}: '{}' is given twice, in lines {} and {}; leave one of them out", who, entry.name,
                       other.line, entry.line);
        }
        result.options.push_back({&row, text_of_list(row, entry.value, at), entry.line});
    }
    return result;
}

}  // namespace llmc
