#include "llmc/io/gguf/gguf_pre_tokenizer.h"

#include "llmc/base/error.h"
#include "llmc/base/log.h"
#include "llmc/io/bpe_alphabet.h"
#include "llmc/io/pipeline/bpe_model.h"
#include "llmc/io/pipeline/json_fields.h"
#include "llmc/io/pipeline/stage_json.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <vector>

namespace llmc {
namespace {

using Json = nlohmann::json;

/// What a name stands for: how text is cut in front of the model, and whether whole pieces go before merges.
struct NamedPattern {
    const char* name;
    std::vector<std::string> patterns;  ///< Expressions that cut alike; the first is the usual way to write it.
    bool is_digits_first = false;       ///< Each digit is cut off before.
    bool whole_tokens = false;
    const char* caveat = "";
};

constexpr const char* kCaseCaveat =
    "llama.cpp's own expression for it takes no letter outside ASCII for a small or a capital one, so words in which "
    "such letters change case may get other ids";

const std::vector<NamedPattern>& named_patterns() {
    static const std::vector<std::string> gpt2 = {
        kGpt2Pattern, R"('(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)",
        R"('(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s)"};
    static const std::string ends = R"((?i:'s|'t|'re|'ve|'m|'ll|'d))", any = R"([^\r\n\p{L}\p{N}]?)";
    static const std::string space = R"(|\s*[\r\n]+|\s+(?!\S)|\s+)", cl100k_space = R"(|\s*[\r\n]|\s+(?!\S)|\s+)";
    static const std::string other = R"(| ?[^\s\p{L}\p{N}]+[\r\n]*)";
    static const std::string upper = R"([\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}])", lower = R"([\p{Ll}\p{Lm}\p{Lo}\p{M}])";
    static const std::string other_slash = R"(| ?[^\s\p{L}\p{N}]+[\r\n/]*)";
    const auto cased = [](const std::string& end, const char* digits) {
        return any + upper + "*" + lower + "+" + end + "|" + any + upper + "+" + lower + "*" + end + digits +
               other_slash + space;
    };
    // \s*[\r\n] and \s*[\r\n]+ match alike, and so do the possessive forms.
    static const std::vector<std::string> llama3 = {
        kLlama3Pattern, ends + "|" + any + R"(\p{L}+|\p{N}{1,3})" + other + cl100k_space,
        R"('(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*)" + cl100k_space,
        R"('(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+)"
        R"(|\s++$|\s*[\r\n]|\s+(?!\S)|\s)"};
    static const std::vector<NamedPattern> table = {
        {"gpt-2", gpt2},
        {"smollm", gpt2, /*is_digits_first=*/true},
        {"llama-bpe", llama3, false, /*whole_tokens=*/true},
        {"smaug-bpe", llama3},
        {"qwen2", {ends + "|" + any + R"(\p{L}+|\p{N})" + other + space}},
        {"qwen35", {ends + "|" + any + R"([\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*)" + space}},
        {"gpt-4o", {cased(ends + "?", R"(|\p{N}{1,3})")}, false, false, kCaseCaveat},
        {"tekken", {cased("", R"(|\p{N})")}, false, /*whole_tokens=*/true, kCaseCaveat},
    };
    return table;
}

/// Stages as a table's row says them; `unknown` names what it cannot.
struct Cutting {
    std::string pattern;
    bool is_digits_first = false;
    std::string unknown;
};

std::vector<const Json*> stages_of(const Json& all, const char* name, const char* list) {
    const auto found = all.find(name);
    if (found == all.end()) return {};
    return flat_stages(*found, list);
}

void add_split(const Json& stage, Cutting* cutting) {
    const Json& pattern = stage.at("pattern");
    const bool is_regex = pattern.is_object() && pattern.contains("Regex");
    const std::string behavior = text_of(stage, "behavior");
    // Where an expression matches everything, to keep matches alone is to cut between them.
    const bool cuts = flag_of(stage, "invert", false) ? behavior == "Removed" : behavior == "Isolated";
    if (!is_regex || !cuts || !cutting->pattern.empty()) {
        cutting->unknown = fmt::format("the pre-tokeniser Split with {} and {}", pattern.dump(), behavior);
        return;
    }
    cutting->pattern = pattern["Regex"].get<std::string>();
}

Cutting cutting_of(const Json& all) {
    Cutting cutting;
    const std::vector<const Json*> stages = stages_of(all, "pre_tokenizer", "pretokenizers");
    for (const Json* stage : stages) {
        const std::string type = type_of(*stage);
        if (type == "Split") {
            add_split(*stage, &cutting);
        } else if (type == "Digits" && flag_of(*stage, "individual_digits", false) && stages.front() == stage) {
            cutting.is_digits_first = true;
        } else if (type == "ByteLevel" && stages.back() == stage) {
            if (flag_of(*stage, "add_prefix_space", true))
                cutting.unknown = "the pre-tokeniser ByteLevel with add_prefix_space";
            const bool uses_regex = flag_of(*stage, "use_regex", true);
            if (uses_regex && !cutting.pattern.empty()) cutting.unknown = "the pre-tokeniser Split before ByteLevel's";
            if (uses_regex) cutting.pattern = kGpt2Pattern;
        } else {
            cutting.unknown = "the pre-tokeniser " + type;
        }
        if (!cutting.unknown.empty()) return cutting;
    }
    if (cutting.pattern.empty()) cutting.unknown = "no pre-tokeniser that cuts words apart";
    return cutting;
}

/// Whether each token's own bytes merge into it: then a piece that is a token becomes it in either way.
bool merges_make_every_token(const BpeModel& model) {
    LostText lost("");
    BpeSettings settings = model.settings();
    settings.ignore_merges = false;
    TokenNames names = model.names();
    const BpeModel by_merges(settings, std::move(names), BpeMerges(model.merges()));
    const std::unique_ptr<ModelEncoder> encoder = by_merges.make_encoder(lost);
    std::vector<int32_t> ids;
    std::string bytes;
    for (int32_t id = 0; id < model.names().limit(); ++id) {
        if (!model.names().has(id) || !from_alphabet(model.names().name(id), &bytes) || bytes.empty()) continue;
        ids.clear();
        encoder->encode(bytes, &ids);
        if (ids.size() != 1) return false;
    }
    return true;
}

}  // namespace

void refuse_gguf_tokenizer(const std::string& source, const std::string& what) {
    fail("--format=gguf: {} has {}, which GGUF files have no name for; use --format=hf", source, what);
}

GgufPreTokenizer gguf_pre_tokenizer(const Pipeline& pipeline, const Json& stages, bool wants_whole_tokens) {
    const Cutting cutting = cutting_of(stages);
    if (!cutting.unknown.empty()) refuse_gguf_tokenizer(pipeline.source, cutting.unknown);
    const NamedPattern* other = nullptr;  // Cuts alike, but differs in what whole tokens are.
    for (const NamedPattern& row : named_patterns()) {
        if (row.is_digits_first != cutting.is_digits_first) continue;
        if (std::find(row.patterns.begin(), row.patterns.end(), cutting.pattern) == row.patterns.end()) continue;
        if (row.whole_tokens == wants_whole_tokens) return {row.name, row.caveat};
        other = &row;
    }
    const std::string pattern = fmt::format("the pre-tokeniser's pattern '{}'", cutting.pattern);
    if (other == nullptr) refuse_gguf_tokenizer(pipeline.source, pattern);
    if (!merges_make_every_token(dynamic_cast<const BpeModel&>(*pipeline.model))) {
        refuse_gguf_tokenizer(pipeline.source,
                              fmt::format("{} {} ignore_merges", pattern, wants_whole_tokens ? "with" : "without"));
    }
    return {other->name, other->caveat};
}

void require_no_normalizer(const Pipeline& pipeline, const Json& stages) {
    for (const Json* stage : stages_of(stages, "normalizer", "normalizers")) {
        const std::string type = type_of(*stage);
        if (type != "NFC") refuse_gguf_tokenizer(pipeline.source, "the normaliser " + type);
        spdlog::warn("{} has the normaliser NFC, which llama.cpp does not apply: text in another form gets other ids",
                     pipeline.source);
    }
}

}  // namespace llmc
