#include "llmc/io/pretokenize.h"

#include "llmc/base/check.h"
#include "llmc/base/error.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>

namespace llmc {
namespace {

/// Bytes of the valid UTF-8 character at the beginning of `text`; 0 if there is none.
size_t character_bytes(std::string_view text) {
    const auto byte = [&](size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u; };
    const auto continues = [&](size_t i) { return (byte(i) & 0xC0) == 0x80; };
    const unsigned first = byte(0), second = byte(1);
    if (first < 0x80) return text.empty() ? 0 : 1;
    if (first < 0xC2 || first > 0xF4 || !continues(1)) return 0;
    if (first < 0xE0) return 2;
    if (first < 0xF0) {
        const bool overlong = first == 0xE0 && second < 0xA0, surrogate = first == 0xED && second > 0x9F;
        return !overlong && !surrogate && continues(2) ? 3 : 0;
    }
    const bool overlong = first == 0xF0 && second < 0x90, beyond = first == 0xF4 && second > 0x8F;
    return !overlong && !beyond && continues(2) && continues(3) ? 4 : 0;
}

/// The patterns were written for engines in which \s is Unicode's White_Space; PCRE2 counts U+180E in, too.
std::string to_pcre2(const std::string& pattern) {
    constexpr const char* kSpace = R"(\t-\r\x{85}\p{Z})";
    std::string out;
    bool in_class = false;
    for (size_t i = 0; i < pattern.size(); ++i) {
        const char c = pattern[i];
        if (c == '\\' && i + 1 < pattern.size()) {
            const char next = pattern[++i];
            if (next == 's' && in_class)
                out += kSpace;
            else if (next == 's')
                out += std::string("[") + kSpace + "]";
            else if (next == 'S' && !in_class)
                out += std::string("[^") + kSpace + "]";
            else
                (out += c) += next;
            continue;
        }
        if (c == '[') in_class = true;
        if (c == ']') in_class = false;
        out += c;
    }
    return out;
}

/// In these, a word that holds a letter (a digit) goes on only with letters (digits), and nothing looks back. The last
/// is Qwen's.
bool is_known(const std::string& pattern) {
    static const std::string kSingleDigits =
        R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
        R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";
    return pattern == kGpt2Pattern || pattern == kLlama3Pattern || pattern == kSingleDigits;
}

constexpr size_t kWindow = 64 * 1024;  ///< Bytes that one search for a cut looks at.

bool is_letter(char c) { return static_cast<unsigned char>((c | 0x20) - 'a') < 26; }
bool is_digit(char c) { return static_cast<unsigned char>(c - '0') < 10; }

/// Whether a run of ASCII letters or digits ends before text[p], for certain.
bool ascii_run_ends(std::string_view text, size_t p) {
    const char last = text[p - 1], next = text[p];
    if (static_cast<unsigned char>(next) >= 0x80) return false;
    return (is_letter(last) && !is_letter(next)) || (is_digit(last) && !is_digit(next));
}

}  // namespace

size_t valid_utf8_prefix(std::string_view text) {
    size_t i = 0;
    while (i < text.size()) {
        uint64_t eight = 0;
        while (i + sizeof eight <= text.size()) {
            std::memcpy(&eight, text.data() + i, sizeof eight);
            if ((eight & 0x8080808080808080u) != 0) break;
            i += sizeof eight;
        }
        if (i == text.size()) break;
        const size_t bytes = character_bytes(text.substr(i, 4));
        if (bytes == 0) break;
        i += bytes;
    }
    return i;
}

struct SplitPattern::Code {
    pcre2_code* code = nullptr;
    bool has_jit = false;

    Code(const std::string& pattern, const std::string& source) {
        int error = 0;
        PCRE2_SIZE where = 0;
        code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                             PCRE2_UTF | PCRE2_UCP | PCRE2_DOLLAR_ENDONLY, &error, &where, nullptr);
        if (code == nullptr) {
            std::array<PCRE2_UCHAR, 256> why = {};
            pcre2_get_error_message(error, why.data(), why.size());
            fail("{}: its pre-tokenisation pattern does not compile: {}", source,
                 reinterpret_cast<const char*>(why.data()));
        }
        has_jit = pcre2_jit_compile(code, PCRE2_JIT_COMPLETE) == 0;
    }
    ~Code() { pcre2_code_free(code); }
    Code(const Code&) = delete;
    Code& operator=(const Code&) = delete;
};

SplitPattern::SplitPattern(const std::string& pattern, const std::string& source)
    : pattern_(pattern),
      runs_end_words_(is_known(pattern)),
      words_(std::make_unique<Code>(to_pcre2(pattern), source)),
      runs_(std::make_unique<Code>(R"(\p{L}(?=\P{L})|\p{N}(?=\P{N}))", source)) {}

SplitPattern::~SplitPattern() = default;

struct WordSplitter::State {
    pcre2_match_data* match = pcre2_match_data_create(1, nullptr);
    pcre2_match_context* context = pcre2_match_context_create(nullptr);
    pcre2_jit_stack* stack = pcre2_jit_stack_create(32 * 1024, 16 * 1024 * 1024, nullptr);
    PCRE2_SIZE* found = pcre2_get_ovector_pointer(match);

    State() { pcre2_jit_stack_assign(context, nullptr, stack); }
    ~State() {
        pcre2_jit_stack_free(stack);
        pcre2_match_context_free(context);
        pcre2_match_data_free(match);
    }
    State(const State&) = delete;
    State& operator=(const State&) = delete;

    /// Whether there is a match at or after `begin`; its range is then in `found`.
    bool search(const SplitPattern::Code& code, std::string_view text, size_t begin) {
        const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
        const int status = code.has_jit
                               ? pcre2_jit_match(code.code, subject, text.size(), begin, PCRE2_NOTEMPTY, match, context)
                               : pcre2_match(code.code, subject, text.size(), begin,
                                             PCRE2_NOTEMPTY | PCRE2_NO_UTF_CHECK, match, context);
        if (status < 0 && status != PCRE2_ERROR_NOMATCH) {
            std::array<PCRE2_UCHAR, 256> why = {};
            pcre2_get_error_message(status, why.data(), why.size());
            fail("the tokenizer's pre-tokenisation pattern gave up on the text: {}",
                 reinterpret_cast<const char*>(why.data()));
        }
        return status >= 0;
    }
};

WordSplitter::WordSplitter(const SplitPattern& pattern) : pattern_(pattern), state_(std::make_unique<State>()) {}

WordSplitter::~WordSplitter() = default;

size_t WordSplitter::word_end(std::string_view text, size_t begin) {
    if (!state_->search(*pattern_.words_, text, begin)) return text.size();
    return state_->found[0] > begin ? state_->found[0] : state_->found[1];
}

size_t WordSplitter::safe_cut(std::string_view text, size_t from) {
    if (!pattern_.runs_end_words()) return text.size();
    for (size_t p = std::max<size_t>(from, 1); p < std::min(text.size(), from + kWindow); ++p) {
        if (ascii_run_ends(text, p)) return p;
    }
    // Other scripts, window by window. UTF-8 is self-synchronising: a character found valid here is one in `text`.
    for (size_t begin = from; begin < text.size();) {
        const std::string_view window = text.substr(begin, kWindow);
        const std::string_view valid = window.substr(0, valid_utf8_prefix(window));
        if (!valid.empty() && state_->search(*pattern_.runs_, valid, 0)) return begin + state_->found[1];
        // The last character has been seen only as what follows: the next window begins with it.
        const bool more = valid.size() == window.size() || valid.size() + 4 > window.size();
        size_t step = valid.size();
        while (more && step > 0 && (static_cast<unsigned char>(valid[--step]) & 0xC0) == 0x80) continue;
        begin += std::max<size_t>(step, 1);
    }
    return text.size();
}

}  // namespace llmc
