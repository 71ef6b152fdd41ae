#include "tests/fuzz/mutator.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cstring>

namespace llmc {
namespace {

constexpr size_t kLongest = size_t{1} << 18;  ///< What is longer is cut: speed counts.

constexpr std::array<int64_t, 15> kIntegers = {
    0, 1, -1, 2, 127, 255, 256, 32767, 65535, 65536, 2147483647, -2147483648, 4294967295, INT64_MAX, INT64_MIN};
constexpr std::array kDecimals = {"0",   "-1",     "1",          "255",        "65536",
                                  "1e9", "1e308",  "2147483647", "4294967296", "9223372036854775807",
                                  "0.5", "-1e-30", "1e999",      "00",         "18446744073709551616"};
/// Of JSON, TOML, tokenizers, token names and UTF-8.
constexpr std::array kWords = {"{",
                               "}",
                               "[",
                               "]",
                               ",",
                               ":",
                               "\"",
                               "\\",
                               "null",
                               "true",
                               "{}",
                               "[]",
                               "\"\"",
                               "\n",
                               "\r\n",
                               "\t",
                               "\\u0000",
                               "\\ud800",
                               "=",
                               "#",
                               "'",
                               "<|endoftext|>",
                               "text",
                               "type",
                               "BPE",
                               "id",
                               "vocab",
                               "merges",
                               "Sequence",
                               "Regex",
                               "Split",
                               "(?i:",
                               "(a+)+$",
                               "\\p{L}",
                               "[^",
                               "\xef\xbb\xbf",
                               "\xff",
                               "\xc3",
                               "\xf0\x9f\x98",
                               "NaN",
                               "Infinity",
                               "../",
                               "PAR1",
                               "\x1f\x8b\x08",
                               "ustar",
                               "%",
                               "{0}"};

}  // namespace

std::string Mutator::next(const std::vector<std::string>& seeds) {
    std::string text = seeds[below(seeds.size())];
    if (text.starts_with('{') && below(2) == 0) {
        nlohmann::json root = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
        for (size_t changes = 1 + below(4); changes > 0 && !root.is_discarded(); --changes) change_json(root);
        if (!root.is_discarded()) return root.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
    }
    for (size_t changes = 1 + below(8); changes > 0; --changes) change(text, seeds);
    if (text.size() > kLongest) text.resize(kLongest);
    return text;
}

/// A value somewhere in it: the deeper, the less likely.
nlohmann::json* Mutator::some_node(nlohmann::json& root) {
    nlohmann::json* node = &root;
    while (node->is_structured() && !node->empty() && below(6) != 0) {
        auto child = node->begin();
        std::advance(child, below(node->size()));
        node = &*child;
    }
    return node;
}

void Mutator::change_json(nlohmann::json& root) {
    nlohmann::json* node = some_node(root);
    switch (below(8)) {
        case 0: *node = nlohmann::json(); return;
        case 1: *node = kIntegers[below(kIntegers.size())]; return;
        case 2: *node = nlohmann::json::parse(kDecimals[below(kDecimals.size())], nullptr, false); break;
        case 3: *node = kWords[below(kWords.size())]; break;
        case 4: *node = nlohmann::json(*some_node(root)); return;
        case 5: *node = below(2) == 0; return;
        case 6: *node = below(2) == 0 ? nlohmann::json::array() : nlohmann::json::object(); return;
        default: break;
    }
    if (node->is_discarded()) *node = 0.5;
    if (!node->is_structured() || node->empty()) return;
    auto child = node->begin();
    std::advance(child, below(node->size()));
    const nlohmann::json copy = *child;
    if (below(2) == 0) {
        node->erase(child);
    } else if (node->is_array()) {
        node->push_back(copy);
    } else {
        (*node)[kWords[below(kWords.size())]] = copy;
    }
}

void Mutator::change(std::string& text, const std::vector<std::string>& seeds) {
    switch (below(8)) {
        case 0:
        case 1: return change_bytes(text);
        case 2: return change_integer(text);
        case 3: return change_decimal(text);
        case 4: return insert_word(text);
        case 5: return text.resize(below(text.size() + 1));
        default: return move_piece(text, seeds);
    }
}

void Mutator::change_bytes(std::string& text) {
    for (size_t count = 1 + below(4); count > 0 && !text.empty(); --count) {
        char& byte = text[below(text.size())];
        byte = static_cast<char>(below(2) == 0 ? byte ^ (1 << below(8)) : static_cast<int>(below(256)));
    }
}

/// A little-endian integer, most often one that stands where integers do.
void Mutator::change_integer(std::string& text) {
    const size_t size = size_t{1} << below(4);
    if (text.size() < size) return;
    size_t place = below(text.size() - size + 1);
    if (below(4) != 0) place -= place % size;
    if (below(3) == 0) place = std::min(below(16) * size, text.size() - size);
    uint64_t value = 0;
    std::memcpy(&value, text.data() + place, size);
    const bool near = below(3) == 0;
    value = near ? value + below(3) - 1 : static_cast<uint64_t>(kIntegers[below(kIntegers.size())]);
    std::memcpy(text.data() + place, &value, size);
}

/// A number written in digits.
void Mutator::change_decimal(std::string& text) {
    const auto is_digit = [](char c) { return std::isdigit(static_cast<unsigned char>(c)) != 0; };
    const size_t from = below(text.size() + 1);
    const auto begin = std::find_if(text.begin() + static_cast<std::ptrdiff_t>(from), text.end(), is_digit);
    if (begin == text.end()) return;
    const auto end = std::find_if_not(begin, text.end(), is_digit);
    text.replace(begin, end, kDecimals[below(kDecimals.size())]);
}

void Mutator::insert_word(std::string& text) {
    const std::string_view word = kWords[below(kWords.size())];
    const size_t times = below(20) == 0 ? 1 + below(3000) : 1;
    std::string words;
    for (size_t i = 0; i < times; ++i) words += word;
    text.insert(below(text.size() + 1), words);
}

std::string_view Mutator::piece(std::string_view text) {
    const size_t longest = below(2) == 0 ? 16 : 4096;
    return text.substr(below(text.size() + 1), below(longest) + 1);
}

/// Leaves a piece out, doubles it, or puts one of this or another file somewhere else.
void Mutator::move_piece(std::string& text, const std::vector<std::string>& seeds) {
    const std::string_view own = piece(text);
    const auto place = static_cast<size_t>(own.data() - text.data());
    switch (below(4)) {
        case 0: text.erase(place, own.size()); return;
        case 1: text.insert(place, std::string(own)); return;
        case 2: text.insert(below(text.size() + 1), std::string(own)); return;
        default: text.insert(below(text.size() + 1), std::string(piece(seeds[below(seeds.size())]))); return;
    }
}

}  // namespace llmc
