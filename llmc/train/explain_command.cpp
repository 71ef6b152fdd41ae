#include "llmc/train/explain_command.h"

#include "llmc/base/error.h"
#include "llmc/base/nearest_word.h"
#include "llmc/base/program_name.h"
#include "llmc/base/terminal.h"
#include "llmc/base/units.h"
#include "llmc/draw/text_table.h"
#include "llmc/model/config.h"
#include "llmc/model/model.h"
#include "llmc/plan/device_profile.h"
#include "llmc/plan/policy.h"
#include "llmc/train/config_options.h"
#include "llmc/train/option_hints.h"

#include <spdlog/fmt/fmt.h>
#include <spdlog/fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <sstream>
#include <string_view>

namespace llmc {
namespace {

std::string lines(const std::string& text) {
    std::string out;
    std::istringstream stream(text);
    for (std::string line; std::getline(stream, line);) out += wrapped(line, output_columns());
    return out;
}

std::string range_of(const OptionRow& row) {
    if (row.minimum == 0 && row.maximum == 0) return "";
    const std::string word = row.choices.empty() ? "" : fmt::format(", or {}", row.choices.front());
    return fmt::format("from {:g} to {:g}{}\n", row.minimum, row.maximum, word);
}

std::string about_option(const OptionRow& row) {
    std::string flags = row.flags;
    const std::string value = value_name(row);
    if (const size_t comma = flags.find(','); comma != std::string::npos) {
        flags = flags.substr(comma + 1) + ", " + flags.substr(0, comma);
    }
    std::string text = flags + (value.empty() ? "" : " " + value) + "\n\n" + row.help + "\n\n";
    if (const std::string is = option_text(Options(), row); !is.empty()) text += fmt::format("default: {}\n", is);
    text += range_of(row);
    text += fmt::format("of: {}\n", commands_with(row));
    if ((row.commands & kTrain) != 0 && row.shapes_run) {
        text += fmt::format("in a run's config.toml: {} in [{}]\n", row.name(), section_of_group(row.group));
    } else if ((row.commands & kTrain) != 0) {
        text += "not kept in a run's config.toml\n";
    }
    return lines(text);
}

std::string about_policy(const PolicyRow& row) {
    return lines(fmt::format(
        "--recompute={}{}\n\n{}.\n\nEvery level gives the same bits; they differ in memory and time. {} plan "
        "--model=NAME shows both for all of them, and dev/notes/recompute.md how it works.",
        row.name, *row.level != '\0' ? fmt::format(", or {}", row.level) : "", row.description, program_name()));
}

std::string about_auto() {
    return lines(
        "--recompute=auto\n\nThe fastest plan within --memory-budget, or within all the memory there is: searched "
        "layer "
        "by layer among what the fixed levels keep. Every level gives the same bits.");
}

/// Where its context is as long as the run's, of some length.
int64_t parameters_of(ModelConfig config) {
    constexpr int64_t kSome = 1024;
    if (config.maxT == 0) config.maxT = kSome;
    return make_model(config).parameter_count();
}

std::string size_of_context(const ModelConfig& config) {
    return config.maxT == 0 ? "as the run's" : format_count(config.maxT);
}

std::string about_preset(const ModelConfig& config) {
    const int64_t parameters = parameters_of(config);
    return lines(fmt::format(
        "--model={}\n\n{}.\n{} parameters; trained in bf16 with AdamW they, their gradients and the optimiser take {} "
        "before any activation ({} plan --model={} has the rest).",
        config.name, describe(config), format_count(parameters), format_bytes(18 * parameters), program_name(),
        config.name));
}

std::string about_card(const DeviceProfile& card) {
    return lines(fmt::format(
        "--device-profile={}\n\n{} of memory, {} of them for a run; {:.0f} TFLOP/s in bf16, {:.0f} in fp32; {:.0f} "
        "GB/s "
        "of its memory, {:.1f} GB/s to the host's.\n\n{} plan --device-profile={} --what-fits --all-presets "
        "shows what it can train.",
        card.name, format_bytes(card.memory_bytes), format_bytes(card.usable_bytes()), card.flops_bf16 / 1e12,
        card.flops_fp32 / 1e12, card.bandwidth / 1e9, card.host_bandwidth / 1e9, program_name(), card.name));
}

std::string list_of_presets() {
    TextTable table({{"preset", true}, {"parameters"}, {"layers"}, {"channels", false, 1}, {"context", false, 2}});
    for (const std::string& name : preset_names()) {
        const ModelConfig config = preset(name);
        table.add_row({name, format_count(parameters_of(config)), format_count(config.L), format_count(config.C),
                       size_of_context(config)});
    }
    return table.text(output_columns());
}

std::string list_of_levels() {
    std::string text;
    for (const PolicyRow& row : policies()) text += fmt::format("{:<8} {}\n", row.name, row.description);
    return lines(text + "auto     the fastest plan within --memory-budget");
}

std::string list_of_cards() {
    std::string text;
    for (const DeviceProfile& card : device_profiles()) {
        text += fmt::format("{:<15} {}\n", card.name, format_bytes(card.memory_bytes));
    }
    return text;
}

std::string in_small_letters(std::string word) {
    std::transform(word.begin(), word.end(), word.begin(), [](unsigned char c) { return std::tolower(c); });
    return word;
}

/// What a word stands for; "" if it is nothing known.
std::string about(const std::string& word) {
    if (word == "presets" || word == "models") return list_of_presets();
    if (word == "levels" || word == "policies") return list_of_levels();
    if (word == "cards" || word == "profiles") return list_of_cards();
    for (const OptionRow& row : option_table()) {
        const std::string flags = row.flags;
        const bool is_letter = word.size() == 1 && flags.starts_with("-" + word + ",");
        if (!row.stands_alone() && (row.name() == word || is_letter)) return about_option(row);
    }
    if (word == "auto") return about_auto();
    for (const PolicyRow& row : policies()) {
        if (word == row.name || (*row.level != '\0' && word == row.level)) return about_policy(row);
    }
    if (const std::optional<ModelConfig> config = find_preset(word)) return about_preset(*config);
    if (const DeviceProfile* card = known_device_profile(word)) return about_card(*card);
    for (const CommandRow& command : subcommand_table()) {
        if (word == command.name) {
            return lines(
                fmt::format("{0} {1}\n\n{2}. Its options: {0} {1} --help", program_name(), word, command.help));
        }
    }
    return "";
}

std::vector<std::string> known_words() {
    std::vector<std::string> words = {"presets", "levels", "cards", "auto"};
    for (const OptionRow& row : option_table()) {
        if (!row.stands_alone()) words.push_back(row.name());
    }
    for (const PolicyRow& row : policies()) words.emplace_back(row.name);
    for (const std::string& name : preset_names()) words.push_back(name);
    for (const DeviceProfile& card : device_profiles()) words.push_back(card.name);
    for (const CommandRow& command : subcommand_table()) words.emplace_back(command.name);
    return words;
}

}  // namespace

std::string explanation(const Options& options) {
    if (options.words.empty()) {
        return lines(program_name() +
                     " explain WORD: an option (recompute, or its letter, r), a level of --recompute (sqrt), a preset "
                     "(llama3-8b), a card (rtx4090), a subcommand (plan); or one of the lists: presets, levels, cards");
    }
    std::string text;
    for (const std::string& word : options.words) {
        const std::string small = in_small_letters(word);
        const std::string one = about(small);
        if (one.empty()) {
            const std::string name = small.substr(0, small.find('='));
            std::string meant = nearest_word(name, known_words());
            if (meant.empty()) meant = similar_option(name, static_cast<CommandSet>(~CommandSet{0}));
            fail_usage("explain: there is no '{}'{}; {} explain says what there is", word,
                       meant.empty() ? "" : fmt::format("; did you mean {}?", meant), program_name());
        }
        text += (text.empty() ? "" : "\n") + one;
    }
    return text;
}

}  // namespace llmc
