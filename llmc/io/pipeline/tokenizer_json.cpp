#include "llmc/base/log.h"
#include "llmc/io/pipeline/bpe_model.h"
#include "llmc/io/pipeline/companion_files.h"
#include "llmc/io/pipeline/json_fields.h"
#include "llmc/io/pipeline/pipeline_files.h"
#include "llmc/io/pipeline/stage_json.h"
#include "llmc/io/pipeline/unigram_model.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <unordered_map>
#include <utility>

namespace llmc {
namespace {

using Json = nlohmann::json;

constexpr const char* kIdWanted = "a whole number, the id of a token";

std::pair<std::string, std::string> read_merge(const Json& merge) {
    constexpr const char* kWanted = "a merge, which is two tokens with a blank between them, or a list of the two";
    if (merge.is_array() && merge.size() == 2) return {as_text(merge[0]), as_text(merge[1])};
    if (merge.is_array()) throw JsonFault{&merge, fmt::format("is a list of {}, not {}", merge.size(), kWanted)};
    if (!merge.is_string()) throw is_not(merge, kWanted);
    const auto& line = merge.get_ref<const std::string&>();
    const size_t blank = line.find(' ');
    if (blank == std::string::npos || line.find(' ', blank + 1) != std::string::npos) throw is_not(merge, kWanted);
    return {line.substr(0, blank), line.substr(blank + 1)};
}

std::unique_ptr<TokenModel> read_bpe(const Json& model, bool over_bytes, const std::string& source) {
    BpeSettings settings;
    settings.source = source;
    settings.over_bytes = over_bytes;
    settings.unk_token = text_of(model, "unk_token");
    settings.fuse_unk = flag_of(model, "fuse_unk", false);
    settings.byte_fallback = flag_of(model, "byte_fallback", false);
    settings.ignore_merges = flag_of(model, "ignore_merges", false);
    settings.prefix = text_of(model, "continuing_subword_prefix");
    settings.suffix = text_of(model, "end_of_word_suffix");
    const Json* dropout = member_or_null(model, "dropout");
    if (dropout != nullptr && as_number(*dropout) != 0) {
        fail("{} has BPE dropout ({}), by which every run gives other tokens; set it to null", source,
             as_number(*dropout));
    }
    TokenNames names;
    for (const auto& [name, id] : as_object(member(model, "vocab")).items()) {
        names.add(name, as_whole_number(id, kIdWanted), source);
    }
    std::vector<std::pair<std::string, std::string>> merges;
    for (const Json& merge : as_list(member(model, "merges"))) {
        if (merge.is_string() && merge.get_ref<const std::string&>().starts_with("#version")) continue;
        merges.push_back(read_merge(merge));
    }
    return std::make_unique<BpeModel>(std::move(settings), std::move(names), merges);
}

std::unique_ptr<TokenModel> read_unigram(const Json& model, const std::string& source) {
    TokenNames names;
    std::vector<double> scores;
    for (const Json& token : as_list(member(model, "vocab"))) {
        if (as_list(token).size() < 2) throw is_not(token, "a token and its score");
        names.add(as_text(token[0]), static_cast<int64_t>(scores.size()), source);
        scores.push_back(as_number(token[1]));
    }
    const Json* field = member_or_null(model, "unk_id");
    const bool has_unk = field != nullptr;
    const int64_t unk = has_unk ? as_whole_number(*field, kIdWanted) : -1;
    if (has_unk && (unk < 0 || unk >= names.limit())) {
        fail("{}: unk_id is {}, but the vocabulary has {} tokens", source, unk, names.limit());
    }
    return std::make_unique<UnigramModel>(source, std::move(names), std::move(scores), static_cast<int32_t>(unk),
                                          flag_of(model, "byte_fallback", false));
}

/// With the ids that the tokenizers library gives: the model's own, else the next ones behind its vocabulary.
std::vector<AddedToken> read_added_tokens(const Json& tokens, const TokenNames& names, const std::string& source) {
    std::vector<AddedToken> added;
    std::unordered_map<std::string, size_t> places;  // A second one of a name takes the place of the first.
    int64_t next = names.count();
    static const Json kNone = Json::array();
    for (const Json& token : tokens.is_null() ? kNone : as_list(tokens)) {
        AddedToken now;
        now.text = as_text(member(token, "content"));
        if (now.text.empty()) continue;
        const int64_t said = as_whole_number(member(token, "id"), kIdWanted);
        const auto [place, is_new] = places.emplace(now.text, added.size());
        now.id = is_new ? names.id(now.text) : added[place->second].id;
        if (now.id < 0) now.id = static_cast<int32_t>(next++);
        if (said != now.id) {
            spdlog::warn("{}: the added token '{}' has id {} there, but {} by the rules of the tokenizers library",
                         source, now.text, said, now.id);
        }
        now.special = flag_of(token, "special", false);
        now.single_word = flag_of(token, "single_word", false);
        now.lstrip = flag_of(token, "lstrip", false);
        now.rstrip = flag_of(token, "rstrip", false);
        now.normalized = flag_of(token, "normalized", !now.special);
        if (is_new) {
            added.push_back(std::move(now));
        } else {
            added[place->second] = std::move(now);
        }
    }
    return added;
}

const Json& part_of(const Json& tokenizer, const char* name) {
    static const Json kNull;
    const auto found = tokenizer.find(name);
    return found == tokenizer.end() ? kNull : *found;
}

Pipeline read_pipeline(const Json& json, const std::string& folder, const TokenizerChoices& choices,
                       const std::string& source) {
    if (const std::string missing = missing_stage(json); !missing.empty()) {
        fail(
            "{} has {}, which this program does not read; make token files with the tokenizer's own program, and train "
            "on those",
            source, missing);
    }
    Pipeline pipeline;
    pipeline.source = source;
    const Json& model = member(json, "model");
    const Json& pre_tokenizer = part_of(json, "pre_tokenizer");
    const bool is_bpe = type_of(model) == "BPE" || (type_of(model).empty() && model.contains("merges"));
    const bool over_bytes = is_bpe && ends_with_byte_level(pre_tokenizer);
    pipeline.normalizers = read_normalizers(part_of(json, "normalizer"), source);
    pipeline.pre_tokenizers = read_pre_tokenizers(pre_tokenizer, over_bytes, source);
    pipeline.model = is_bpe ? read_bpe(model, over_bytes, source) : read_unigram(model, source);
    const TokenNames& names = pipeline.model->names();
    pipeline.added = read_added_tokens(part_of(json, "added_tokens"), names, source);
    std::vector<std::unique_ptr<DecoderStage>> decoders = read_decoders(part_of(json, "decoder"), source);
    if (decoders.empty() && over_bytes) decoders.push_back(make_byte_level_decoder());  // Better than spelled bytes.
    pipeline.decoder = Decoder(std::move(decoders));

    const CompanionFiles files = read_companion_files(folder);
    add_companion_tokens(files, names, &pipeline.added, source);
    const KnownTokens known = {names, pipeline.added};
    pipeline.document_token = choices.document_token.empty()
                                  ? find_document_token(part_of(json, "post_processor"), files, known)
                                  : chosen_document_token(choices.document_token, known);
    Json stages;
    for (const char* stage : {"normalizer", "pre_tokenizer", "post_processor"}) stages[stage] = part_of(json, stage);
    pipeline.stages = stages.dump();
    return pipeline;
}

}  // namespace

Pipeline read_tokenizer_json(const std::string& path, const std::string& folder, const TokenizerChoices& choices) {
    const Json json = parse_tokenizer_json(path);
    const std::string source = "'" + path + "'";
    return reading(source, json, [&] { return read_pipeline(json, folder, choices, source); });
}

std::string tokenizer_json_obstacle(const std::string& path) {
    const Json json = parse_tokenizer_json(path);
    return reading("'" + path + "'", json, [&] { return missing_stage(json); });
}

}  // namespace llmc
