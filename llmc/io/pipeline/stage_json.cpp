#include "llmc/io/pipeline/stage_json.h"

#include "llmc/io/pipeline/json_fields.h"
#include "llmc/io/pipeline/unicode.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <span>

namespace llmc {
namespace {

using Json = nlohmann::json;

constexpr std::array kNormalizers = {"NFC",     "NFD",     "NFKC",  "NFKD", "Lowercase", "StripAccents",
                                     "Replace", "Prepend", "Strip", "Nmt",  "ByteLevel"};
constexpr std::array kPreTokenizers = {"Split",      "ByteLevel",       "Digits",    "Punctuation",
                                       "Whitespace", "WhitespaceSplit", "Metaspace", "CharDelimiterSplit"};
constexpr std::array kDecoders = {"ByteLevel", "ByteFallback", "Fuse", "Replace", "Strip", "Metaspace", "BPEDecoder"};
constexpr std::array kModels = {"BPE", "Unigram"};

/// A stage, or all of a sequence, in their order, without the sequences.
std::vector<const Json*> flat(const Json& stage, const char* list, int depth = 0) {
    constexpr int kDeepest = 50;
    if (depth > kDeepest) throw JsonFault{&stage, fmt::format("stands within more than {} sequences", kDeepest)};
    if (stage.is_null()) return {};
    if (type_of(stage) != "Sequence") return {&stage};
    std::vector<const Json*> all;
    for (const Json& part : as_list(member(stage, list))) {
        const std::vector<const Json*> inner = flat(part, list, depth + 1);
        all.insert(all.end(), inner.begin(), inner.end());
    }
    return all;
}

const Json& part_of(const Json& tokenizer, const char* name) {
    static const Json kNull;
    const auto found = tokenizer.find(name);
    return found == tokenizer.end() ? kNull : *found;
}

std::string first_missing(const std::vector<const Json*>& stages, std::span<const char* const> known,
                          const char* what) {
    for (const Json* stage : stages) {
        const std::string type = type_of(*stage);
        if (std::find(known.begin(), known.end(), type) != known.end()) continue;
        return fmt::format("the {} {}", what, type.empty() ? "without a type" : type);
    }
    return "";
}

std::string one_character(const Json& stage, const char* name) {
    const Json& field = member(stage, name);
    std::string text = as_text(field);
    if (text.empty() || text.size() != utf8_bytes(text[0])) throw is_not(field, "one character");
    return text;
}

size_t count_at(const Json& stage, const char* name) {
    const Json& field = member(stage, name);
    const int64_t count = as_whole_number(field);
    if (count < 0) throw is_not(field, "a number of characters");
    return static_cast<size_t>(count);
}

/// A pattern is {"String": text} or {"Regex": expression}; make(is_regex, text) takes it.
template <typename Make>
auto with_pattern(const Json& stage, Make make) {
    const Json& pattern = member(stage, "pattern");
    if (const Json* regex = member_or_null(pattern, "Regex")) return make(true, as_text(*regex));
    return make(false, as_text(member(pattern, "String")));
}

PrependScheme prepend_scheme(const Json& stage) {
    const std::string scheme = text_of(stage, "prepend_scheme");
    if (!flag_of(stage, "add_prefix_space", true)) return PrependScheme::Never;  // As files wrote it before schemes.
    if (scheme.empty() || scheme == "always") return PrependScheme::Always;
    if (scheme == "first") return PrependScheme::First;
    if (scheme == "never") return PrependScheme::Never;
    throw is_not(member(stage, "prepend_scheme"), "one of always, first and never");
}

std::unique_ptr<Normalizer> read_normalizer(const Json& stage, const std::string& source) {
    const std::string type = type_of(stage);
    if (type == "NFC") return make_unicode_normalizer(UnicodeForm::NFC);
    if (type == "NFD") return make_unicode_normalizer(UnicodeForm::NFD);
    if (type == "NFKC") return make_unicode_normalizer(UnicodeForm::NFKC);
    if (type == "NFKD") return make_unicode_normalizer(UnicodeForm::NFKD);
    if (type == "Lowercase") return make_lowercase();
    if (type == "StripAccents") return make_strip_accents();
    if (type == "Nmt") return make_nmt();
    if (type == "ByteLevel") return make_byte_spelling();
    if (type == "Prepend") return make_prepend(as_text(member(stage, "prepend")));
    if (type == "Strip") return make_strip(as_flag(member(stage, "strip_left")), as_flag(member(stage, "strip_right")));
    return with_pattern(stage, [&](bool is_regex, const std::string& pattern) {
        const std::string content = as_text(member(stage, "content"));
        return is_regex ? make_replace(pattern, content, source) : make_literal_replace(pattern, content, source);
    });
}

std::unique_ptr<PreTokenizer> read_pre_tokenizer(const Json& stage, bool spell, const std::string& source) {
    const std::string type = type_of(stage);
    if (type == "ByteLevel") {
        return make_byte_level({flag_of(stage, "add_prefix_space", true), flag_of(stage, "use_regex", true), spell});
    }
    if (type == "Digits") return make_digits(flag_of(stage, "individual_digits", false));
    if (type == "Whitespace") return make_whitespace();
    if (type == "WhitespaceSplit") return make_whitespace_split();
    if (type == "CharDelimiterSplit") {
        return make_delimiter_split(character_at(one_character(stage, "delimiter"), 0));
    }
    if (type == "Metaspace") {
        return make_metaspace(one_character(stage, "replacement"), prepend_scheme(stage),
                              flag_of(stage, "split", true));
    }
    const std::string name = text_of(stage, "behavior");
    if (type == "Punctuation") return make_punctuation(split_behavior(name.empty() ? "Isolated" : name, source));
    return with_pattern(stage, [&](bool is_regex, const std::string& pattern) {
        const SplitBehavior behavior = split_behavior(name, source);
        const bool invert = flag_of(stage, "invert", false);
        return is_regex ? make_split(pattern, behavior, invert, source)
                        : make_literal_split(pattern, behavior, invert, source);
    });
}

std::unique_ptr<DecoderStage> read_decoder(const Json& stage, const std::string& source) {
    const std::string type = type_of(stage);
    if (type == "ByteLevel") return make_byte_level_decoder();
    if (type == "ByteFallback") return make_byte_fallback_decoder();
    if (type == "Fuse") return make_fuse_decoder();
    if (type == "BPEDecoder") return make_suffix_decoder(as_text(member(stage, "suffix")));
    if (type == "Strip") {
        return make_strip_decoder(one_character(stage, "content"), count_at(stage, "start"), count_at(stage, "stop"));
    }
    if (type == "Metaspace") {
        return make_metaspace_decoder(one_character(stage, "replacement"),
                                      prepend_scheme(stage) != PrependScheme::Never);
    }
    return with_pattern(stage, [&](bool is_regex, const std::string& pattern) {
        const std::string content = as_text(member(stage, "content"));
        return is_regex ? make_replace_decoder(pattern, content, source)
                        : make_literal_replace_decoder(pattern, content, source);
    });
}

}  // namespace

std::string missing_stage(const Json& tokenizer) {
    const Json& model = member(tokenizer, "model");
    if (std::string missing = first_missing({&model}, kModels, "model"); !missing.empty() && !type_of(model).empty()) {
        return missing;
    }
    for (const auto& [name, list, known, what] :
         {std::tuple("normalizer", "normalizers", std::span<const char* const>(kNormalizers), "normaliser"),
          std::tuple("pre_tokenizer", "pretokenizers", std::span<const char* const>(kPreTokenizers), "pre-tokeniser"),
          std::tuple("decoder", "decoders", std::span<const char* const>(kDecoders), "decoder")}) {
        std::string missing = first_missing(flat(part_of(tokenizer, name), list), known, what);
        if (!missing.empty()) return missing;
    }
    return "";
}

std::vector<std::unique_ptr<Normalizer>> read_normalizers(const Json& normalizer, const std::string& source) {
    std::vector<std::unique_ptr<Normalizer>> stages;
    for (const Json* stage : flat(normalizer, "normalizers")) stages.push_back(read_normalizer(*stage, source));
    return stages;
}

std::vector<std::unique_ptr<PreTokenizer>> read_pre_tokenizers(const Json& pre_tokenizer, bool over_bytes,
                                                               const std::string& source) {
    std::vector<std::unique_ptr<PreTokenizer>> stages;
    const std::vector<const Json*> all = flat(pre_tokenizer, "pretokenizers");
    for (const Json* stage : all) {
        const bool spells = !over_bytes || stage != all.back();
        stages.push_back(read_pre_tokenizer(*stage, spells, source));
    }
    return stages;
}

std::vector<std::unique_ptr<DecoderStage>> read_decoders(const Json& decoder, const std::string& source) {
    std::vector<std::unique_ptr<DecoderStage>> stages;
    for (const Json* stage : flat(decoder, "decoders")) stages.push_back(read_decoder(*stage, source));
    return stages;
}

std::vector<const Json*> flat_stages(const Json& stage, const char* list) { return flat(stage, list); }

bool ends_with_byte_level(const Json& pre_tokenizer) {
    const std::vector<const Json*> all = flat(pre_tokenizer, "pretokenizers");
    return !all.empty() && type_of(*all.back()) == "ByteLevel";
}

}  // namespace llmc
