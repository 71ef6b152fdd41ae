#include "llmc/io/gguf/gguf_special_tokens.h"

#include "llmc/base/error.h"
#include "llmc/base/file.h"
#include "llmc/base/log.h"
#include "llmc/io/carried_files.h"
#include "llmc/io/pipeline/companion_files.h"
#include "llmc/io/pipeline/document_token.h"
#include "llmc/io/pipeline/pipeline_tokenizer.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cctype>
#include <optional>

namespace llmc {
namespace {

using Json = nlohmann::json;

constexpr const char* kTemplateFile = "/chat_template.jinja";
constexpr const char* kTemplateField = "chat_template";

const Json* field(const Json& json, const char* name) {
    if (!json.is_object()) return nullptr;
    const auto found = json.find(name);
    return found == json.end() || found->is_null() ? nullptr : &*found;
}

/// What the files say of a token in front of texts; nothing where they are silent.
std::optional<bool> said_of_bos(const Tokenizer& tokenizer, const CompanionFiles& files, bool has_chat_template) {
    const Json* flag = field(files.tokenizer_config, "add_bos_token");
    if (flag != nullptr && flag->is_boolean()) return flag->get<bool>();
    if (const auto* pipeline_tokenizer = dynamic_cast<const PipelineTokenizer*>(&tokenizer)) {
        const Pipeline& pipeline = pipeline_tokenizer->pipeline();
        const Json stages = Json::parse(pipeline.stages);
        const auto processor = stages.find("post_processor");
        const KnownTokens known = {pipeline.model->names(), pipeline.added};
        if (processor != stages.end() && token_of_template(*processor, known).id >= 0) return true;
    }
    if (has_chat_template) return false;
    return std::nullopt;
}

/// An id of the model's configuration, which may list several; -1 if there is none.
int32_t configured(const Json& ids, const char* name, size_t vocabulary) {
    const Json* id = field(ids, name);
    if (id != nullptr && id->is_array() && !id->empty()) id = &(*id)[0];
    if (id == nullptr || !id->is_number_integer()) return -1;
    const auto value = id->get<int64_t>();
    return value >= 0 && value < static_cast<int64_t>(vocabulary) ? static_cast<int32_t>(value) : -1;
}

/// llama.cpp ends texts at token 11 where nothing is named. A token that stands for nothing does no harm.
void choose_harmless_eos(GgufVocabulary* vocabulary) {
    constexpr size_t kOtherwise = 11;
    const auto unused = std::find(vocabulary->types.begin(), vocabulary->types.end(), GgufTokenType::Unused);
    if (unused != vocabulary->types.end()) {
        vocabulary->eos = static_cast<int32_t>(unused - vocabulary->types.begin());
    } else if (vocabulary->tokens.size() > kOtherwise) {
        spdlog::warn(
            "--format=gguf: the tokenizer's files name no token that ends texts; llama.cpp then takes token {}, '{}'",
            kOtherwise, vocabulary->tokens[kOtherwise]);
    }
}

bool has_chat_template(const std::string& folder, const CompanionFiles& files) {
    return field(files.tokenizer_config, kTemplateField) != nullptr ||
           (!folder.empty() && path_exists(folder + kTemplateFile));
}

}  // namespace

void choose_special_tokens(const Tokenizer& tokenizer, const std::string& folder, GgufVocabulary* vocabulary) {
    const CompanionFiles files = read_companion_files(folder);
    const Json ids = Json::parse(folder.empty() ? "{}" : special_token_ids(folder));
    const auto choose = [&](const char* role, const char* id_field, int32_t* id) {
        const int32_t named = vocabulary->id_of(token_of_role(files, role));
        const int32_t other = configured(ids, id_field, vocabulary->tokens.size());
        if (named >= 0 || other >= 0) *id = named >= 0 ? named : other;
    };
    const int32_t document = tokenizer.end_of_text();
    choose("bos_token", "bos_token_id", &vocabulary->bos);
    choose("eos_token", "eos_token_id", &vocabulary->eos);
    choose("unk_token", "", &vocabulary->unk);
    choose("pad_token", "pad_token_id", &vocabulary->pad);
    const bool adds = said_of_bos(tokenizer, files, has_chat_template(folder, files)).value_or(true);
    vocabulary->adds_bos = adds && document >= 0;
    if (vocabulary->adds_bos || vocabulary->bos < 0) vocabulary->bos = document;
    if (vocabulary->eos < 0) vocabulary->eos = document;
    if (vocabulary->eos < 0) choose_harmless_eos(vocabulary);
}

void add_chat_templates(const std::string& folder, GgufVocabulary* vocabulary) {
    if (folder.empty()) return;
    if (path_exists(folder + kTemplateFile)) {
        vocabulary->chat_templates.emplace_back("", read_text(folder + kTemplateFile));
        return;
    }
    const CompanionFiles files = read_companion_files(folder);
    const Json* text = field(files.tokenizer_config, kTemplateField);
    if (text == nullptr) return;
    const auto is_new = [&](const std::string& name) {
        const auto& known = vocabulary->chat_templates;
        return std::none_of(known.begin(), known.end(), [&](const auto& entry) { return entry.first == name; });
    };
    if (text->is_string()) vocabulary->chat_templates.emplace_back("", text->get<std::string>());
    for (const Json& item : text->is_array() ? *text : Json::array()) {
        const Json *name = field(item, "name"), *content = field(item, "template");
        if (name == nullptr || content == nullptr || !name->is_string() || !content->is_string()) continue;
        auto which = name->get<std::string>();
        if (which == "default") which.clear();
        std::erase_if(which, [](char c) { return std::isalnum(static_cast<unsigned char>(c)) == 0 && c != '_'; });
        if (is_new(which)) vocabulary->chat_templates.emplace_back(which, content->get<std::string>());
    }
}

}  // namespace llmc
