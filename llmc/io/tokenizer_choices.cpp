#include "llmc/io/tokenizer_choices.h"

#include "llmc/base/file.h"
#include "llmc/io/pipeline/json_fields.h"

#include <nlohmann/json.hpp>

namespace llmc {

using Json = nlohmann::json;

TokenizerChoices with_kept_choices(TokenizerChoices given, const std::string& folder) {
    const std::string path = folder + "/" + kChoicesFile;
    if (folder.empty() || !path_exists(path)) return given;
    const Json kept = parse_tokenizer_json(path);
    const auto take = [&](const char* name, std::string* choice) {
        const std::string text = text_of(kept, name);
        if (choice->empty()) *choice = text;
    };
    reading("'" + path + "'", kept, [&] {
        take("document_token", &given.document_token);
        take("pattern", &given.pattern);
    });
    return given;
}

void keep_choices(const TokenizerChoices& choices, const std::string& folder) {
    Json kept = Json::object();
    if (!choices.document_token.empty()) kept["document_token"] = choices.document_token;
    if (!choices.pattern.empty()) kept["pattern"] = choices.pattern;
    if (!kept.empty()) write_text_atomically(folder + "/" + kChoicesFile, kept.dump(2) + "\n");
}

}  // namespace llmc
