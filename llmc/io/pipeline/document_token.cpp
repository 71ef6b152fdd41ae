#include "llmc/io/pipeline/document_token.h"

#include "llmc/base/error.h"
#include "llmc/base/file.h"

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

Json read_json_if_there(const std::string& folder, const char* name) {
    const std::string path = folder + "/" + name;
    if (folder.empty() || !path_exists(path) || is_directory(path)) return nullptr;
    Json json = Json::parse(read_text(path), nullptr, /*allow_exceptions=*/false);
    if (json.is_discarded()) fail("'{}' is not valid JSON; copy or download it again", path);
    return json;
}

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
        for (const char* key :
             {"bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"}) {
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

CompanionFiles read_companion_files(const std::string& folder) {
    return {read_json_if_there(folder, "tokenizer_config.json"), read_json_if_there(folder, "special_tokens_map.json"),
            read_json_if_there(folder, "added_tokens.json"), read_json_if_there(folder, "config.json"),
            read_json_if_there(folder, "generation_config.json")};
}

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
    const std::string type = token_name(field(processor, "type"));
    if (type == "Sequence") {
        const Json* parts = field(processor, "processors");
        for (const Json& part : parts != nullptr && parts->is_array() ? *parts : Json::array()) {
            DocumentToken found = token_of_template(part, tokens);
            if (found.id >= 0) return found;
        }
    } else if (type == "TemplateProcessing") {
        const Json* single = field(processor, "single");
        if (single == nullptr || !single->is_array() || single->empty()) return {};
        const Json* token = field((*single)[0], "SpecialToken");
        const std::string name = token == nullptr ? "" : token_name(field(*token, "id"));
        if (name.empty()) return {};
        const Json* specials = field(processor, "special_tokens");
        const Json* special = specials == nullptr ? nullptr : field(*specials, name.c_str());
        const Json* ids = special == nullptr ? nullptr : field(*special, "ids");
        const bool has_id = ids != nullptr && ids->is_array() && !ids->empty() && (*ids)[0].is_number_integer();
        const auto id = has_id ? (*ids)[0].get<int64_t>() : int64_t{-1};
        if (id >= 0 && id < TokenNames::kMostTokens) {
            return {static_cast<int32_t>(id), name, "the template of tokenizer.json"};
        }
        return known_by_name(tokens, name, "the template of tokenizer.json");
    } else if (type == "RobertaProcessing" || type == "BertProcessing") {
        const Json* cls = field(processor, "cls");
        if (cls == nullptr || !cls->is_array() || cls->empty() || !(*cls)[0].is_string()) return {};
        return known_by_name(tokens, (*cls)[0].get<std::string>(), type + " of tokenizer.json");
    }
    return {};
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
