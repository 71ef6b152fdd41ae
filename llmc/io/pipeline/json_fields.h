// Fields of a tokenizer's JSON files. Each getter takes a value within a file's content and throws a JsonFault where
// that is of another type; reading() makes an Error of it that names the file, the path of the field
// ("model.merges[3]"), what was found and what is wanted.
#pragma once

#include "llmc/base/error.h"

#include <nlohmann/json_fwd.hpp>

#include <cstdint>
#include <string>
#include <string_view>

namespace llmc {

/// What is wrong with a value: "is 1, not a text". It must be part of the content that reading() is told of.
struct JsonFault {
    const nlohmann::json* where;
    std::string what;
};

/// The content of the file `path`, which `text` is; an Error that says where if it is not JSON.
nlohmann::json parse_json(std::string_view text, const std::string& path);

/// The file's content, an object; an Error if it is not JSON, or JSON of another kind.
nlohmann::json parse_tokenizer_json(const std::string& path);

/// The path of `value`, a part of `content`, such as model.merges[3]; "" for all of it. A long one is abridged.
std::string path_within(const nlohmann::json& content, const nlohmann::json& value);

[[noreturn]] void refuse_field(const std::string& source, const nlohmann::json& content, const JsonFault& fault);

/// Runs `read`, which looks at `content`, of the file `source`: "'x/tokenizer.json'".
template <typename Read>
auto reading(const std::string& source, const nlohmann::json& content, Read read) {
    try {
        return read();
    } catch (const JsonFault& fault) {
        refuse_field(source, content, fault);
    }
}

/// "is 1, not `wanted`".
JsonFault is_not(const nlohmann::json& value, const std::string& wanted);

const nlohmann::json& as_object(const nlohmann::json& value);
const nlohmann::json& as_list(const nlohmann::json& value);
std::string as_text(const nlohmann::json& value);
bool as_flag(const nlohmann::json& value);
double as_number(const nlohmann::json& value);
int64_t as_whole_number(const nlohmann::json& value, const char* wanted = "a whole number");

/// A field of an object, which must be there.
const nlohmann::json& member(const nlohmann::json& object, const char* name);
/// One that may be absent or null, which gives nullptr.
const nlohmann::json* member_or_null(const nlohmann::json& object, const char* name);

/// The "type" of a stage; "" if it has none.
std::string type_of(const nlohmann::json& stage);
/// A field that may be absent or null.
bool flag_of(const nlohmann::json& stage, const char* name, bool otherwise);
std::string text_of(const nlohmann::json& stage, const char* name);

}  // namespace llmc
