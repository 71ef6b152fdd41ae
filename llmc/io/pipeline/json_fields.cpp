#include "llmc/io/pipeline/json_fields.h"

#include "llmc/base/file.h"
#include "llmc/base/shallow_json.h"
#include "llmc/io/json_text.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cctype>
#include <optional>
#include <string_view>

namespace llmc {

using Json = nlohmann::json;

namespace {

constexpr size_t kLongestShown = 60;  ///< Bytes of a value in a message.
constexpr size_t kLongestPath = 120;
constexpr int kDeepest = 500;  ///< Levels that are searched; no tokenizer has ten.

bool is_identifier(const std::string& name) {
    const auto fits = [](unsigned char c) { return std::isalnum(c) != 0 || c == '_'; };
    return !name.empty() && std::all_of(name.begin(), name.end(), fits);
}

std::string abridged(std::string text, size_t most) {
    if (text.size() <= most) return text;
    const auto whole_character = [&](size_t at) {
        while (at > 0 && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80) --at;
        return at;
    };
    const size_t head = whole_character(most * 2 / 3), tail = whole_character(text.size() - most / 4);
    return text.substr(0, head) + "..." + text.substr(tail);
}

std::string shown(const Json& value) {
    if (value.is_object()) return value.empty() ? "an empty object" : "an object";
    if (value.is_array()) return value.empty() ? "an empty list" : "a list";
    return abridged(json_text(value), kLongestShown);
}

/// Depth first; what a fault is about has an address of its own.
std::optional<std::string> find_path(const Json& content, const Json& value, int depth) {
    if (&content == &value) return "";
    if (depth == kDeepest || !content.is_structured()) return std::nullopt;
    size_t index = 0;
    for (auto part = content.begin(); part != content.end(); ++part, ++index) {
        const std::optional<std::string> rest = find_path(*part, value, depth + 1);
        if (!rest) continue;
        const std::string separated = (rest->empty() || rest->starts_with('[') ? "" : ".") + *rest;
        if (content.is_array()) return fmt::format("[{}]{}", index, separated);
        if (is_identifier(part.key())) return part.key() + separated;
        return fmt::format("[{}]{}", abridged(json_text(part.key()), kLongestShown), separated);
    }
    return std::nullopt;
}

/// "line 3, column 7".
std::string place_in(std::string_view text, size_t byte) {
    const std::string_view before = text.substr(0, std::min(byte, text.size()));
    const auto line = 1 + std::count(before.begin(), before.end(), '\n');
    return fmt::format("line {}, column {}", line, before.size() - (before.rfind('\n') + 1) + 1);
}

}  // namespace

Json parse_json(std::string_view text, const std::string& path) {
    const std::string_view shallow = shallow_json(text);
    if (shallow.size() < text.size()) {
        fail("'{}' has arrays or objects within more than {} others; it is damaged, copy or download it again", path,
             kMostJsonLevels);
    }
    try {
        return Json::parse(text);
    } catch (const Json::parse_error& error) {
        const bool is_empty = text.find_first_not_of(" \t\r\n") == std::string_view::npos;
        if (is_empty) fail("'{}' is empty; copy or download it again", path);
        fail("'{}' is not valid JSON ({}); copy or download it again", path,
             place_in(text, error.byte == 0 ? 0 : error.byte - 1));
    } catch (const Json::out_of_range&) {
        fail("'{}' is not valid JSON: it has a number that is too large for one; copy or download it again", path);
    }
}

Json parse_tokenizer_json(const std::string& path) {
    const MappedFile file(path);
    Json json = parse_json(file.text(), path);
    reading("'" + path + "'", json, [&] { as_object(json); });
    return json;
}

std::string path_within(const Json& content, const Json& value) {
    return abridged(find_path(content, value, 0).value_or("a field"), kLongestPath);
}

void refuse_field(const std::string& source, const Json& content, const JsonFault& fault) {
    const std::string path = path_within(content, *fault.where);
    fail("{}{} {}; mend it, or copy or download the file again", source, path.empty() ? "" : ": " + path, fault.what);
}

JsonFault is_not(const Json& value, const std::string& wanted) {
    return {&value, fmt::format("is {}, not {}", shown(value), wanted)};
}

const Json& as_object(const Json& value) {
    if (!value.is_object()) throw is_not(value, "an object");
    return value;
}

const Json& as_list(const Json& value) {
    if (!value.is_array()) throw is_not(value, "a list");
    return value;
}

std::string as_text(const Json& value) {
    if (!value.is_string()) throw is_not(value, "a text");
    return value.get<std::string>();
}

bool as_flag(const Json& value) {
    if (!value.is_boolean()) throw is_not(value, "true or false");
    return value.get<bool>();
}

double as_number(const Json& value) {
    if (!value.is_number()) throw is_not(value, "a number");
    return value.get<double>();
}

int64_t as_whole_number(const Json& value, const char* wanted) {
    const bool is_far = value.is_number_unsigned() && value.get<uint64_t>() > (uint64_t{1} << 62);
    if (!value.is_number_integer() || is_far) throw is_not(value, wanted);
    return value.get<int64_t>();
}

const Json& member(const Json& object, const char* name) {
    const auto found = as_object(object).find(name);
    if (found == object.end()) throw JsonFault{&object, fmt::format("has no field '{}'", name)};
    return *found;
}

const Json* member_or_null(const Json& object, const char* name) {
    const auto found = as_object(object).find(name);
    return found == object.end() || found->is_null() ? nullptr : &*found;
}

std::string type_of(const Json& stage) { return text_of(stage, "type"); }

bool flag_of(const Json& stage, const char* name, bool otherwise) {
    const Json* flag = member_or_null(stage, name);
    return flag == nullptr ? otherwise : as_flag(*flag);
}

std::string text_of(const Json& stage, const char* name) {
    const Json* text = member_or_null(stage, name);
    return text == nullptr ? "" : as_text(*text);
}

}  // namespace llmc
