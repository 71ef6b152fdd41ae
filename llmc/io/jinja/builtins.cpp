#include "llmc/io/jinja/builtins.h"

#include "llmc/io/jinja/text_methods.h"
#include "llmc/io/jinja/tree.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <ctime>

namespace llmc {
namespace {

using Arguments = JinjaArguments;
using Value = JinjaValue;

template <typename... Args>
[[noreturn]] void fault(fmt::format_string<Args...> format, Args&&... args) {
    throw JinjaFault{fmt::format(format, std::forward<Args>(args)...)};
}

const JinjaText& text_of(const Value& value, const std::string& what) {
    if (value.text() == nullptr) fault("{} wants a text, not {}", what, value.kind());
    return *value.text();
}

int64_t whole_of(const Value& value, const std::string& what) {
    int64_t number = 0;
    if (!value.whole(&number)) fault("{} wants a whole number, not {}", what, value.kind());
    return number;
}

/// The text of an argument that may be left out, or none; null then.
const std::string* optional_text(const Value* value, const std::string& what) {
    return value == nullptr || value->is_none() ? nullptr : &text_of(*value, what).bytes;
}

Value texts(std::vector<JinjaText> parts, JinjaWork& work) {
    std::vector<Value> items;
    for (JinjaText& part : parts) {
        work.spend(part.bytes.size() + sizeof(Value));
        items.push_back(Value::of(std::move(part)));
    }
    return Value::of(std::move(items));
}

int64_t length_of(const Value& value) {
    if (value.text() != nullptr) return static_cast<int64_t>(character_count(value.text()->bytes));
    if (value.list() != nullptr) return static_cast<int64_t>(value.list()->items.size());
    if (value.map() != nullptr) return static_cast<int64_t>(value.map()->items.size());
    if (value.is_undefined()) return 0;
    fault("length wants a text, a list or a dict, not {}", value.kind());
}

Value pairs_of(const JinjaMap& map, JinjaWork& work) {
    std::vector<Value> pairs;
    for (const auto& [key, value] : map.items) {
        work.spend(key.size() + 4 * sizeof(Value));
        pairs.push_back(Value::of(std::vector{Value::of(key), value}));
    }
    return Value::of(std::move(pairs));
}

Value joined(const Value& value, const Arguments& arguments, JinjaWork& work) {
    const Value* given = arguments.find(0, "d");
    const JinjaText between = given == nullptr ? JinjaText() : written(*given, work);
    JinjaText all;
    bool is_first = true;
    for (const Value& item : jinja_items(value, work)) {
        if (!is_first) all.append(between);
        is_first = false;
        all.append(written(item, work));
        work.spend(between.bytes.size());
    }
    return Value::of(std::move(all));
}

/// "a.b" of an item, for filters that look at attributes.
Value attribute_of(Value value, const std::string& path, JinjaWork& work) {
    for (size_t begin = 0; begin <= path.size();) {
        const size_t end = std::min(path.find('.', begin), path.size());
        value = jinja_member(value, Value::of(path.substr(begin, end - begin)), /*is_attribute=*/false, work);
        begin = end + 1;
    }
    return value;
}

/// selectattr and rejectattr: items whose attribute passes a test, or is true; the others.
Value selected(bool by_attribute, bool keep, const Value& value, const Arguments& arguments, JinjaWork& work) {
    const size_t first = by_attribute ? 1 : 0;
    const Value* attribute = by_attribute ? arguments.find(0) : nullptr;
    if (by_attribute && attribute == nullptr) fault("selectattr wants the name of an attribute");
    const Value* test = arguments.find(first);
    Arguments of_test;
    for (size_t i = first + 1; i < arguments.positional.size(); ++i)
        of_test.positional.push_back(arguments.positional[i]);
    std::vector<Value> kept;
    for (const Value& item : jinja_items(value, work)) {
        const Value tested = by_attribute ? attribute_of(item, text_of(*attribute, "selectattr").bytes, work) : item;
        const bool passes = test == nullptr
                                ? tested.truth()
                                : apply_jinja_test(text_of(*test, "selectattr").bytes, tested, of_test, work);
        if (passes == keep) kept.push_back(item);
    }
    return Value::of(std::move(kept));
}

Value mapped(const Value& value, const Arguments& arguments, JinjaWork& work) {
    const Value* attribute = nullptr;
    for (const auto& [name, given] : arguments.named) {
        if (name == "attribute") attribute = &given;
    }
    std::vector<Value> all;
    for (const Value& item : jinja_items(value, work)) {
        if (attribute != nullptr) {
            all.push_back(attribute_of(item, text_of(*attribute, "map").bytes, work));
            continue;
        }
        const Value* filter = arguments.find(0);
        if (filter == nullptr) fault("map wants the name of a filter, or attribute=");
        Arguments rest;
        rest.positional.assign(arguments.positional.begin() + 1, arguments.positional.end());
        all.push_back(apply_jinja_filter(text_of(*filter, "map").bytes, item, rest, work));
    }
    return Value::of(std::move(all));
}

Value first_or_last(bool first, const Value& value, JinjaWork& work) {
    const std::vector<Value> items = jinja_items(value, work);
    if (items.empty()) return Value::undefined(first ? "first" : "last");
    return first ? items.front() : items.back();
}

Value as_json(const Value& value, const Arguments& arguments, JinjaWork& work) {
    arguments.require("tojson", 0, 1, {"indent", "ensure_ascii", "separators", "sort_keys"});
    for (const auto& [name, given] : arguments.named) {
        if (name != "indent" && given.truth()) fault("tojson({}=...) is not supported", name);
    }
    const Value* indent = arguments.find(0, "indent");
    constexpr int64_t kWidest = 32;
    const int64_t blanks = indent == nullptr || indent->is_none() ? -1 : whole_of(*indent, "tojson(indent)");
    if (blanks > kWidest) fault("tojson(indent={}) is too wide", blanks);
    try {
        return Value::of(json_of(value, static_cast<int>(blanks), work));
    } catch (const std::string& what) {
        fault("tojson: {}", what);
    }
}

Value as_integer(const Value& value, const Arguments& arguments) {
    int64_t number = 0;
    if (value.whole(&number)) return Value::of(number);
    constexpr double kBeyond = 9e18;
    if (value.real() != nullptr && std::abs(*value.real()) < kBeyond) {
        return Value::of(static_cast<int64_t>(*value.real()));
    }
    if (value.text() != nullptr) {
        char* end = nullptr;
        const std::string text = stripped(*value.text(), nullptr, true, true).bytes;
        const long long parsed = std::strtoll(text.c_str(), &end, 10);
        if (!text.empty() && *end == '\0') return Value::of(static_cast<int64_t>(parsed));
    }
    const Value* otherwise = arguments.find(0, "default");
    return otherwise == nullptr ? Value::of(int64_t{0}) : *otherwise;
}

Value reversed(const Value& value, JinjaWork& work) {
    std::vector<Value> items = jinja_items(value, work);
    std::reverse(items.begin(), items.end());
    if (value.text() == nullptr) return Value::of(std::move(items));
    JinjaText text;
    for (const Value& item : items) text.append(item.text()->bytes);
    return Value::of(std::move(text));
}

Value indented(const Value& value, const Arguments& arguments, JinjaWork& work) {
    arguments.require("indent", 0, 3, {"width", "first", "blank"});
    const JinjaText& text = text_of(value, "indent");
    const Value* width = arguments.find(0, "width");
    const Value* first = arguments.find(1, "first");
    const Value* blank = arguments.find(2, "blank");
    constexpr int64_t kWidest = 1000, kUsual = 4;
    const int64_t columns = width == nullptr ? kUsual : whole_of(*width, "indent");
    if (columns < 0 || columns > kWidest) fault("indent({}) is too wide", columns);
    const std::string blanks(static_cast<size_t>(columns), ' ');
    std::string out = first != nullptr && first->truth() ? blanks : "";
    for (size_t i = 0; i < text.bytes.size(); ++i) {
        out += text.bytes[i];
        if (text.bytes[i] != '\n') continue;
        const bool is_empty = i + 1 >= text.bytes.size() || text.bytes[i + 1] == '\n';
        if (is_empty && (blank == nullptr || !blank->truth())) continue;
        work.spend(blanks.size());
        out += blanks;
    }
    return Value::of(text.changed(std::move(out)));
}

Value sorted_pairs(const Value& value, JinjaWork& work) {
    if (value.map() == nullptr) fault("dictsort wants a dict, not {}", value.kind());
    JinjaMap map = *value.map();
    map.is_namespace = false;
    std::stable_sort(map.items.begin(), map.items.end(), [](const auto& a, const auto& b) {
        return lower_case({a.first, {}}).bytes < lower_case({b.first, {}}).bytes;
    });
    return pairs_of(map, work);
}

Value defaulted(const Value& value, const Arguments& arguments) {
    arguments.require("default", 0, 2, {"default_value", "boolean"});
    const Value* otherwise = arguments.find(0, "default_value");
    const Value* falsy = arguments.find(1, "boolean");
    const bool is_missing = value.is_undefined() || (falsy != nullptr && falsy->truth() && !value.truth());
    if (!is_missing) return value;
    return otherwise == nullptr ? Value::of(std::string()) : *otherwise;
}

constexpr std::array kFilters = {
    "trim", "tojson",  "length",     "count",      "upper",  "lower",  "title",  "capitalize", "default", "d",
    "join", "first",   "last",       "replace",    "items",  "list",   "string", "int",        "float",   "safe",
    "e",    "reverse", "selectattr", "rejectattr", "select", "reject", "map",    "abs",        "indent",  "dictsort"};

constexpr std::array kTests = {"defined", "undefined", "none",        "string",  "mapping", "iterable", "sequence",
                               "number",  "integer",   "float",       "boolean", "true",    "false",    "callable",
                               "equalto", "eq",        "==",          "ne",      "!=",      "lt",       "<",
                               "gt",      ">",         "le",          "<=",      "ge",      ">=",       "in",
                               "odd",     "even",      "divisibleby", "lower",   "upper",   "sameas"};

constexpr std::array kTextMethods = {"strip",        "lstrip",       "rstrip",  "split", "rsplit",
                                     "startswith",   "endswith",     "upper",   "lower", "title",
                                     "capitalize",   "replace",      "find",    "join",  "splitlines",
                                     "removeprefix", "removesuffix", "isdigit", "count"};
constexpr std::array kMapMethods = {"get", "items", "keys", "values"};
constexpr std::array kFunctions = {"range", "dict", "namespace", "raise_exception", "strftime_now"};

template <typename Names>
bool is_one_of(const Names& names, std::string_view name) {
    return std::any_of(names.begin(), names.end(), [&](const char* one) { return name == one; });
}

Value text_filter(const std::string& name, const Value& value, const Arguments& arguments, JinjaWork& work) {
    const JinjaText text = written(value, work);
    if (name == "trim") {
        arguments.require(name, 0, 1, {"chars"});
        return Value::of(stripped(text, optional_text(arguments.find(0, "chars"), name), true, true));
    }
    if (name == "replace") {
        arguments.require(name, 2, 3, {"old", "new", "count"});
        const Value* most = arguments.find(2, "count");
        const Value *from = arguments.find(0, "old"), *to = arguments.find(1, "new");
        if (from == nullptr || to == nullptr) fault("replace wants two texts");
        return Value::of(replaced(text, written(*from, work).bytes, written(*to, work).bytes,
                                  most == nullptr || most->is_none() ? -1 : whole_of(*most, name), work));
    }
    arguments.require(name, 0, 0);
    if (name == "upper") return Value::of(upper_case(text));
    if (name == "lower") return Value::of(lower_case(text));
    if (name == "title") return Value::of(title_case(text, /*python_words=*/false));
    if (name == "capitalize") return Value::of(capitalized(text));
    return Value::of(text);  // string, safe
}

}  // namespace

const Value* JinjaArguments::find(size_t place, const char* name) const {
    if (place < positional.size()) return &positional[place];
    const auto found = std::find_if(named.begin(), named.end(), [&](const auto& one) { return one.first == name; });
    return found == named.end() || *name == '\0' ? nullptr : &found->second;
}

void JinjaArguments::require(const std::string& what, size_t least, size_t most, std::vector<const char*> names) const {
    if (positional.size() > most) fault("{} takes {} argument{}", what, most, most == 1 ? "" : "s");
    if (positional.size() + named.size() < least) fault("{} wants {} argument{}", what, least, least == 1 ? "" : "s");
    for (const auto& [name, value] : named) {
        if (!is_one_of(names, name)) fault("{} has no argument '{}'", what, name);
    }
}

bool is_jinja_filter(std::string_view name) { return name != "e" && is_one_of(kFilters, name); }
bool is_jinja_test(std::string_view name) { return is_one_of(kTests, name); }
bool is_jinja_function(const std::string& name) { return is_one_of(kFunctions, name); }

Value apply_jinja_filter(const std::string& name, const Value& value, const Arguments& arguments, JinjaWork& work) {
    if (!is_jinja_filter(name)) fault("the filter '{}' is not supported", name);
    if (name == "default" || name == "d") return defaulted(value, arguments);
    if (name == "tojson") return as_json(value, arguments, work);
    if (name == "int") return as_integer(value, arguments);
    if (name == "map") return mapped(value, arguments, work);
    if (name == "selectattr" || name == "rejectattr") {
        return selected(/*by_attribute=*/true, name == "selectattr", value, arguments, work);
    }
    if (name == "select" || name == "reject") {
        return selected(/*by_attribute=*/false, name == "select", value, arguments, work);
    }
    if (name == "indent") return indented(value, arguments, work);
    if (name == "join") {
        arguments.require(name, 0, 1, {"d"});
        return joined(value, arguments, work);
    }
    constexpr std::array kOfTexts = {"trim", "replace", "upper", "lower", "title", "capitalize", "string", "safe"};
    if (is_one_of(kOfTexts, name)) return text_filter(name, value, arguments, work);
    arguments.require(name, 0, 0);
    if (name == "length" || name == "count") return Value::of(length_of(value));
    if (name == "first" || name == "last") return first_or_last(name == "first", value, work);
    if (name == "list") return Value::of(jinja_items(value, work));
    if (name == "reverse") return reversed(value, work);
    if (name == "dictsort") return sorted_pairs(value, work);
    if (name == "items") {
        if (value.is_undefined()) return Value::of(std::vector<Value>());
        if (value.map() == nullptr) fault("items wants a dict, not {}", value.kind());
        return pairs_of(*value.map(), work);
    }
    if (name == "float") return Value::of(value.is_number() ? value.number() : 0.0);
    if (!value.is_number()) fault("abs wants a number, not {}", value.kind());
    if (value.real() != nullptr) return Value::of(std::abs(*value.real()));
    const int64_t number = whole_of(value, name);
    return Value::of(number < 0 ? static_cast<int64_t>(-static_cast<uint64_t>(number)) : number);
}

bool apply_jinja_test(const std::string& name, const Value& value, const Arguments& arguments, JinjaWork& work) {
    work.spend(1);
    if (name == "defined") return !value.is_undefined();
    if (name == "undefined") return value.is_undefined();
    if (name == "none") return value.is_none();
    if (name == "string") return value.text() != nullptr;
    if (name == "mapping") return value.map() != nullptr && !value.map()->is_namespace;
    if (name == "iterable" || name == "sequence") {
        return value.text() != nullptr || value.list() != nullptr || value.map() != nullptr || value.is_undefined();
    }
    if (name == "number") return value.is_number();
    if (name == "integer") return value.integer() != nullptr;
    if (name == "float") return value.real() != nullptr;
    if (name == "boolean") return value.flag() != nullptr;
    if (name == "true" || name == "false") return value.flag() != nullptr && *value.flag() == (name == "true");
    if (name == "callable") return value.function() != nullptr;
    if (name == "odd" || name == "even") {
        if (!value.is_number()) fault("{} wants a number, not {}", name, value.kind());
        return std::fmod(value.number(), 2) == (name == "even" ? 0 : std::copysign(1, value.number()));
    }
    if (name == "lower" || name == "upper") {
        const JinjaText& text = text_of(value, name);
        const bool is_lower = lower_case(text).bytes == text.bytes, is_upper = upper_case(text).bytes == text.bytes;
        return is_lower != is_upper && is_lower == (name == "lower");
    }
    if (!is_jinja_test(name)) fault("the test '{}' is not supported", name);
    const Value* other = arguments.find(0);
    if (other == nullptr) fault("the test '{}' wants something to compare with", name);
    if (name == "divisibleby") {
        const int64_t divisor = whole_of(*other, name);
        if (divisor == 0) fault("division by zero");
        return divisor == -1 || whole_of(value, name) % divisor == 0;
    }
    constexpr std::pair<const char*, const char*> kSigns[] = {{"equalto", "=="}, {"eq", "=="}, {"sameas", "=="},
                                                              {"ne", "!="},      {"lt", "<"},  {"gt", ">"},
                                                              {"le", "<="},      {"ge", ">="}};
    for (const auto& [word, sign] : kSigns) {
        if (name == word) return jinja_compare(sign, value, *other, work);
    }
    return jinja_compare(name, value, *other, work);
}

bool has_jinja_method(const Value& value, const std::string& name) {
    if (value.text() != nullptr) return is_one_of(kTextMethods, name);
    return value.map() != nullptr && !value.map()->is_namespace && is_one_of(kMapMethods, name);
}

namespace {

/// startswith and endswith: of a text, or any of a list of them.
bool has_end(const std::string& text, bool at_begin, const Value& end, const std::string& name) {
    if (end.list() != nullptr) {
        return std::any_of(end.list()->items.begin(), end.list()->items.end(),
                           [&](const Value& one) { return has_end(text, at_begin, one, name); });
    }
    const std::string& wanted = text_of(end, name).bytes;
    return at_begin ? text.starts_with(wanted) : text.ends_with(wanted);
}

Value split_lines(const JinjaText& text, JinjaWork& work) {
    std::vector<JinjaText> lines;
    size_t begin = 0;
    const std::string& bytes = text.bytes;
    while (begin < bytes.size()) {
        const size_t end = std::min(bytes.find_first_of("\r\n", begin), bytes.size());
        lines.push_back(text.part(begin, end));
        begin = end + (bytes.compare(end, 2, "\r\n") == 0 ? 2 : 1);
    }
    return texts(std::move(lines), work);
}

Value text_method(const std::string& name, const JinjaText& self, const Arguments& arguments, JinjaWork& work) {
    work.spend(self.bytes.size());
    const Value* first = arguments.find(0);
    if (name == "strip" || name == "lstrip" || name == "rstrip") {
        arguments.require(name, 0, 1);
        return Value::of(stripped(self, optional_text(first, name), name != "rstrip", name != "lstrip"));
    }
    if (name == "split" || name == "rsplit") {
        arguments.require(name, 0, 2, {"sep", "maxsplit"});
        const std::string* separator = optional_text(arguments.find(0, "sep"), name);
        const Value* most = arguments.find(1, "maxsplit");
        if (separator != nullptr && separator->empty()) fault("{} wants a separator that is not empty", name);
        const bool from_right = name == "rsplit";
        const int64_t times = most == nullptr ? -1 : whole_of(*most, name);
        if (from_right && separator == nullptr && times >= 0) fault("rsplit wants a separator");
        return texts(split_text(self, separator, times, from_right), work);
    }
    if (name == "upper" || name == "lower" || name == "capitalize" || name == "title" || name == "splitlines" ||
        name == "isdigit") {
        arguments.require(name, 0, 0);
        if (name == "upper") return Value::of(upper_case(self));
        if (name == "lower") return Value::of(lower_case(self));
        if (name == "capitalize") return Value::of(capitalized(self));
        if (name == "title") return Value::of(title_case(self, /*python_words=*/true));
        if (name == "splitlines") return split_lines(self, work);
        return Value::of(!self.bytes.empty() && std::all_of(self.bytes.begin(), self.bytes.end(),
                                                            [](char c) { return c >= '0' && c <= '9'; }));
    }
    if (name == "replace") {
        arguments.require(name, 2, 3);
        const Value* most = arguments.find(2);
        return Value::of(replaced(self, text_of(*first, name).bytes, text_of(arguments.positional.at(1), name).bytes,
                                  most == nullptr ? -1 : whole_of(*most, name), work));
    }
    arguments.require(name, 1, 1);
    if (first == nullptr) fault("{} wants an argument", name);
    if (name == "startswith") return Value::of(has_end(self.bytes, true, *first, name));
    if (name == "endswith") return Value::of(has_end(self.bytes, false, *first, name));
    if (name == "join") {
        Arguments between;
        between.positional.push_back(Value::of(self));
        return joined(*first, between, work);
    }
    const std::string& other = text_of(*first, name).bytes;
    if (name == "removeprefix" && self.bytes.starts_with(other)) {
        return Value::of(self.part(other.size(), self.bytes.size()));
    }
    if (name == "removesuffix" && self.bytes.ends_with(other)) {
        return Value::of(self.part(0, self.bytes.size() - other.size()));
    }
    if (name == "removeprefix" || name == "removesuffix") return Value::of(self);
    if (name == "count") {
        int64_t count = 0;
        if (other.empty()) return Value::of(static_cast<int64_t>(character_count(self.bytes)) + 1);
        for (size_t p = self.bytes.find(other); p != std::string::npos; p = self.bytes.find(other, p + other.size())) {
            ++count;
        }
        return Value::of(count);
    }
    const size_t place = self.bytes.find(other);
    if (place == std::string::npos) return Value::of(int64_t{-1});
    return Value::of(static_cast<int64_t>(character_count(std::string_view(self.bytes).substr(0, place))));
}

Value map_method(const std::string& name, const JinjaMap& self, const Arguments& arguments, JinjaWork& work) {
    work.spend(self.items.size());
    if (name == "get") {
        arguments.require(name, 1, 2);
        const Value *key = arguments.find(0), *otherwise = arguments.find(1);
        if (key == nullptr) fault("get wants a key");
        const Value* found = key->text() == nullptr ? nullptr : self.find(key->text()->bytes);
        return found != nullptr ? *found : otherwise != nullptr ? *otherwise : Value();
    }
    arguments.require(name, 0, 0);
    if (name == "items") return pairs_of(self, work);
    std::vector<Value> all;
    for (const auto& [key, value] : self.items) {
        work.spend(sizeof(Value) + key.size());
        all.push_back(name == "keys" ? Value::of(key) : value);
    }
    return Value::of(std::move(all));
}

Value range(const Arguments& arguments, JinjaWork& work) {
    arguments.require("range", 1, 3);
    std::vector<int64_t> numbers;
    for (const Value& value : arguments.positional) numbers.push_back(whole_of(value, "range"));
    if (numbers.empty()) fault("range wants a number");
    const int64_t first = numbers.size() > 1 ? numbers[0] : 0;
    const int64_t last = numbers.size() > 1 ? numbers[1] : numbers[0];
    const int64_t step = numbers.size() > 2 ? numbers[2] : 1;
    constexpr int64_t kLargest = int64_t{1} << 40;
    if (step == 0) fault("range wants a step that is not 0");
    if (std::max({std::abs(first), std::abs(last), std::abs(step)}) > kLargest) fault("range is too long");
    std::vector<Value> items;
    for (int64_t i = first; step > 0 ? i < last : i > last; i += step) {
        work.spend(sizeof(Value));
        items.push_back(Value::of(i));
    }
    return Value::of(std::move(items));
}

Value new_map(const std::string& name, const Arguments& arguments) {
    JinjaMap map;
    map.is_namespace = name == "namespace";
    arguments.require(name, 0, 1, [&] {
        std::vector<const char*> names;
        for (const auto& [key, value] : arguments.named) names.push_back(key.c_str());
        return names;
    }());
    if (const Value* from = arguments.find(0)) {
        if (from->map() == nullptr || from->map()->is_namespace) fault("{} wants a dict, not {}", name, from->kind());
        map.items = from->map()->items;
    }
    for (const auto& [key, value] : arguments.named) map.set(key, value);
    return Value::of(std::move(map));
}

/// The time now, or that of SOURCE_DATE_EPOCH, which builds that are to be repeated set.
Value time_now(const Arguments& arguments) {
    arguments.require("strftime_now", 1, 1);
    const std::string& format = text_of(arguments.positional.at(0), "strftime_now").bytes;
    const char* fixed = std::getenv("SOURCE_DATE_EPOCH");
    const std::time_t now = fixed != nullptr ? static_cast<std::time_t>(std::atoll(fixed)) : std::time(nullptr);
    std::tm parts = {};
    fixed != nullptr ? gmtime_r(&now, &parts) : localtime_r(&now, &parts);
    char buffer[256];
    return Value::of(std::string(buffer, std::strftime(buffer, sizeof buffer, format.c_str(), &parts)));
}

}  // namespace

Value call_jinja_method(const std::string& name, const Value& self, const Arguments& arguments, JinjaWork& work) {
    return self.text() != nullptr ? text_method(name, *self.text(), arguments, work)
                                  : map_method(name, *self.map(), arguments, work);
}

Value call_jinja_function(const std::string& name, const Arguments& arguments, JinjaWork& work) {
    if (name == "range") return range(arguments, work);
    if (name == "strftime_now") return time_now(arguments);
    if (name != "raise_exception") return new_map(name, arguments);
    const Value* message = arguments.find(0, "message");
    fault("the template refuses the conversation: {}", message == nullptr ? "" : written(*message, work).bytes);
}

Value jinja_member(const Value& value, const Value& key, bool is_attribute, JinjaWork& work) {
    if (value.is_undefined()) fault("'{}' is undefined", value.missing()->name);
    int64_t index = 0;
    if (value.list() != nullptr && key.whole(&index)) {
        const auto size = static_cast<int64_t>(value.list()->items.size());
        if (index < 0) index += size;
        return index >= 0 && index < size ? value.list()->items[static_cast<size_t>(index)] : Value::undefined("item");
    }
    if (value.text() != nullptr && key.whole(&index)) {
        const std::string& bytes = value.text()->bytes;
        work.spend(bytes.size());
        const auto size = static_cast<int64_t>(character_count(bytes));
        if (index < 0) index += size;
        if (index < 0 || index >= size) return Value::undefined("character");
        const size_t begin = character_offset(bytes, static_cast<size_t>(index));
        return Value::of(value.text()->part(begin, begin + character_offset(std::string_view(bytes).substr(begin), 1)));
    }
    if (key.text() == nullptr) return Value::undefined(key.kind());
    const std::string& name = key.text()->bytes;
    const Value* found = nullptr;
    if (value.map() != nullptr) {
        work.spend(value.map()->items.size());
        found = value.map()->find(name);
    }
    const bool is_method = has_jinja_method(value, name);
    if (is_method && (is_attribute || found == nullptr)) {
        return Value::of(JinjaFunction{name, std::make_shared<const Value>(value)});
    }
    return found != nullptr ? *found : Value::undefined(name);
}

Value jinja_slice(const Value& value, const int64_t* first, const int64_t* last, const int64_t* step, JinjaWork& work) {
    if (value.text() == nullptr && value.list() == nullptr) fault("{} cannot be cut", value.kind());
    const int64_t stride = step == nullptr ? 1 : *step;
    if (stride == 0) fault("a slice wants a step that is not 0");
    const int64_t size = length_of(value);
    const auto bound = [&](const int64_t* given, int64_t otherwise) {
        if (given == nullptr) return otherwise;
        const int64_t index = *given < 0 ? std::max<int64_t>(*given, -size - 1) + size : *given;
        return stride > 0 ? std::clamp<int64_t>(index, 0, size) : std::clamp<int64_t>(index, -1, size - 1);
    };
    const int64_t begin = bound(first, stride > 0 ? 0 : size - 1);
    const int64_t end = bound(last, stride > 0 ? size : -1);
    if (value.text() != nullptr && stride == 1) {
        const JinjaText& text = *value.text();
        work.spend(text.bytes.size());
        const size_t from = character_offset(text.bytes, static_cast<size_t>(begin));
        const size_t to = character_offset(text.bytes, static_cast<size_t>(std::max(begin, end)));
        return Value::of(text.part(from, to));
    }
    const std::vector<Value> items = jinja_items(value, work);
    std::vector<Value> kept;
    for (int64_t i = begin; stride > 0 ? i < end : i > end;) {
        kept.push_back(items[static_cast<size_t>(i)]);
        const bool is_far = stride > size || stride < -size;
        if (is_far) break;
        i += stride;
    }
    if (value.list() != nullptr) return Value::of(std::move(kept));
    JinjaText text;
    for (const Value& item : kept) text.append(item.text()->bytes);
    return Value::of(std::move(text));
}

std::vector<Value> jinja_items(const Value& value, JinjaWork& work) {
    if (value.list() != nullptr) {
        work.spend(value.list()->items.size() * sizeof(Value));
        return value.list()->items;
    }
    std::vector<Value> items;
    if (value.text() != nullptr) {
        const std::string& bytes = value.text()->bytes;
        for (size_t i = 0; i < bytes.size();) {
            const size_t size = character_offset(std::string_view(bytes).substr(i), 1);
            work.spend(3 * sizeof(Value));
            items.push_back(Value::of(value.text()->part(i, i + size)));
            i += size;
        }
    } else if (value.map() != nullptr && !value.map()->is_namespace) {
        for (const auto& [key, item] : value.map()->items) {
            work.spend(sizeof(Value) + key.size());
            items.push_back(Value::of(key));
        }
    } else if (!value.is_undefined()) {
        fault("{} is nothing to go through", value.kind());
    }
    return items;
}

}  // namespace llmc
