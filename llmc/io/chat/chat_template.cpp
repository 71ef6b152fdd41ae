#include "llmc/io/chat/chat_template.h"

#include "llmc/base/error.h"
#include "llmc/base/file.h"
#include "llmc/base/utf8.h"
#include "llmc/io/chat/families.h"
#include "llmc/io/pipeline/companion_files.h"
#include "llmc/io/pipeline/document_token.h"
#include "llmc/io/pipeline/json_fields.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <filesystem>

namespace llmc {
namespace {

using Json = nlohmann::json;

/// One of the templates in a configuration, which may be a list of named ones; "" if there is none.
std::string template_in(const Json& config, const std::string& path) {
    const Json* value = member_or_null(config, "chat_template");
    if (value == nullptr) return "";
    if (value->is_string()) return value->get<std::string>();
    std::string names;
    for (const Json& one : as_list(*value)) {
        const std::string name = as_text(member(one, "name"));
        if (name == "default" || value->size() == 1) return as_text(member(one, "template"));
        names += (names.empty() ? "'" : ", '") + name + "'";
    }
    fail(
        "'{}' has chat templates named {}, but none named 'default'; write one of them to a file and name that with "
        "--chat-template",
        path, names);
}

struct Found {
    std::string source;
    std::string name;
};

std::optional<Found> in_configuration(const std::string& path) {
    const Json config = parse_tokenizer_json(path);
    std::string source = reading("'" + path + "'", config, [&] { return template_in(config, path); });
    if (source.empty()) return {};
    return Found{std::move(source), fmt::format("of '{}'", path)};
}

std::optional<Found> in_folder(const std::string& folder) {
    const std::string jinja = folder + "/chat_template.jinja", config = folder + "/tokenizer_config.json";
    if (path_exists(jinja)) return Found{read_text(jinja), fmt::format("'{}'", jinja)};
    return path_exists(config) ? in_configuration(config) : std::nullopt;
}

Found in_file(const std::string& path) {
    if (!path_exists(path)) {
        fail_usage("--chat-template={}: there is no such file, and the families that are known are {}", path,
                   chat_template_names());
    }
    if (is_directory(path)) {
        std::optional<Found> found = in_folder(path);
        if (!found) fail_usage("--chat-template={}: the folder has no chat template; name another, or a family", path);
        return *std::move(found);
    }
    if (!path.ends_with(".json")) return {read_text(path), fmt::format("'{}'", path)};
    std::optional<Found> found = in_configuration(path);
    if (!found) fail_usage("--chat-template={}: the file has no field 'chat_template'; name another", path);
    return *std::move(found);
}

/// A message as a template sees it.
JinjaValue value_of(const ChatMessage& message, size_t index) {
    JinjaMap map;
    JinjaText content = {as_utf8(message.content), {}};
    content.origins.push_back({0, content.bytes.size(), static_cast<int32_t>(index)});
    map.items = {{"role", JinjaValue::of(message.role)}, {"content", JinjaValue::of(std::move(content))}};
    return JinjaValue::of(std::move(map));
}

/// Names of tokens that end a turn or a text, whatever a tokenizer makes of them.
constexpr std::array kTurnEnds = {"<|im_end|>",
                                  "<|eot_id|>",
                                  "<|eot|>",
                                  "<|eom_id|>",
                                  "<|end|>",
                                  "<|endoftext|>",
                                  "<|end_of_text|>",
                                  "<|end_of_turn|>",
                                  "<|END_OF_TURN_TOKEN|>",
                                  "<|return|>",
                                  "<end_of_turn>",
                                  "<end_of_utterance>",
                                  "<eos>",
                                  "</s>",
                                  "<\xEF\xBD\x9C"
                                  "end\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>"};

}  // namespace

ChatTemplate::ChatTemplate(const std::string& source, const std::string& name, TokenRoles roles)
    : source_(source), template_(source, name), roles_(std::move(roles)) {}

std::string ChatTemplate::token(const char* role) const {
    const auto found = roles_.find(role);
    return found == roles_.end() ? "" : found->second;
}

RenderedChat ChatTemplate::render(std::span<const ChatMessage> messages, bool add_generation_prompt) const {
    std::vector<JinjaValue> values;
    for (size_t i = 0; i < messages.size(); ++i) values.push_back(value_of(messages[i], i));
    JinjaMap context;
    context.items = {{"messages", JinjaValue::of(std::move(values))},
                     {"tools", JinjaValue()},
                     {"documents", JinjaValue()},
                     {"add_generation_prompt", JinjaValue::of(add_generation_prompt)}};
    for (const auto& [role, token] : roles_) context.set(role, JinjaValue::of(token));
    JinjaRendered rendered = template_.render(context);
    return {std::move(rendered.text.bytes), std::move(rendered.text.origins), std::move(rendered.generations)};
}

TokenRoles token_roles(const std::string& folder) {
    TokenRoles roles;
    const CompanionFiles files = read_companion_files(folder);
    for (const char* role : kTokenRoles) {
        const std::string name = token_of_role(files, role);
        if (!name.empty()) roles[role] = name;
    }
    return roles;
}

namespace {

ChatTemplate chosen_template(const std::string& choice, TokenRoles roles) {
    try {
        const Found found = in_file(choice);
        return {found.source, found.name, std::move(roles)};
    } catch (const Error& error) {
        if (error.exit_code() == kExitBadUsage) throw;  // It names the option.
        fail("--chat-template: {}", error.what());
    }
}

}  // namespace

std::optional<ChatTemplate> find_chat_template(const std::string& choice, const std::string& folder) {
    TokenRoles roles = token_roles(folder);
    if (const ChatFamily* family = find_chat_family(choice)) {
        const bool has_configuration = !roles.empty();
        if (!has_configuration) roles = {{"bos_token", family->bos}, {"eos_token", family->eos}};
        if (!has_configuration && *family->bos == '\0') roles.erase("bos_token");
        for (const auto& [role, token] : {std::pair("bos_token", family->template_bos), {"eos_token", family->eos}}) {
            if (*token != '\0') roles.try_emplace(role, token);
        }
        return ChatTemplate(family->source, fmt::format("'{}'", family->name), std::move(roles));
    }
    if (!choice.empty()) return chosen_template(choice, std::move(roles));
    const std::optional<Found> found = folder.empty() ? std::nullopt : in_folder(folder);
    if (!found) return {};
    return ChatTemplate(found->source, found->name, std::move(roles));
}

void keep_chat_template(const std::string& choice, const std::string& folder) {
    if (choice.empty() || !is_directory(folder)) return;
    const std::optional<ChatTemplate> chosen = find_chat_template(choice, folder);
    const TokenRoles known = token_roles(folder);
    std::string source;
    for (const auto& [role, token] : chosen->roles()) {  // What the family says, and the folder does not.
        if (known.find(role) != known.end()) continue;
        source += fmt::format("{{%- if {} is not defined %}}{{%- set {} = '{}' %}}{{%- endif %}}\n", role, role, token);
    }
    const std::string begin =
        chosen->source().starts_with("{%-") || chosen->source().starts_with("{{-") ? "" : "{#- -#}";
    write_text_atomically(folder + "/chat_template.jinja",
                          source.empty() ? chosen->source() : source + begin + chosen->source());
}

std::string chat_template_names() {
    std::vector<std::string> names;
    for (const ChatFamily& family : kChatFamilies) names.emplace_back(family.name);
    return fmt::format("{}", fmt::join(names, ", "));
}

bool is_chat_template_name(const std::string& name) { return find_chat_family(name) != nullptr; }

size_t end_of_turn(std::string_view text, size_t from, const std::string& eos) {
    const size_t begin = std::min(text.find_first_not_of(" \t\r\n", from), text.size());
    const std::string_view rest = text.substr(begin);
    size_t longest = !eos.empty() && rest.starts_with(eos) ? eos.size() : 0;
    for (const std::string_view name : kTurnEnds) {
        if (rest.starts_with(name)) longest = std::max(longest, name.size());
    }
    return longest == 0 ? from : begin + longest;
}

}  // namespace llmc
