#include "llmc/io/jinja/builtin_tools.h"

#include "llmc/io/jinja/text_methods.h"

#include <array>

namespace llmc {
namespace {

using Arguments = JinjaArguments;
using Value = JinjaValue;

constexpr std::array kTextMethods = {"strip",        "lstrip",       "rstrip",  "split", "rsplit",
                                     "startswith",   "endswith",     "upper",   "lower", "title",
                                     "capitalize",   "replace",      "find",    "join",  "splitlines",
                                     "removeprefix", "removesuffix", "isdigit", "count"};

constexpr std::array kMapMethods = {"get", "items", "keys", "values"};

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
    return texts_of(std::move(lines), work);
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
        return texts_of(split_text(self, separator, times, from_right), work);
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

}  // namespace

bool has_jinja_method(const Value& value, const std::string& name) {
    if (value.text() != nullptr) return is_one_of(kTextMethods, name);
    return value.map() != nullptr && !value.map()->is_namespace && is_one_of(kMapMethods, name);
}

Value call_jinja_method(const std::string& name, const Value& self, const Arguments& arguments, JinjaWork& work) {
    return self.text() != nullptr ? text_method(name, *self.text(), arguments, work)
                                  : map_method(name, *self.map(), arguments, work);
}

}  // namespace llmc
