#include "llmc/io/chat/row.h"
#include "llmc/base/shallow_json.h"

#include <nlohmann/json.hpp>
#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <array>
#include <utility>

namespace llmc {
namespace {

using Json = nlohmann::json;

struct RowFault {
    std::string what;
};

template <typename... Args>
[[noreturn]] void fault(fmt::format_string<Args...> format, Args&&... args) {
    throw RowFault{fmt::format(format, std::forward<Args>(args)...)};
}

bool is_there(const Json& object, const char* key) {
    const auto found = object.find(key);
    return found != object.end() && !found->is_null();
}

/// "is a list": nlohmann's words for what JSON has, in ours.
std::string kind_of(const Json& value) {
    if (value.is_array()) return "a list";
    if (value.is_object()) return "an object";
    if (value.is_null()) return "null";
    if (value.is_boolean()) return "true or false";
    return value.is_number() ? "a number" : "a text";
}

std::string text_at(const Json& object, const char* key, const std::string& path) {
    const auto found = object.find(key);
    if (found == object.end()) fault("has no '{}'", path);
    if (found->is_array()) {
        fault("has '{}', which is a list; only texts are read, so join its parts and leave pictures out", path);
    }
    if (!found->is_string()) fault("has '{}', which is {}, not a text", path, kind_of(*found));
    return found->get<std::string>();
}

const std::array<std::pair<const char*, const char*>, 7> kRoles = {{{"system", "system"},
                                                                    {"user", "user"},
                                                                    {"human", "user"},
                                                                    {"assistant", "assistant"},
                                                                    {"gpt", "assistant"},
                                                                    {"chatgpt", "assistant"},
                                                                    {"model", "assistant"}}};

bool is_filled(const Json& object, const char* key) {
    const auto found = object.find(key);
    if (found == object.end() || found->is_null()) return false;
    return !(found->is_array() || found->is_object() || found->is_string()) || !found->empty();
}

void refuse_tools(const Json& object, const std::string& path) {
    for (const char* key : {"tool_calls", "function_call", "tool_call_id"}) {
        if (is_filled(object, key))
            fault("has '{}{}': calls of tools are not supported; leave such rows out", path, key);
    }
}

/// One of a list of messages, by the keys it has itself.
ChatMessage read_message(const Json& json, const std::string& path) {
    if (!json.is_object()) fault("has '{}', which is {}, not an object", path, kind_of(json));
    refuse_tools(json, path + ".");
    const bool is_sharegpt = !json.contains("role") && json.contains("from");
    const char* role_key = is_sharegpt ? "from" : "role";
    const char* content_key = is_sharegpt ? "value" : "content";
    const std::string role = text_at(json, role_key, path + "." + role_key);
    const auto known = std::find_if(kRoles.begin(), kRoles.end(), [&](const auto& one) { return role == one.first; });
    if (known == kRoles.end()) {
        fault("has '{}.{}' '{}', which is none of system, user and assistant", path, role_key, role);
    }
    return {known->second, text_at(json, content_key, path + "." + content_key)};
}

std::vector<ChatMessage> read_messages(const Json& list, const std::string& path) {
    if (!list.is_array()) fault("has '{}', which is {}, not a list of messages", path, kind_of(list));
    if (list.empty()) fault("has '{}', which is empty", path);
    std::vector<ChatMessage> messages;
    for (size_t i = 0; i < list.size(); ++i) messages.push_back(read_message(list[i], fmt::format("{}[{}]", path, i)));
    return messages;
}

void require_answer(const std::vector<ChatMessage>& messages, size_t from, const char* key) {
    const bool any = std::any_of(messages.begin() + static_cast<std::ptrdiff_t>(from), messages.end(),
                                 [](const ChatMessage& message) { return message.role == "assistant"; });
    if (!any) fault("has '{}' without a turn of the assistant, so nothing to learn", key);
}

ChatRow conversation(const Json& json, const char* key) {
    ChatRow row;
    row.kind = ChatRow::Kind::Messages;
    row.messages = read_messages(json[key], key);
    if (is_filled(json, "system") && row.messages.front().role != "system") {  // As ShareGPT's relatives have it.
        row.messages.insert(row.messages.begin(), ChatMessage{"system", text_at(json, "system", "system")});
    }
    require_answer(row.messages, 0, key);
    return row;
}

ChatRow alpaca(const Json& json) {
    if (is_filled(json, "history")) fault("has 'history', which is not supported; write the row as 'messages'");
    ChatRow row;
    row.kind = ChatRow::Kind::Messages;
    std::string user = text_at(json, "instruction", "instruction");
    const std::string input = is_there(json, "input") ? text_at(json, "input", "input") : "";
    if (!input.empty()) user += "\n" + input;
    if (is_filled(json, "system")) row.messages.push_back({"system", text_at(json, "system", "system")});
    row.messages.push_back({"user", std::move(user)});
    row.messages.push_back({"assistant", text_at(json, "output", "output")});
    return row;
}

ChatRow prompt_and_completion(const Json& json) {
    ChatRow row;
    if (json["prompt"].is_array() != json["completion"].is_array()) {
        fault("has a 'prompt' that is {} and a 'completion' that is {}; both must be texts, or both lists of messages",
              kind_of(json["prompt"]), kind_of(json["completion"]));
    }
    if (!json["prompt"].is_array()) {
        row.kind = ChatRow::Kind::Completion;
        row.first = text_at(json, "prompt", "prompt");
        row.second = text_at(json, "completion", "completion");
        return row;
    }
    row.kind = ChatRow::Kind::Messages;
    row.messages = read_messages(json["prompt"], "prompt");
    row.first_completion = row.messages.size();
    std::vector<ChatMessage> completion = read_messages(json["completion"], "completion");
    row.messages.insert(row.messages.end(), completion.begin(), completion.end());
    require_answer(row.messages, row.first_completion, "completion");
    return row;
}

ChatRow row_of(const Json& json) {
    if (!json.is_object()) fault("is {}, not an object", kind_of(json));
    refuse_tools(json, "");
    if (is_filled(json, "tools")) fault("has 'tools': calls of tools are not supported; leave such rows out");
    for (const char* key : {"messages", "conversations"}) {
        if (is_there(json, key)) return conversation(json, key);
    }
    if (is_there(json, "instruction")) return alpaca(json);
    if (is_there(json, "prompt") && json.contains("completion")) return prompt_and_completion(json);
    if (is_there(json, "text")) {
        ChatRow row;
        row.first = text_at(json, "text", "text");
        return row;
    }
    std::string keys;
    for (const auto& [key, value] : json.items()) keys += (keys.empty() ? "'" : ", '") + key + "'";
    fault(
        "has none of 'messages', 'conversations', 'instruction' and 'output', 'prompt' and 'completion', 'text', "
        "but {}",
        keys.empty() ? "nothing" : keys);
}

bool has_word(const std::string& text) { return text.find_first_not_of(" \t\r\n") != std::string::npos; }

}  // namespace

bool ChatRow::has_answer() const {
    if (kind == Kind::Plain) return has_word(first);
    if (kind == Kind::Completion) return has_word(second);
    return std::any_of(
        messages.begin() + static_cast<std::ptrdiff_t>(first_completion), messages.end(),
        [](const ChatMessage& message) { return message.role == "assistant" && has_word(message.content); });
}

bool looks_like_row(const Json& object, bool plain_too) {
    if (!object.is_object()) return false;
    for (const char* key : {"messages", "conversations"}) {
        if (object.contains(key) && (object[key].is_array() || plain_too)) return true;
    }
    if (object.contains("instruction") && object.contains("output")) return true;
    if (object.contains("prompt") && object.contains("completion")) return true;
    return plain_too && object.contains("text");
}

ChatRow read_row(std::string_view text, std::string* what) {
    const Json json = Json::parse(shallow_json(text), nullptr, /*allow_exceptions=*/false);
    if (json.is_discarded()) {
        *what = "is not valid JSON";
        return {};
    }
    try {
        return row_of(json);
    } catch (const RowFault& wrong) {
        *what = wrong.what;
        return {};
    }
}

}  // namespace llmc
