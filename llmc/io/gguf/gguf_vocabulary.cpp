#include "llmc/io/gguf/gguf_vocabulary.h"

#include "llmc/base/error.h"
#include "llmc/base/file.h"
#include "llmc/base/log.h"
#include "llmc/io/gguf/gguf_special_tokens.h"
#include "llmc/io/gguf/gguf_token_models.h"
#include "llmc/io/pipeline/companion_files.h"
#include "llmc/io/tokenizer_files.h"

#include <algorithm>
#include <unordered_map>
#include <unordered_set>

namespace llmc {
namespace {

/// llama.cpp finds tokens by their text, and stops at two of the same.
void require_distinct(const GgufVocabulary& vocabulary, const std::string& source) {
    std::unordered_map<std::string_view, size_t> ids;
    for (size_t id = 0; id < vocabulary.tokens.size(); ++id) {
        const auto [first, is_new] = ids.emplace(vocabulary.tokens[id], id);
        if (is_new) continue;
        fail(
            "--format=gguf: '{}' has the token '{}' twice, with the ids {} and {}, which GGUF files cannot say; use "
            "--format=hf",
            source, vocabulary.tokens[id], first->second, id);
    }
}

GgufVocabulary unknown(const std::string& reference, const char* why) {
    spdlog::warn(
        "--format=gguf: {}{}, so the file has no vocabulary: llama.cpp can run the model on ids, but not on text; "
        "to give it one, import the model with --tokenizer first",
        reference == "none" ? "" : "'" + reference + "' ", why);
    return {};
}

}  // namespace

void GgufVocabulary::set(int32_t id, std::string token, GgufTokenType type, float score) {
    const auto place = static_cast<size_t>(id);
    if (place >= tokens.size()) {
        tokens.resize(place + 1);
        types.resize(place + 1, GgufTokenType::Unused);
    }
    tokens[place] = std::move(token);
    types[place] = type;
    if (model == "gpt2") return;
    if (place >= scores.size()) scores.resize(place + 1, kUnusedScore);
    scores[place] = score;
}

void GgufVocabulary::pad_to(int64_t size) {
    tokens.resize(static_cast<size_t>(size));
    types.resize(tokens.size(), GgufTokenType::Unused);
    if (model != "gpt2") scores.resize(tokens.size(), kUnusedScore);
    const std::unordered_set<std::string> taken(tokens.begin(), tokens.end());
    for (size_t id = 0; id < tokens.size(); ++id) {
        if (!tokens[id].empty()) continue;
        types[id] = GgufTokenType::Unused;
        for (tokens[id] = fmt::format("[PAD{}]", id); taken.contains(tokens[id]);) tokens[id] = "[" + tokens[id] + "]";
    }
}

int32_t GgufVocabulary::id_of(const std::string& token) const {
    const auto found = std::find(tokens.begin(), tokens.end(), token);
    return token.empty() || found == tokens.end() ? -1 : static_cast<int32_t>(found - tokens.begin());
}

void GgufVocabulary::add_to(GgufMetadata* metadata) const {
    metadata->add_text("tokenizer.ggml.model", model);
    if (model == "none") return;
    if (!pre_tokenizer.empty()) metadata->add_text("tokenizer.ggml.pre", pre_tokenizer);
    metadata->add_texts("tokenizer.ggml.tokens", tokens);
    std::vector<int32_t> numbers(types.size());
    std::transform(types.begin(), types.end(), numbers.begin(), [](auto type) { return static_cast<int32_t>(type); });
    metadata->add_integers("tokenizer.ggml.token_type", numbers);
    if (model == "gpt2") {
        metadata->add_texts("tokenizer.ggml.merges", merges);
    } else {
        metadata->add_numbers("tokenizer.ggml.scores", scores);
    }
    for (const auto& [key, id] : {std::pair("bos", bos), {"eos", eos}, {"unknown", unk}, {"padding", pad}}) {
        if (id >= 0) metadata->add_count(fmt::format("tokenizer.ggml.{}_token_id", key), id);
    }
    metadata->add_flag("tokenizer.ggml.add_bos_token", adds_bos);
    metadata->add_flag("tokenizer.ggml.add_eos_token", false);
    if (adds_space) metadata->add_flag("tokenizer.ggml.add_space_prefix", *adds_space);
    if (removes_blanks) metadata->add_flag("tokenizer.ggml.remove_extra_whitespaces", *removes_blanks);
    if (!character_map.empty()) metadata->add_bytes("tokenizer.ggml.precompiled_charsmap", character_map);
    std::vector<std::string> names;
    for (const auto& [name, text] : chat_templates) {
        metadata->add_text(name.empty() ? "tokenizer.chat_template" : "tokenizer.chat_template." + name, text);
        if (!name.empty()) names.push_back(name);
    }
    if (!names.empty()) metadata->add_texts("tokenizer.chat_templates", names);
}

GgufVocabulary gguf_vocabulary(const std::string& reference, const std::string& folder, int64_t V) {
    const TokenizerFiles files = find_tokenizer_files(reference);
    if (files.kind == TokenizerKind::None) return unknown(reference, "the model's tokenizer is not known");
    if (files.kind == TokenizerKind::Llmc) return unknown(reference, "has no merges and can only decode");
    refuse_unread_stages(files);
    const std::unique_ptr<Tokenizer> tokenizer = make_tokenizer(reference);
    require_vocabulary(*tokenizer, V);
    GgufVocabulary vocabulary = vocabulary_of(files, *tokenizer, read_companion_files(folder), V);
    vocabulary.pad_to(V);
    require_distinct(vocabulary, reference);
    choose_special_tokens(*tokenizer, folder, &vocabulary);
    add_chat_templates(folder, &vocabulary);
    return vocabulary;
}

}  // namespace llmc
