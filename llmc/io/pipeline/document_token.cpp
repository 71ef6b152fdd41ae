#include "llmc/io/pipeline/document_token.h"
#include "llmc/io/pipeline/companion_files.h"

#include "llmc/base/error.h"
#include "llmc/io/pipeline/json_fields.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <charconv>
#include <initializer_list>
#include <unordered_set>
#include <utility>

namespace llmc {
namespace {

using Json = nlohmann::json;

constexpr const char* kEndOfText = "<|endoftext|>";

/// A field that may be absent or null.
const Json* field(const Json& json, const char* name) {
    if (!json.is_object()) return nullptr;
    const auto found = json.find(name);
    return found == json.end() || found->is_null() ? nullptr : &*found;
}

/// A token as configurations write it: a name, or an object with its content. "" if neither.
std::string token_name(const Json* token) {
    if (token == nullptr) return "";
    if (token->is_object()) token = field(*token, "content");
    return token != nullptr && token->is_string() ? token->get<std::string>() : "";
}

bool flag(const Json& json, const char* name) {
    const Json* value = field(json, name);
    return value != nullptr && value->is_boolean() && value->get<bool>();
}

DocumentToken known_by_name(const KnownTokens& tokens, const std::string& name, const std::string& named_by) {
    const int32_t id = name.empty() ? -1 : tokens.id(name);
    return id < 0 ? DocumentToken() : DocumentToken{id, name, named_by};
}

/// The token that a template begins with: its id there, else that of its name.
DocumentToken of_template_processing(const Json& processor, const KnownTokens& tokens) {
    const Json* single = member_or_null(processor, "single");
    if (single == nullptr || as_list(*single).empty()) return {};
    const Json* token = member_or_null((*single)[0], "SpecialToken");
    const std::string name = token == nullptr ? "" : text_of(*token, "id");
    if (name.empty()) return {};
    const Json* specials = member_or_null(processor, "special_tokens");
    const Json* special = specials == nullptr ? nullptr : member_or_null(*specials, name.c_str());
    const Json* ids = special == nullptr ? nullptr : member_or_null(*special, "ids");
    const bool has_id = ids != nullptr && !as_list(*ids).empty();
    const int64_t id = has_id ? as_whole_number((*ids)[0], "a whole number, the id of a token") : -1;
    if (id >= 0 && id < TokenNames::kMostTokens) {
        return {static_cast<int32_t>(id), name, "the template of tokenizer.json"};
    }
    return known_by_name(tokens, name, "the template of tokenizer.json");
}

/// The token that a post-processor puts in front of a text.
DocumentToken of_post_processor(const Json& processor, const KnownTokens& tokens, int depth = 0) {
    constexpr int kDeepest = 50;
    if (depth > kDeepest) throw JsonFault{&processor, fmt::format("stands within more than {} sequences", kDeepest)};
    if (processor.is_null()) return {};
    const std::string type = type_of(processor);
    if (type == "TemplateProcessing") return of_template_processing(processor, tokens);
    if (type == "Sequence") {
        for (const Json& part : as_list(member(processor, "processors"))) {
            DocumentToken found = of_post_processor(part, tokens, depth + 1);
            if (found.id >= 0) return found;
        }
    } else if (type == "RobertaProcessing" || type == "BertProcessing") {
        const Json* cls = member_or_null(processor, "cls");
        if (cls == nullptr || as_list(*cls).empty()) return {};
        return known_by_name(tokens, as_text((*cls)[0]), type + " of tokenizer.json");
    }
    return {};
}

bool ends_a_turn(const std::string& name) {
    constexpr std::array kTurns = {"<|im_end|>", "<|eot_id|>", "<|eot|>", "<|eom_id|>", "<end_of_turn>", "<|end|>"};
    return std::any_of(kTurns.begin(), kTurns.end(), [&](const char* turn) { return name == turn; });
}

DocumentToken of_configuration(const CompanionFiles& files, const KnownTokens& tokens, const char* key) {
    for (const auto& [json, file] : {std::pair(&files.tokenizer_config, "tokenizer_config.json"),
                                     std::pair(&files.special_tokens_map, "special_tokens_map.json")}) {
        DocumentToken found = known_by_name(tokens, token_name(field(*json, key)), fmt::format("{} of {}", key, file));
        if (found.id >= 0) return found;
    }
    return {};
}

DocumentToken of_model_configuration(const CompanionFiles& files, const KnownTokens& tokens) {
    for (const auto& [json, file] :
         {std::pair(&files.config, "config.json"), std::pair(&files.generation_config, "generation_config.json")}) {
        const Json* ids = field(*json, "eos_token_id");
        if (ids != nullptr && ids->is_array() && !ids->empty()) ids = &(*ids)[0];
        if (ids == nullptr || !ids->is_number_integer()) continue;
        const auto id = ids->get<int64_t>();
        if (id < 0 || id >= TokenNames::kMostTokens) continue;
        const auto token = static_cast<int32_t>(id);
        return {token, tokens.name(token), fmt::format("eos_token_id of {}", file)};
    }
    return {};
}

/// Whether a configuration gives the token a role.
bool is_named_special(const CompanionFiles& files, const std::string& name) {
    for (const Json* json : {&files.tokenizer_config, &files.special_tokens_map}) {
        for (const char* key : kTokenRoles) {
            if (token_name(field(*json, key)) == name) return true;
        }
    }
    return false;
}

AddedToken read_added(const std::string& text, int64_t id, const Json& flags) {
    AddedToken token;
    token.id = static_cast<int32_t>(id);
    token.text = text;
    token.special = flag(flags, "special");
    token.single_word = flag(flags, "single_word");
    token.lstrip = flag(flags, "lstrip");
    token.rstrip = flag(flags, "rstrip");
    token.normalized = flag(flags, "normalized");
    return token;
}

}  // namespace

void add_companion_tokens(const CompanionFiles& files, const TokenNames& names, std::vector<AddedToken>* added,
                          const std::string& source) {
    std::unordered_set<std::string> known;
    for (const AddedToken& token : *added) known.insert(token.text);
    const auto add = [&](const std::string& name, int64_t id, const Json& flags) {
        if (name.empty() || !known.insert(name).second) return;
        if (id < 0 || id >= TokenNames::kMostTokens) {
            fail("{}: beside it, the added token '{}' has the impossible id {}", source, name, id);
        }
        AddedToken token = read_added(name, id, flags);
        if (names.id(name) >= 0) token.id = names.id(name);
        if (flags.is_null()) {
            token.special = is_named_special(files, name);
            token.normalized = !token.special;
        }
        added->push_back(std::move(token));
    };
    const Json none = Json::object();
    const Json* decoder = field(files.tokenizer_config, "added_tokens_decoder");
    for (const auto& [number, token] : (decoder != nullptr ? *decoder : none).items()) {
        int64_t id = -1;
        std::from_chars(number.data(), number.data() + number.size(), id);
        add(token_name(&token), id, token);
    }
    for (const auto& [name, id] : (files.added_tokens.is_object() ? files.added_tokens : none).items()) {
        if (id.is_number_integer()) add(name, id.get<int64_t>(), nullptr);
    }
}

int32_t KnownTokens::id(const std::string& name) const {
    for (const AddedToken& token : added) {
        if (token.text == name) return token.id;
    }
    return names.id(name);
}

std::string KnownTokens::name(int32_t id) const {
    for (const AddedToken& token : added) {
        if (token.id == id) return token.text;
    }
    return names.has(id) ? names.name(id) : fmt::format("<{}>", id);
}

DocumentToken token_of_template(const Json& processor, const KnownTokens& tokens) {
    return of_post_processor(processor, tokens);
}

std::string token_of_role(const CompanionFiles& files, const char* role) {
    for (const Json* json : {&files.tokenizer_config, &files.special_tokens_map}) {
        const std::string name = token_name(field(*json, role));
        if (!name.empty()) return name;
    }
    return "";
}

DocumentToken find_document_token(const Json& post_processor, const CompanionFiles& files, const KnownTokens& tokens) {
    DocumentToken found = token_of_template(post_processor, tokens);
    if (found.id >= 0) return found;
    const DocumentToken bos = of_configuration(files, tokens, "bos_token");
    if (flag(files.tokenizer_config, "add_bos_token") && bos.id >= 0) return bos;
    const DocumentToken eos = of_configuration(files, tokens, "eos_token");
    if (ends_a_turn(eos.name) && tokens.id(kEndOfText) >= 0) {
        return {tokens.id(kEndOfText), kEndOfText, fmt::format("its name, since {} ends a turn", eos.name)};
    }
    if (eos.id >= 0) return eos;
    if (bos.id >= 0) return bos;
    found = of_model_configuration(files, tokens);
    if (found.id >= 0) return found;
    for (const char* name : {kEndOfText, "</s>", "<|end_of_text|>", "<s>", "<|begin_of_text|>", "<eos>", "<bos>",
                             "[EOS]", "[BOS]", "<|startoftext|>",
                             "<\xEF\xBD\x9C"
                             "end\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>"}) {
        const auto is_it = [&](const AddedToken& token) { return token.text == name; };
        const auto token = std::find_if(tokens.added.begin(), tokens.added.end(), is_it);
        if (token != tokens.added.end()) return {token->id, name, "its name"};
    }
    return {};
}

DocumentToken chosen_document_token(const std::string& choice, const KnownTokens& tokens) {
    const std::string option = "--document-token";
    DocumentToken found = known_by_name(tokens, choice, option);
    if (found.id >= 0) return found;
    int32_t id = -1;
    const auto [rest, error] = std::from_chars(choice.data(), choice.data() + choice.size(), id);
    const bool is_number = error == std::errc() && rest == choice.data() + choice.size();
    if (is_number && id >= 0 && tokens.name(id) != fmt::format("<{}>", id)) return {id, tokens.name(id), option};
    fail_usage("{}={}: the tokenizer has no such token; give the name, or the id, of one that it has", option, choice);
}

}  // namespace llmc
