#include "llmc/base/error.h"
#include "llmc/base/file.h"
#include "llmc/io/bpe_alphabet.h"
#include "llmc/io/pipeline/bpe_model.h"
#include "llmc/io/pipeline/pipeline_files.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <charconv>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace llmc {
namespace {

/// The value of a base64 digit, -1 if it is none (RFC 4648).
int base64_value(char c) {
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

bool decode_base64(std::string_view text, std::string* bytes) {
    bytes->clear();
    if (text.empty() || text.size() % 4 != 0) return false;
    while (text.ends_with('=')) text.remove_suffix(1);
    uint32_t bits = 0;
    int count = 0;
    for (const char c : text) {
        const int value = base64_value(c);
        if (value < 0) return false;
        bits = bits << 6 | static_cast<uint32_t>(value);
        if ((count += 6) >= 8) *bytes += static_cast<char>(bits >> (count -= 8) & 0xFF);
    }
    return !bytes->empty();
}

/// Tokens by rank.
std::vector<std::string> read_lines(const std::string& path) {
    const MappedFile file(path);
    std::vector<std::pair<int64_t, std::string>> lines;
    std::string_view text = file.text();
    for (int64_t number = 1; !text.empty(); ++number) {
        const size_t end = std::min(text.find('\n'), text.size());
        std::string_view line = text.substr(0, end);
        text.remove_prefix(std::min(end + 1, text.size()));
        if (line.ends_with('\r')) line.remove_suffix(1);
        if (line.empty()) continue;
        const size_t blank = std::min(line.find(' '), line.size() - 1);
        int64_t rank = -1;
        const auto [rest, error] = std::from_chars(line.data() + blank + 1, line.data() + line.size(), rank);
        std::string bytes;
        if (!decode_base64(line.substr(0, blank), &bytes) || error != std::errc() ||
            rest != line.data() + line.size()) {
            fail("'{}' line {}: not a token in base64, a blank and a rank", path, number);
        }
        lines.emplace_back(rank, std::move(bytes));
    }
    std::sort(lines.begin(), lines.end());
    std::vector<std::string> tokens;
    for (auto& [rank, bytes] : lines) {
        if (rank != static_cast<int64_t>(tokens.size())) {
            fail("'{}': the ranks are not 0 to {}: {} is {}", path, lines.size() - 1, tokens.size(),
                 rank < static_cast<int64_t>(tokens.size()) ? "not the only one of its kind" : "missing");
        }
        tokens.push_back(std::move(bytes));
    }
    return tokens;
}

constexpr const char* kCl100kPattern =
    R"('(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+)";
constexpr const char* kO200kPattern =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|)"
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|)"
    R"(\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

/// What a rank file does not say itself.
struct Family {
    std::string name;
    std::string pattern;
    std::vector<std::pair<int32_t, std::string>> special;
    int32_t document_token;
};

Family llama3() {
    std::vector<std::string> names = {"<|begin_of_text|>",
                                      "<|end_of_text|>",
                                      "<|reserved_special_token_0|>",
                                      "<|reserved_special_token_1|>",
                                      "<|reserved_special_token_2|>",
                                      "<|reserved_special_token_3|>",
                                      "<|start_header_id|>",
                                      "<|end_header_id|>",
                                      "<|reserved_special_token_4|>",
                                      "<|eot_id|>"};
    for (int i = 5; names.size() < 256; ++i) names.push_back(fmt::format("<|reserved_special_token_{}|>", i));
    Family family = {"Llama 3", kLlama3Pattern, {}, 128000};
    for (std::string& name : names) {
        const auto id = static_cast<int32_t>(family.special.size()) + family.document_token;
        family.special.emplace_back(id, std::move(name));
    }
    return family;
}

Family family_of(size_t ranks, const std::string& path, const std::string& pattern) {
    Family family;
    switch (ranks) {
        case 50256: family = {"GPT-2", kGpt2Pattern, {{50256, kEndOfTextName}}, 50256}; break;
        case 100256:
            family = {"cl100k",
                      kCl100kPattern,
                      {{100257, kEndOfTextName},
                       {100258, "<|fim_prefix|>"},
                       {100259, "<|fim_middle|>"},
                       {100260, "<|fim_suffix|>"},
                       {100276, "<|endofprompt|>"}},
                      100257};
            break;
        case 128000: family = llama3(); break;
        case 199998:
            family = {"o200k", kO200kPattern, {{199999, kEndOfTextName}, {200018, "<|endofprompt|>"}}, 199999};
            break;
        default:
            if (pattern.empty()) {
                fail(
                    "'{}' has {} ranks, which is no family's number (50256, 100256, 128000, 199998), so its pattern "
                    "and "
                    "its special tokens are not known; give the pattern with --tokenizer-pattern",
                    path, ranks);
            }
            family = {"--tokenizer-pattern", pattern, {}, static_cast<int32_t>(ranks)};
            family.special.emplace_back(family.document_token, kEndOfTextName);
    }
    if (!pattern.empty()) family.pattern = pattern;
    return family;
}

/// Any two tokens merge that make a third one, which gives the rank.
BpeMerges find_merges(const std::vector<std::string>& tokens, const std::string& path) {
    std::unordered_map<std::string_view, int32_t> ids;
    for (size_t id = 0; id < tokens.size(); ++id) {
        if (!ids.emplace(tokens[id], static_cast<int32_t>(id)).second) {
            fail("'{}': the token of rank {} has another rank, too", path, id);
        }
    }
    for (size_t byte = 0; byte < 256; ++byte) {
        if (ids.find(std::string(1, static_cast<char>(byte))) != ids.end()) continue;
        fail("'{}' has no token for the byte 0x{:02x}; copy or download it again", path, byte);
    }
    BpeMerges merges;
    for (size_t id = 0; id < tokens.size(); ++id) {
        const std::string_view token = tokens[id];
        for (size_t i = 1; i < token.size(); ++i) {
            const auto left = ids.find(token.substr(0, i)), right = ids.find(token.substr(i));
            if (left == ids.end() || right == ids.end()) continue;
            const auto rank = static_cast<int32_t>(id);
            merges.set(left->second, right->second, {rank, rank});
        }
    }
    return merges;
}

}  // namespace

Pipeline read_ranks(const std::string& path, const TokenizerChoices& choices) {
    const std::vector<std::string> tokens = read_lines(path);
    const Family family = family_of(tokens.size(), path, choices.pattern);
    Pipeline pipeline;
    pipeline.source = "'" + path + "'";
    BpeMerges merges = find_merges(tokens, path);
    TokenNames names;
    for (size_t id = 0; id < tokens.size(); ++id) {
        names.add(to_alphabet(tokens[id]), static_cast<int64_t>(id), pipeline.source);
    }
    BpeSettings settings;
    settings.source = pipeline.source;
    settings.over_bytes = true;
    settings.ignore_merges = true;
    pipeline.model = std::make_unique<BpeModel>(std::move(settings), std::move(names), std::move(merges));
    pipeline.pre_tokenizers.push_back(make_split(family.pattern, SplitBehavior::Isolated, false, pipeline.source));
    const nlohmann::json split = {
        {"type", "Split"}, {"pattern", {{"Regex", family.pattern}}}, {"behavior", "Isolated"}, {"invert", false}};
    const nlohmann::json bytes = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}};
    const nlohmann::json sequence = {{"type", "Sequence"}, {"pretokenizers", {split, bytes}}};
    pipeline.stages = nlohmann::json({{"pre_tokenizer", sequence}}).dump();
    std::vector<std::unique_ptr<DecoderStage>> decoders;
    decoders.push_back(make_byte_level_decoder());
    pipeline.decoder = Decoder(std::move(decoders));
    for (const auto& [id, name] : family.special) pipeline.added.push_back({id, name, /*special=*/true});
    const KnownTokens known = {pipeline.model->names(), pipeline.added};
    const std::string named_by = fmt::format("the number of ranks, that of {}", family.name);
    pipeline.document_token = choices.document_token.empty()
                                  ? DocumentToken{family.document_token, known.name(family.document_token), named_by}
                                  : chosen_document_token(choices.document_token, known);
    return pipeline;
}

}  // namespace llmc
