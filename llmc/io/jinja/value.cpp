#include "llmc/io/jinja/value.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cmath>

namespace llmc {

void JinjaText::append(const JinjaText& other) {
    for (const TextOrigin& origin : other.origins) {
        origins.push_back({bytes.size() + origin.begin, bytes.size() + origin.end, origin.source});
    }
    bytes += other.bytes;
}

JinjaText JinjaText::part(size_t begin, size_t end) const {
    JinjaText cut = {bytes.substr(begin, end - begin), {}};
    for (const TextOrigin& origin : origins) {
        if (origin.end < begin || origin.begin > end) continue;
        const bool is_empty = origin.begin == origin.end;
        const size_t first = std::max(origin.begin, begin), last = std::min(origin.end, end);
        // A source whose bytes were all cut away, as of a blank answer that is trimmed, is still known to be there.
        if (first == last && !is_empty && !cut.bytes.empty()) continue;
        cut.origins.push_back({first - begin, last - begin, origin.source});
    }
    return cut;
}

JinjaText JinjaText::changed(std::string changed_bytes) const {
    JinjaText text = {std::move(changed_bytes), {}};
    const bool is_whole = origins.size() == 1 && origins[0].begin == 0 && origins[0].end == bytes.size();
    if (is_whole) text.origins.push_back({0, text.bytes.size(), origins[0].source});
    return text;
}

JinjaValue JinjaValue::of(std::string text) { return of(JinjaText{std::move(text), {}}); }

JinjaValue JinjaValue::of(JinjaText text) { return JinjaValue(Text(std::make_shared<JinjaText>(std::move(text)))); }

JinjaValue JinjaValue::of(std::vector<JinjaValue> items) {
    auto list = std::make_shared<JinjaList>();
    for (const JinjaValue& item : items) list->depth = std::max(list->depth, item.depth() + 1);
    list->items = std::move(items);
    return JinjaValue(List(std::move(list)));
}

JinjaValue JinjaValue::of(JinjaMap map) {
    map.depth = 1;
    for (const auto& [key, value] : map.items) map.depth = std::max(map.depth, value.depth() + 1);
    return JinjaValue(Map(std::make_shared<JinjaMap>(std::move(map))));
}

JinjaMap* JinjaValue::name_space() const {
    const Map* held = std::get_if<Map>(&value_);
    return held != nullptr && (*held)->is_namespace ? held->get() : nullptr;
}

double JinjaValue::number() const {
    if (const double* value = real()) return *value;
    if (const int64_t* value = integer()) return static_cast<double>(*value);
    return flag() != nullptr && *flag() ? 1 : 0;
}

bool JinjaValue::whole(int64_t* number) const {
    if (const int64_t* value = integer()) *number = *value;
    if (const bool* value = flag()) *number = *value ? 1 : 0;
    return integer() != nullptr || flag() != nullptr;
}

bool JinjaValue::truth() const {
    if (is_none() || is_undefined()) return false;
    if (is_number()) return number() != 0;
    if (const JinjaText* value = text()) return !value->bytes.empty();
    if (const JinjaList* value = list()) return !value->items.empty();
    if (const JinjaMap* value = map()) return value->is_namespace || !value->items.empty();
    return true;
}

int JinjaValue::depth() const {
    if (const JinjaList* value = list()) return value->depth;
    if (const JinjaMap* value = map()) return value->depth;
    return 0;
}

std::string JinjaValue::kind() const {
    if (const JinjaUndefined* value = missing()) return fmt::format("undefined '{}'", value->name);
    if (is_none()) return "none";
    if (flag() != nullptr) return *flag() ? "true" : "false";
    if (is_number()) return "a number";
    if (text() != nullptr) return "a text";
    if (list() != nullptr) return "a list";
    if (map() != nullptr) return map()->is_namespace ? "a namespace" : "a dict";
    return fmt::format("the function '{}'", function()->name);
}

const JinjaValue* JinjaMap::find(std::string_view key) const {
    const auto found = std::find_if(items.begin(), items.end(), [&](const auto& item) { return item.first == key; });
    return found == items.end() ? nullptr : &found->second;
}

void JinjaMap::set(const std::string& key, JinjaValue value) {
    const auto found = std::find_if(items.begin(), items.end(), [&](const auto& item) { return item.first == key; });
    if (found == items.end()) {
        items.emplace_back(key, std::move(value));
    } else {
        found->second = std::move(value);
    }
}

bool equal(const JinjaValue& a, const JinjaValue& b, JinjaWork& work) {
    work.spend(1);
    if (a.integer() != nullptr && b.integer() != nullptr) return *a.integer() == *b.integer();
    if (a.is_number() && b.is_number()) return a.number() == b.number();
    if (a.text() != nullptr && b.text() != nullptr) return a.text()->bytes == b.text()->bytes;
    if (a.is_none() || b.is_none()) return a.is_none() && b.is_none();
    if (a.is_undefined() || b.is_undefined()) return a.is_undefined() && b.is_undefined();
    if (a.list() != nullptr && b.list() != nullptr) {
        const auto& left = a.list()->items;
        const auto& right = b.list()->items;
        return std::equal(left.begin(), left.end(), right.begin(), right.end(),
                          [&](const JinjaValue& x, const JinjaValue& y) { return equal(x, y, work); });
    }
    if (a.map() == nullptr || b.map() == nullptr) return false;
    if (a.map()->is_namespace || b.map()->is_namespace) return a.map() == b.map();
    const auto& items = a.map()->items;
    return items.size() == b.map()->items.size() && std::all_of(items.begin(), items.end(), [&](const auto& item) {
               work.spend(b.map()->items.size());
               const JinjaValue* other = b.map()->find(item.first);
               return other != nullptr && equal(item.second, *other, work);
           });
}

namespace {

/// Python's repr() of a float.
std::string spelled(double number) {
    if (std::isnan(number)) return "nan";
    if (std::isinf(number)) return number < 0 ? "-inf" : "inf";
    std::string text = fmt::format("{}", number);
    return text.find_first_of(".e") == std::string::npos ? text + ".0" : text;
}

/// Python's repr() of a text.
std::string quoted(const std::string& text) {
    const bool has_single = text.find('\'') != std::string::npos;
    const char quote = has_single && text.find('"') == std::string::npos ? '"' : '\'';
    std::string out(1, quote);
    for (const char c : text) {
        const auto byte = static_cast<unsigned char>(c);
        if (c == quote || c == '\\')
            out += '\\', out += c;
        else if (c == '\n')
            out += "\\n";
        else if (c == '\r')
            out += "\\r";
        else if (c == '\t')
            out += "\\t";
        else if (byte < 0x20 || byte == 0x7f)
            out += fmt::format("\\x{:02x}", byte);
        else
            out += c;
    }
    return out + quote;
}

void append_repr(const JinjaValue& value, JinjaWork& work, std::string* out) {
    work.spend(1);
    if (const JinjaText* text = value.text()) {
        work.spend(text->bytes.size());
        *out += quoted(text->bytes);
    } else if (const JinjaList* list = value.list()) {
        *out += '[';
        for (size_t i = 0; i < list->items.size(); ++i) {
            if (i > 0) *out += ", ";
            append_repr(list->items[i], work, out);
        }
        *out += ']';
    } else if (const JinjaMap* map = value.map()) {
        *out += '{';
        for (size_t i = 0; i < map->items.size(); ++i) {
            *out += (i > 0 ? ", " : "") + quoted(map->items[i].first) + ": ";
            append_repr(map->items[i].second, work, out);
        }
        *out += '}';
    } else if (value.is_undefined()) {
        *out += "Undefined";
    } else {
        *out += written(value, work).bytes;
    }
}

std::string json_string(const std::string& text) {
    std::string out = "\"";
    for (const char c : text) {
        const auto byte = static_cast<unsigned char>(c);
        if (c == '"' || c == '\\')
            out += '\\', out += c;
        else if (c == '\n')
            out += "\\n";
        else if (c == '\r')
            out += "\\r";
        else if (c == '\t')
            out += "\\t";
        else if (c == '\b')
            out += "\\b";
        else if (c == '\f')
            out += "\\f";
        else if (byte < 0x20)
            out += fmt::format("\\u{:04x}", byte);
        else
            out += c;
    }
    return out + '"';
}

class JsonWriter {
  public:
    JsonWriter(int indent, JinjaWork& work) : indent_(indent), work_(work) {}

    void write(const JinjaValue& value, int level) {
        work_.spend(1);
        if (const JinjaText* text = value.text()) {
            work_.spend(text->bytes.size());
            out += json_string(text->bytes);
        } else if (const JinjaList* list = value.list()) {
            group('[', ']', list->items.size(), level, [&](size_t i) { write(list->items[i], level + 1); });
        } else if (const JinjaMap* map = value.map(); map != nullptr && !map->is_namespace) {
            group('{', '}', map->items.size(), level, [&](size_t i) {
                out += json_string(map->items[i].first) + ": ";
                write(map->items[i].second, level + 1);
            });
        } else if (value.is_none()) {
            out += "null";
        } else if (value.flag() != nullptr) {
            out += *value.flag() ? "true" : "false";
        } else if (value.real() != nullptr && !std::isfinite(*value.real())) {
            out += std::isnan(*value.real()) ? "NaN" : *value.real() < 0 ? "-Infinity" : "Infinity";
        } else if (value.is_number()) {
            out += written(value, work_).bytes;
        } else {
            throw value.kind() + " cannot be written as JSON";
        }
    }

    std::string out;

  private:
    template <typename Item>
    void group(char open, char close, size_t count, int level, Item item) {
        out += open;
        for (size_t i = 0; i < count; ++i) {
            if (i > 0) out += indent_ < 0 ? ", " : ",";
            new_line(level + 1);
            item(i);
        }
        if (count > 0) new_line(level);
        out += close;
    }
    void new_line(int level) {
        if (indent_ < 0) return;
        const auto blanks = static_cast<size_t>(indent_) * static_cast<size_t>(level);
        work_.spend(blanks);
        out += '\n' + std::string(blanks, ' ');
    }

    int indent_;
    JinjaWork& work_;
};

}  // namespace

JinjaText written(const JinjaValue& value, JinjaWork& work) {
    if (const JinjaText* text = value.text()) {
        work.spend(text->bytes.size());
        return *text;
    }
    if (value.is_undefined()) return {};
    if (value.is_none()) return {"None", {}};
    if (value.flag() != nullptr) return {*value.flag() ? "True" : "False", {}};
    if (value.integer() != nullptr) return {fmt::format("{}", *value.integer()), {}};
    if (value.real() != nullptr) return {spelled(*value.real()), {}};
    if (value.function() != nullptr) return {fmt::format("<function {}>", value.function()->name), {}};
    std::string out;
    append_repr(value, work, &out);
    return {std::move(out), {}};
}

std::string json_of(const JinjaValue& value, int indent, JinjaWork& work) {
    JsonWriter writer(indent, work);
    writer.write(value, 0);
    return std::move(writer.out);
}

}  // namespace llmc
