#include "llmc/model/trainable.h"

#include "llmc/base/error.h"
#include "llmc/base/units.h"
#include "llmc/model/dropout.h"

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <optional>

namespace llmc {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }

/// The number at the beginning of a text, and what follows it.
struct Number {
    int64_t value = 0;
    size_t digits = 0;
};
Number number_at(std::string_view text) {
    Number number;
    const char* const end = std::find_if_not(text.data(), text.data() + text.size(), is_digit);
    const auto read = std::from_chars(text.data(), end, number.value);
    if (read.ec == std::errc()) number.digits = static_cast<size_t>(end - text.data());
    return number;
}

/// One item of a glob: a character, `?`, `*`, a set in brackets, or a range of numbers.
struct Item {
    enum class Kind : uint8_t { Literal, One, Any, Set, Range } kind = Kind::Literal;
    std::string_view text;        ///< Of the glob: a set's with its brackets.
    int64_t first = 0, last = 0;  ///< Of a range.
    bool is_literal() const { return kind == Kind::Literal; }
};

/// The item that a glob begins with; a range only where no digit comes before it. An open bracket stands for itself.
Item item_at(std::string_view glob, bool after_digit) {
    using Kind = Item::Kind;
    if (glob.front() == '*') return {Kind::Any, glob.substr(0, 1)};
    if (glob.front() == '?') return {Kind::One, glob.substr(0, 1)};
    if (glob.front() == '[') {
        const size_t inside = glob.size() > 1 && glob[1] == '!' ? 2 : 1;
        const size_t end = glob.find(']', inside + 1);  // "[]]" is a set of one bracket.
        if (end != std::string_view::npos) return {Kind::Set, glob.substr(0, end + 1)};
    }
    const Number first = number_at(glob);
    if (!after_digit && first.digits > 0 && first.digits + 1 < glob.size() && glob[first.digits] == '-') {
        const Number last = number_at(glob.substr(first.digits + 1));
        const std::string_view text = glob.substr(0, first.digits + 1 + last.digits);
        if (last.digits > 0) return {Kind::Range, text, first.value, last.value};
    }
    return {Kind::Literal, glob.substr(0, 1)};
}

std::vector<Item> items_of(std::string_view glob) {
    std::vector<Item> items;
    for (size_t at = 0; at < glob.size(); at += items.back().text.size()) {
        items.push_back(item_at(glob.substr(at), at > 0 && is_digit(glob[at - 1])));
    }
    return items;
}

bool set_has(std::string_view set, char c) {
    const bool inverted = set[1] == '!';
    bool found = false;
    for (size_t i = inverted ? 2 : 1; i + 1 < set.size(); ++i) {
        const bool is_range = i + 3 < set.size() && set[i + 1] == '-';
        found = found || (is_range ? c >= set[i] && c <= set[i + 2] : c == set[i]);
        if (is_range) i += 2;
    }
    return found != inverted;
}

/// How many characters of `name` from `at` on an item other than `*` takes; 0 where it does not fit.
size_t length_of(const Item& item, std::string_view name, size_t at) {
    if (at == name.size()) return 0;
    if (item.kind == Item::Kind::Range) {
        if (at > 0 && is_digit(name[at - 1])) return 0;  // A number is all its digits.
        const Number number = number_at(name.substr(at));
        return number.value >= item.first && number.value <= item.last ? number.digits : 0;
    }
    const bool fits =
        item.kind == Item::Kind::One || (item.is_literal() ? name[at] == item.text[0] : set_has(item.text, name[at]));
    return fits ? 1 : 0;
}

/// How much a pattern says: the characters that stand for themselves.
int64_t literals_of(std::string_view glob) {
    const std::vector<Item> items = items_of(glob);
    return std::count_if(items.begin(), items.end(), [](const Item& item) { return item.is_literal(); });
}

std::string_view option_of(const TrainablePattern& pattern) { return pattern.trainable ? "--trainable" : "--freeze"; }

std::string_view without_spaces(std::string_view text) {
    const size_t first = text.find_first_not_of(' ');
    return first == std::string_view::npos ? "" : text.substr(first, text.find_last_not_of(' ') + 1 - first);
}

TrainablePattern parse_pattern(const std::string& option, std::string_view text, bool trainable) {
    std::string_view glob = without_spaces(text);
    if (glob.starts_with('!')) {
        trainable = !trainable;
        glob = without_spaces(glob.substr(1));
    }
    if (glob.empty()) {
        fail_usage("{}: an empty pattern; give names of parameters, or patterns for them, separated by commas", option);
    }
    for (const Item& item : items_of(glob)) {
        if (item.is_literal() && item.text == "[") {
            fail_usage("{}={}: '[' without ']'; a set of characters is written [abc] or [a-c]", option, glob);
        }
        if (item.kind == Item::Kind::Range && item.first > item.last) {
            fail_usage("{}={}: the range {} is empty; write the smaller number first", option, glob, item.text);
        }
    }
    return {trainable, std::string(glob)};
}

}  // namespace

std::vector<TrainablePattern> parse_patterns(const std::string& option, std::string_view text, bool trainable) {
    std::vector<TrainablePattern> patterns;
    for (size_t first = 0; first <= text.size();) {
        const size_t end = std::min(text.find(',', first), text.size());
        patterns.push_back(parse_pattern(option, text.substr(first, end - first), trainable));
        first = end + 1;
    }
    return patterns;
}

std::string text_of(std::span<const TrainablePattern> patterns) {
    std::string text;
    for (const TrainablePattern& pattern : patterns) {
        text += fmt::format("{}{}{}", text.empty() ? "" : ",", pattern.trainable ? "!" : "", pattern.glob);
    }
    return text;
}

bool matches(std::string_view glob, std::string_view name) {
    const std::vector<Item> items = items_of(glob);
    size_t item = 0, at = 0, at_star = 0;
    std::optional<size_t> after_star;  // Where to go on with one more character for the last star.
    while (item < items.size() || at < name.size()) {
        if (item < items.size() && items[item].kind == Item::Kind::Any) {
            after_star = ++item, at_star = at;
            continue;
        }
        const size_t length = item < items.size() ? length_of(items[item], name, at) : 0;
        if (length > 0) {
            ++item, at += length;
            continue;
        }
        if (!after_star || at_star == name.size()) return false;
        item = *after_star, at = ++at_star;
    }
    return true;
}

std::string row_names(const Model& model) {
    std::string names;
    for (int i = 0; i < static_cast<int>(model.parameters.size()); ++i) {
        std::string name = model.parameters[static_cast<size_t>(i)].name;
        const int in_layers = i - model.first_layer_parameter;
        if (in_layers >= 0 && in_layers < static_cast<int>(model.config.L) * model.parameters_per_layer) {
            if (in_layers >= model.parameters_per_layer) continue;
            name.replace(0, name.rfind('.'), "layers.*");
        }
        names += fmt::format("{}{}", names.empty() ? "" : ", ", name);
    }
    return names;
}

Model with_trainable(Model model, std::span<const TrainablePattern> patterns) {
    std::vector<int64_t> literals(model.parameters.size(), -1);
    for (const TrainablePattern& pattern : patterns) {
        const int64_t specific = literals_of(pattern.glob);
        bool found = false;
        for (size_t row = 0; row < model.parameters.size(); ++row) {
            if (!matches(pattern.glob, model.parameters[row].name)) continue;
            found = true;
            if (specific < literals[row]) continue;
            literals[row] = specific;
            model.parameters[row].trainable = pattern.trainable;
        }
        if (!found) {
            fail_usage("{}={}: no parameter has such a name; there are {} (layers 0-{})", option_of(pattern),
                       pattern.glob, row_names(model), model.config.L - 1);
        }
    }
    lay_out_parameters(&model);
    if (model.trainable_count() == 0) {
        fail_usage("--freeze={}: every parameter is frozen, and there is nothing to train; leave some out of it",
                   text_of(patterns));
    }
    return model;
}

std::string describe_trainable(const Model& model) {
    const int64_t trainable = model.trainable_count(), all = model.parameter_count();
    const int lowest = GradientPath(model).lowest_layer();
    const std::string from = GradientPath(model).reaches(0) ? "from the embedding up"
                             : lowest == model.config.L     ? "behind the last layer"
                                                            : fmt::format("from layer {} up", lowest);
    return fmt::format("{} of {} parameters ({:.3g} %), {}", format_count(trainable), format_count(all),
                       100 * static_cast<double>(trainable) / static_cast<double>(all), from);
}

Model with_layers(const Model& model, int64_t layers) {
    Model few = with_config(model, with_layers(model.config, layers));
    const int lowest = GradientPath(model).lowest_layer(), L = static_cast<int>(model.config.L);
    const int in_layers = L * model.parameters_per_layer,
              few_in_layers = static_cast<int>(layers) * few.parameters_per_layer;
    for (int i = 0; i < static_cast<int>(few.parameters.size()); ++i) {
        bool& trainable = few.parameters[static_cast<size_t>(i)].trainable;
        const int within = i - few.first_layer_parameter;
        if (within < 0) {
            trainable = model.trains(i);
        } else if (within >= few_in_layers) {
            trainable = model.trains(i - few_in_layers + in_layers);
        } else {
            trainable = false;
            for (int layer = lowest; layer < L; ++layer) {
                trainable = trainable || model.trains(model.parameter_index(layer, within % few.parameters_per_layer));
            }
        }
    }
    lay_out_parameters(&few);
    return few;
}

GradientPath::GradientPath(const Model& model) : model_(model), first_(static_cast<int>(model.config.L)) {
    const auto trainable = std::find_if(model.parameters.begin(), model.parameters.end(),
                                        [](const ParameterRow& row) { return row.trainable; });
    const auto before = static_cast<int>(trainable - model.parameters.begin()) - model.first_layer_parameter;
    first_ = before < 0 ? -1 : std::min(first_, before / std::max(1, model.parameters_per_layer));
    wanted_.assign(model.activations.size(), false);
    if (first_ < 0 || first_ == static_cast<int>(model.config.L)) return;
    for (const OpRow& row : model.block) {
        if (row.out == kLayerOutput) continue;
        const auto wanted = [&](int slot) { return slot != kNone && wanted_[static_cast<size_t>(slot)]; };
        wanted_[static_cast<size_t>(row.out)] = wanted(row.in) || wanted(row.residual) ||
                                                model.trains(model.parameter_index(first_, row.weight)) ||
                                                model.trains(model.parameter_index(first_, row.bias));
    }
}

bool GradientPath::reaches(int layer, int slot) const {
    if (slot == kLayerOutput) return reaches(layer + 1);
    return layer > first_ || (layer == first_ && wanted_[static_cast<size_t>(slot)]);
}

}  // namespace llmc
