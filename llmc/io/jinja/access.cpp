#include "llmc/io/jinja/builtin_tools.h"

#include "llmc/io/jinja/text_methods.h"

namespace llmc {
using Arguments = JinjaArguments;
using Value = JinjaValue;

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
