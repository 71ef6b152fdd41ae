#include "llmc/io/jinja/builtin_tools.h"

#include "llmc/io/jinja/text_methods.h"

namespace llmc {

using Arguments = JinjaArguments;
using Value = JinjaValue;

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

const JinjaText& text_of(const Value& value, const std::string& what) {
    if (value.text() == nullptr) fault("{} wants a text, not {}", what, value.kind());
    return *value.text();
}

int64_t whole_of(const Value& value, const std::string& what) {
    int64_t number = 0;
    if (!value.whole(&number)) fault("{} wants a whole number, not {}", what, value.kind());
    return number;
}

const std::string* optional_text(const Value* value, const std::string& what) {
    return value == nullptr || value->is_none() ? nullptr : &text_of(*value, what).bytes;
}

Value texts_of(std::vector<JinjaText> parts, JinjaWork& work) {
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

}  // namespace llmc
