// Fields of a tokenizer's JSON, with errors that say which file and what is wrong with it.
#pragma once

#include "llmc/base/error.h"

#include <nlohmann/json.hpp>

#include <string>

namespace llmc {

/// The file's content; an Error if it is not JSON.
nlohmann::json parse_tokenizer_json(const std::string& path);

/// Runs `read`; what the JSON library dislikes about missing or mistyped fields becomes an Error that begins with
/// `source`.
template <typename Read>
auto reading(const std::string& source, Read read) {
    try {
        return read();
    } catch (const nlohmann::json::exception& error) {
        const std::string what = error.what();
        fail("{} does not have the fields of its kind: {}", source, what.substr(what.find("] ") + 2));
    }
}

/// The "type" of a stage; "" if it has none.
std::string type_of(const nlohmann::json& stage);
/// A field that may be absent or null.
bool flag_of(const nlohmann::json& stage, const char* name, bool otherwise);
std::string text_of(const nlohmann::json& stage, const char* name);
/// An id; an Error if it is no whole number.
int64_t id_of(const nlohmann::json& id, const std::string& token, const std::string& source);

}  // namespace llmc
