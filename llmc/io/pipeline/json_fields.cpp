#include "llmc/io/pipeline/json_fields.h"

#include "llmc/base/file.h"

namespace llmc {

using Json = nlohmann::json;

Json parse_tokenizer_json(const std::string& path) {
    const MappedFile file(path);
    Json json = Json::parse(file.text(), nullptr, /*allow_exceptions=*/false);
    if (json.is_discarded()) fail("'{}' is not valid JSON; copy or download it again", path);
    if (!json.is_object()) fail("'{}' is no JSON object; copy or download it again", path);
    return json;
}

std::string type_of(const Json& stage) { return text_of(stage, "type"); }

bool flag_of(const Json& stage, const char* name, bool otherwise) {
    const auto found = stage.find(name);
    return found == stage.end() || found->is_null() ? otherwise : found->get<bool>();
}

std::string text_of(const Json& stage, const char* name) {
    if (!stage.is_object()) return "";
    const auto found = stage.find(name);
    return found == stage.end() || found->is_null() ? "" : found->get<std::string>();
}

int64_t id_of(const Json& id, const std::string& token, const std::string& source) {
    const bool is_far = id.is_number_unsigned() && id.get<uint64_t>() > (uint64_t{1} << 62);
    if (id.is_number_integer() && !is_far) return id.get<int64_t>();
    fail("{}: token '{}' has the impossible id {}", source, token,
         id.is_structured() ? id.type_name() : id.dump(-1, ' ', false, Json::error_handler_t::replace));
}

}  // namespace llmc
