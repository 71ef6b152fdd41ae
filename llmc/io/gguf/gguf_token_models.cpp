#include "llmc/io/gguf/gguf_token_models.h"

#include "llmc/base/check.h"
#include "llmc/base/error.h"
#include "llmc/base/file.h"
#include "llmc/base/log.h"
#include "llmc/io/bpe_alphabet.h"
#include "llmc/io/gguf/gguf_pre_tokenizer.h"
#include "llmc/io/pipeline/bpe_model.h"
#include "llmc/io/pipeline/companion_files.h"
#include "llmc/io/pipeline/json_fields.h"
#include "llmc/io/pipeline/pipeline_files.h"
#include "llmc/io/pipeline/stage_json.h"
#include "llmc/io/pipeline/unicode.h"
#include "llmc/io/sentencepiece_model.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <span>
#include <string_view>
#include <unordered_set>

namespace llmc {
namespace {

using Json = nlohmann::json;
using Type = GgufTokenType;

constexpr std::string_view kSpace = "\xE2\x96\x81";  // U+2581, which stands for a blank inside SentencePiece's tokens.

/// Bytes are byte-level BPE without a merge.
GgufVocabulary of_bytes() {
    GgufVocabulary vocabulary;
    vocabulary.model = "gpt2";
    vocabulary.pre_tokenizer = "gpt-2";
    for (int32_t byte = 0; byte < ByteTokenizer::kEndOfText; ++byte) {
        vocabulary.set(byte, to_alphabet(std::string(1, static_cast<char>(byte))), Type::Normal);
    }
    vocabulary.set(ByteTokenizer::kEndOfText, kEndOfTextName, Type::Control);
    return vocabulary;
}

/// Added tokens stand in a text by their names, and go before whatever has their ids.
void set_added_tokens(const Pipeline& pipeline, GgufVocabulary* vocabulary) {
    std::vector<std::string> strips;
    for (const AddedToken& token : pipeline.added) {
        std::string text = token.text;
        if (!token.special && vocabulary->model != "gpt2") {  // Looked for in the text itself, where blanks are blanks.
            for (size_t i = text.find(kSpace); i != std::string::npos; i = text.find(kSpace)) {
                text.replace(i, kSpace.size(), " ");
            }
        }
        vocabulary->set(token.id, text, token.special ? Type::Control : Type::UserDefined, kUnusedScore);
        if (token.lstrip || token.rstrip || token.single_word) strips.push_back("'" + token.text + "'");
    }
    if (strips.empty()) return;
    if (strips.size() > 4) strips.resize(4, "..."), strips.back() = "...";
    spdlog::warn(
        "{}: the added tokens {} take white space beside them, or stand for whole words only (lstrip, rstrip, "
        "single_word), which GGUF files do not say: texts with them get other ids there",
        pipeline.source, fmt::join(strips, ", "));
}

void require_plain(const Pipeline& pipeline, const BpeSettings& settings) {
    if (!settings.prefix.empty()) refuse_gguf_tokenizer(pipeline.source, "continuing_subword_prefix");
    if (!settings.suffix.empty()) refuse_gguf_tokenizer(pipeline.source, "end_of_word_suffix");
}

GgufVocabulary of_byte_level(const Pipeline& pipeline, const Json& stages, const BpeModel& model) {
    require_no_normalizer(pipeline, stages);
    const GgufPreTokenizer pre_tokenizer = gguf_pre_tokenizer(pipeline, stages, model.settings().ignore_merges);
    if (!pre_tokenizer.caveat.empty()) {
        spdlog::warn("{}: in a GGUF file its pre-tokeniser is '{}'; {}", pipeline.source, pre_tokenizer.name,
                     pre_tokenizer.caveat);
    }
    GgufVocabulary vocabulary;
    vocabulary.model = "gpt2";
    vocabulary.pre_tokenizer = pre_tokenizer.name;
    const TokenNames& names = model.names();
    for (int32_t id = 0; id < names.limit(); ++id) {
        if (names.has(id)) vocabulary.set(id, names.name(id), Type::Normal);
    }
    for (const BpeMerges::Entry& merge : model.merges().by_rank()) {
        const std::string &left = names.name(merge.left), &right = names.name(merge.right);
        // A name with a blank is not of the alphabet, so no text has it.
        if (left.find(' ') == std::string::npos && right.find(' ') == std::string::npos) {
            vocabulary.merges.push_back(left + " " + right);
        }
    }
    set_added_tokens(pipeline, &vocabulary);
    return vocabulary;
}

/// "<0x0A>".
bool is_byte_name(const std::string& name) {
    if (name.size() != 6 || !name.starts_with("<0x") || name.back() != '>') return false;
    for (int byte = 0; byte < 256; ++byte) {
        if (byte_name(static_cast<unsigned char>(byte)) == name) return true;
    }
    return false;
}

/// How a SentencePiece model's text is prepared, said by tokenizer.json's stages: blanks become U+2581, perhaps with
/// one in front. True if it has one; an Error if the stages do anything else.
bool adds_space(const Pipeline& pipeline, const Json& stages) {
    bool adds = false, replaces = false;
    const auto normalizer = stages.find("normalizer"), cutter = stages.find("pre_tokenizer");
    CHECK(normalizer != stages.end() && cutter != stages.end(), pipeline.source);
    for (const Json* stage : flat_stages(*normalizer, "normalizers")) {
        const std::string type = type_of(*stage);
        const bool is_prepend = type == "Prepend" && text_of(*stage, "prepend") == kSpace;
        const bool is_replace = type == "Replace" && text_of(*stage, "content") == kSpace &&
                                stage->at("pattern").value("String", std::string()) == " ";
        if (!is_prepend && !is_replace) refuse_gguf_tokenizer(pipeline.source, "the normaliser " + type);
        adds = adds || is_prepend;
        replaces = replaces || is_replace;
    }
    for (const Json* stage : flat_stages(*cutter, "pretokenizers")) {
        const std::string type = type_of(*stage);
        if (type != "Metaspace" || replaces || text_of(*stage, "replacement") != kSpace) {
            refuse_gguf_tokenizer(pipeline.source, "the pre-tokeniser " + type + " before a BPE over characters");
        }
        if (flag_of(*stage, "split", true))
            refuse_gguf_tokenizer(pipeline.source, "the pre-tokeniser Metaspace with split");
        const std::string scheme = text_of(*stage, "prepend_scheme");
        adds = scheme != "never" && flag_of(*stage, "add_prefix_space", true);
        replaces = true;
        if (!adds) continue;
        spdlog::warn(
            "{}: its pre-tokeniser Metaspace puts no blank in front of a text that begins with one, llama.cpp does",
            pipeline.source);
    }
    if (!replaces) refuse_gguf_tokenizer(pipeline.source, "a BPE over characters that keeps blanks");
    return adds;
}

using Merges = std::span<const BpeMerges::Entry>;

[[noreturn]] void refuse_merges(const Pipeline& pipeline, const std::string& token) {
    refuse_gguf_tokenizer(pipeline.source, "merges that SentencePiece's scores cannot say: those of '" + token + "'");
}

/// SentencePiece merges whatever makes a token, so all pairs that make one must be listed. `apart` are not made so.
void require_all_pairs(const Pipeline& pipeline, const TokenNames& names, Merges merges,
                       const std::unordered_set<int32_t>& apart) {
    std::vector<int64_t> pairs(static_cast<size_t>(names.limit()), 0);
    for (const BpeMerges::Entry& merge : merges) ++pairs[static_cast<size_t>(merge.token)];
    for (int32_t id = 0; id < names.limit(); ++id) {
        if (!names.has(id) || apart.contains(id)) continue;
        const std::string_view name = names.name(id);
        int64_t ways = 0;
        for (size_t i = 1; i < name.size(); ++i) {
            if ((name[i] & 0xC0) == 0x80) continue;  // Inside a character.
            ways += names.id(name.substr(0, i)) >= 0 && names.id(name.substr(i)) >= 0;
        }
        if (ways != pairs[static_cast<size_t>(id)]) refuse_merges(pipeline, names.name(id));
    }
}

/// Merges whose tokens stand between each other in the list have one score; the leftmost then goes first. That is the
/// same only for runs of one character, the longest left part first, as Llama 2 has them of blanks.
void require_runs(const Pipeline& pipeline, const TokenNames& names, Merges merges) {
    const std::string& first = names.name(merges.front().token);
    const std::string character = first.substr(0, utf8_bytes(first[0]));
    size_t longest = std::string::npos;
    for (const BpeMerges::Entry& merge : merges) {
        const std::string& name = names.name(merge.token);
        const size_t left = names.name(merge.left).size();
        for (size_t i = 0; i < name.size(); i += character.size()) {
            if (name.compare(i, character.size(), character) != 0) refuse_merges(pipeline, name);
        }
        if (left > longest) refuse_merges(pipeline, name);
        longest = left;
    }
}

/// SentencePiece's BPE merges the pair whose token has the highest score, tokenizer.json the one that is listed first.
/// Scores by id; 0 where no merge makes the token.
std::vector<float> scores_of_merges(const Pipeline& pipeline, const BpeModel& model) {
    const TokenNames& names = model.names();
    std::unordered_set<int32_t> apart;  // Tokens that are not made by merging, whatever is listed for their names.
    for (const AddedToken& token : pipeline.added) apart.insert(token.id);
    for (int byte = 0; byte < 256; ++byte) apart.insert(names.id(byte_name(static_cast<unsigned char>(byte))));
    std::vector<BpeMerges::Entry> all = model.merges().by_rank();
    std::erase_if(all, [&](const BpeMerges::Entry& merge) { return apart.contains(merge.token); });
    const Merges merges = all;
    require_all_pairs(pipeline, names, merges, apart);
    std::vector<float> scores(static_cast<size_t>(names.limit()), 0);
    std::vector<size_t> ends(scores.size(), 0);  ///< Behind the last merge of each token.
    for (size_t i = 0; i < merges.size(); ++i) ends[static_cast<size_t>(merges[i].token)] = i + 1;
    for (size_t begin = 0, end = 0; begin < merges.size(); begin = end) {
        bool is_one = true;
        for (size_t i = begin; i == begin || i < end; ++i) {
            end = std::max(end, ends[static_cast<size_t>(merges[i].token)]);
            is_one = is_one && merges[i].token == merges[begin].token;
            scores[static_cast<size_t>(merges[i].token)] = -static_cast<float>(begin + 1);
        }
        if (!is_one) require_runs(pipeline, names, merges.subspan(begin, end - begin));
    }
    return scores;
}

/// A BPE over characters, as Llama 2's tokenizer.json has it.
GgufVocabulary of_characters(const Pipeline& pipeline, const Json& stages, const BpeModel& model) {
    const BpeSettings& settings = model.settings();
    if (!settings.byte_fallback) refuse_gguf_tokenizer(pipeline.source, "a BPE over characters without byte_fallback");
    if (settings.ignore_merges) refuse_gguf_tokenizer(pipeline.source, "a BPE over characters with ignore_merges");
    GgufVocabulary vocabulary;
    vocabulary.model = "llama";
    vocabulary.pre_tokenizer = "default";
    vocabulary.adds_space = adds_space(pipeline, stages);
    const std::vector<float> scores = scores_of_merges(pipeline, model);
    const TokenNames& names = model.names();
    for (int32_t id = 0; id < names.limit(); ++id) {
        if (!names.has(id)) continue;
        const Type type = is_byte_name(names.name(id)) ? Type::Byte : Type::Normal;
        vocabulary.set(id, names.name(id), type, scores[static_cast<size_t>(id)]);
    }
    set_added_tokens(pipeline, &vocabulary);
    const int32_t unk = names.id(settings.unk_token);
    if (unk >= 0) vocabulary.types[static_cast<size_t>(unk)] = Type::Unknown;
    vocabulary.unk = unk;
    return vocabulary;
}

/// The way SentencePiece's own model prepares text, as far as llama.cpp follows it.
void say_what_is_lost(const SentencePieceContent& content, const std::string& path) {
    const bool is_bpe = content.kind == SentencePieceContent::Kind::Bpe;
    if (is_bpe && !content.character_map.empty()) {
        spdlog::warn(
            "'{}' has the normaliser {}, which llama.cpp does not apply to a BPE: what it changes gets other ids", path,
            content.normalizer);
    }
    if (is_bpe && content.removes_blanks) {
        spdlog::warn("'{}' removes blanks beside blanks, which llama.cpp does not for a BPE: they get ids there", path);
    }
    const bool has_bytes = std::any_of(content.pieces.begin(), content.pieces.end(), [](const SentencePiece& piece) {
        return piece.type == SentencePiece::Type::Byte;
    });
    if (!is_bpe && has_bytes) {
        spdlog::warn("'{}' spells unknown characters in bytes, which llama.cpp does not for a Unigram model", path);
    }
}

GgufVocabulary of_sentencepiece(const std::string& path, const CompanionFiles& companions, int64_t V) {
    using Kind = SentencePieceContent::Kind;
    const SentencePieceContent content = read_sentencepiece_model(MappedFile(path).text());
    const std::string source = "'" + path + "'";
    const bool is_bpe = content.kind == Kind::Bpe;
    if (!is_bpe && content.kind != Kind::Unigram) refuse_gguf_tokenizer(source, "a model of words or characters");
    if (content.space_as_suffix) refuse_gguf_tokenizer(source, "treat_whitespace_as_suffix");
    say_what_is_lost(content, path);
    GgufVocabulary vocabulary;
    vocabulary.model = is_bpe ? "llama" : "t5";
    vocabulary.pre_tokenizer = "default";
    vocabulary.adds_space = content.adds_prefix;
    vocabulary.removes_blanks = content.removes_blanks;
    if (!is_bpe) vocabulary.character_map = content.character_map;
    TokenNames names;
    for (const SentencePiece& piece : content.pieces) {
        const auto id = static_cast<int32_t>(vocabulary.tokens.size());
        vocabulary.set(id, piece.text, static_cast<Type>(piece.type), piece.score);
        names.add(piece.text, id, source);
    }
    Pipeline added;
    added.source = source;
    add_companion_tokens(companions, names, &added.added, source);
    std::erase_if(added.added, [&](const AddedToken& token) { return token.id >= V; });
    std::erase_if(added.added, [&](const AddedToken& token) {  // The model's own, with types of their own.
        return token.id < static_cast<int32_t>(content.pieces.size()) &&
               content.pieces[static_cast<size_t>(token.id)].type != SentencePiece::Type::Unused;
    });
    set_added_tokens(added, &vocabulary);
    vocabulary.bos = content.bos, vocabulary.eos = content.eos;
    vocabulary.unk = content.unk, vocabulary.pad = content.pad;
    return vocabulary;
}

/// tokenizer.model beside a tokenizer.json, if it has the same tokens; "" if not.
std::string same_sentencepiece_model(const TokenizerFiles& files, const TokenNames& names) {
    const std::string path = files.folder + "/tokenizer.model";
    if (files.folder.empty() || !path_exists(path)) return "";
    const SentencePieceContent content = read_sentencepiece_model(MappedFile(path).text());
    for (size_t id = 0; id < content.pieces.size(); ++id) {
        const auto number = static_cast<int32_t>(id);
        if (!names.has(number) || names.name(number) != content.pieces[id].text) return "";
    }
    return content.pieces.empty() ? "" : path;
}

GgufVocabulary of_pipeline(const Pipeline& pipeline, const Json& stages, const TokenizerFiles& files,
                           const CompanionFiles& companions, int64_t V) {
    const auto* bpe = dynamic_cast<const BpeModel*>(pipeline.model.get());
    if (bpe == nullptr) {
        const std::string path = same_sentencepiece_model(files, pipeline.model->names());
        if (!path.empty()) return of_sentencepiece(path, companions, V);
        refuse_gguf_tokenizer(pipeline.source, "the model Unigram, without the tokenizer.model it was made of");
    }
    require_plain(pipeline, bpe->settings());
    return bpe->settings().over_bytes ? of_byte_level(pipeline, stages, *bpe) : of_characters(pipeline, stages, *bpe);
}

}  // namespace

void refuse_unread_stages(const TokenizerFiles& files) {
    if (files.kind != TokenizerKind::TokenizerJson) return;
    const std::string obstacle = tokenizer_json_obstacle(files.path);
    if (!obstacle.empty()) refuse_gguf_tokenizer("'" + files.path + "'", obstacle);
}

GgufVocabulary vocabulary_of(const TokenizerFiles& files, const Tokenizer& tokenizer, const CompanionFiles& companions,
                             int64_t V) {
    if (files.kind == TokenizerKind::Bytes) return of_bytes();
    if (files.kind == TokenizerKind::SentencePiece) return of_sentencepiece(files.path, companions, V);
    const auto& pipeline = dynamic_cast<const PipelineTokenizer&>(tokenizer).pipeline();
    const Json stages = Json::parse(pipeline.stages);
    return reading(pipeline.source, stages, [&] { return of_pipeline(pipeline, stages, files, companions, V); });
}

}  // namespace llmc
