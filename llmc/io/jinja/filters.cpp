#include "llmc/io/jinja/builtin_tools.h"

#include "llmc/io/jinja/text_methods.h"
#include "llmc/io/jinja/tree.h"

#include <array>
#include <cmath>
#include <cstdlib>

namespace llmc {
namespace {

using Arguments = JinjaArguments;
using Value = JinjaValue;

constexpr std::array kFilters = {
    "trim", "tojson",  "length",     "count",      "upper",  "lower",  "title",  "capitalize", "default", "d",
    "join", "first",   "last",       "replace",    "items",  "list",   "string", "int",        "float",   "safe",
    "e",    "reverse", "selectattr", "rejectattr", "select", "reject", "map",    "abs",        "indent",  "dictsort"};

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

bool is_jinja_filter(std::string_view name) { return name != "e" && is_one_of(kFilters, name); }

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

}  // namespace llmc
