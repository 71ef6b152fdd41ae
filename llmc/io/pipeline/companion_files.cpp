#include "llmc/io/pipeline/companion_files.h"

#include "llmc/base/file.h"
#include "llmc/io/pipeline/json_fields.h"

#include <nlohmann/json.hpp>

#include <algorithm>

namespace llmc {
namespace {

using Json = nlohmann::json;

/// The file's content, after `check`; null if it is not there.
template <typename Check>
Json read_if_there(const std::string& folder, const char* name, Check check) {
    const std::string path = folder + "/" + name;
    if (folder.empty() || !path_exists(path) || is_directory(path)) return nullptr;
    Json json = parse_tokenizer_json(path);
    reading("'" + path + "'", json, [&] { check(json); });
    return json;
}

void check_token(const Json& token) {
    if (token.is_string()) return;
    if (!token.is_object()) throw is_not(token, "a token, which is a text, or an object with a field 'content'");
    text_of(token, "content");
}

void check_roles(const Json& json) {
    for (const char* role : kTokenRoles) {
        if (const Json* token = member_or_null(json, role)) check_token(*token);
    }
}

void check_tokenizer_config(const Json& json) {
    check_roles(json);
    flag_of(json, "add_bos_token", false);
    const Json* added = member_or_null(json, "added_tokens_decoder");
    if (added == nullptr) return;
    for (const auto& [id, token] : as_object(*added).items()) {
        if (id.empty() || !std::all_of(id.begin(), id.end(), [](char c) { return c >= '0' && c <= '9'; })) {
            throw JsonFault{&token, "has a name that is no id, a whole number"};
        }
        text_of(token, "content");
        for (const char* flag : {"special", "single_word", "lstrip", "rstrip", "normalized"}) {
            flag_of(token, flag, false);
        }
    }
}

void check_added_tokens(const Json& json) {
    for (const auto& [name, id] : json.items()) as_whole_number(id, "a whole number, the id of a token");
}

void check_token_ids(const Json& json) {
    constexpr const char* kWanted = "a whole number, the id of a token, or a list of them";
    const Json* ids = member_or_null(json, "eos_token_id");
    if (ids == nullptr) return;
    if (!ids->is_array()) {
        as_whole_number(*ids, kWanted);
        return;
    }
    for (const Json& id : *ids) as_whole_number(id, "a whole number, the id of a token");
}

}  // namespace

CompanionFiles read_companion_files(const std::string& folder) {
    return {read_if_there(folder, "tokenizer_config.json", check_tokenizer_config),
            read_if_there(folder, "special_tokens_map.json", check_roles),
            read_if_there(folder, "added_tokens.json", check_added_tokens),
            read_if_there(folder, "config.json", check_token_ids),
            read_if_there(folder, "generation_config.json", check_token_ids)};
}

}  // namespace llmc
