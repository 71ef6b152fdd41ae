#include "llmc/base/error.h"
#include "llmc/base/file.h"
#include "llmc/io/bpe_files.h"

#include <algorithm>
#include <charconv>
#include <unordered_map>

namespace llmc {
namespace {

constexpr size_t kGpt2Ranks = 50256;

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

/// The special tokens of Llama 3, whose first ids follow the ranks.
std::vector<std::string> llama3_special_tokens() {
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
    return names;
}

}  // namespace

BpeVocabulary read_ranks(const std::string& path) {
    BpeVocabulary vocabulary;
    vocabulary.source = path;
    vocabulary.tokens = read_lines(path);
    const std::vector<std::string>& tokens = vocabulary.tokens;
    std::unordered_map<std::string_view, int32_t> ids;
    for (size_t id = 0; id < tokens.size(); ++id) {
        if (!ids.emplace(tokens[id], static_cast<int32_t>(id)).second) {
            fail("'{}': the token of rank {} has another rank, too", path, id);
        }
    }
    for (size_t byte = 0; byte < 256; ++byte) {
        const auto id = ids.find(std::string(1, static_cast<char>(byte)));
        if (id == ids.end()) fail("'{}' has no token for the byte 0x{:02x}; copy or download it again", path, byte);
        vocabulary.bytes[byte] = id->second;
    }
    // Any two tokens merge that make a third one, which gives the rank.
    for (size_t id = 0; id < tokens.size(); ++id) {
        const std::string_view token = tokens[id];
        for (size_t i = 1; i < token.size(); ++i) {
            const auto left = ids.find(token.substr(0, i)), right = ids.find(token.substr(i));
            if (left == ids.end() || right == ids.end()) continue;
            const auto rank = static_cast<int32_t>(id);
            vocabulary.merges.set(left->second, right->second, {rank, rank});
        }
    }
    vocabulary.whole_words = true;
    const bool is_gpt2 = tokens.size() == kGpt2Ranks;
    vocabulary.pattern = is_gpt2 ? kGpt2Pattern : kLlama3Pattern;
    vocabulary.end_of_text = static_cast<int32_t>(tokens.size());  // The first of the special ones.
    for (std::string& name : is_gpt2 ? std::vector<std::string>{kEndOfTextName} : llama3_special_tokens()) {
        vocabulary.added.push_back({static_cast<int32_t>(vocabulary.tokens.size()), name, /*special=*/true});
        vocabulary.tokens.push_back(std::move(name));
    }
    return vocabulary;
}

}  // namespace llmc
