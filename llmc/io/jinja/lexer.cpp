#include "llmc/io/jinja/lexer.h"

#include "llmc/base/error.h"
#include "llmc/io/pipeline/unicode.h"

#include <algorithm>
#include <array>
#include <cctype>

namespace llmc {
namespace {

using Kind = JinjaToken::Kind;

bool is_blank(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

bool starts_name(char c) { return std::isalpha(static_cast<unsigned char>(c)) != 0 || c == '_'; }

bool is_digit(char c) { return c >= '0' && c <= '9'; }

int hex_digit(char c) {
    if (is_digit(c)) return c - '0';
    const char small = static_cast<char>(c | 0x20);
    return small >= 'a' && small <= 'f' ? small - 'a' + 10 : -1;
}

/// Line ends as the template's environment has them, without the one at the end.
std::string with_plain_line_ends(std::string_view source) {
    std::string text;
    text.reserve(source.size());
    for (size_t i = 0; i < source.size(); ++i) {
        if (source[i] == '\r') {
            text += '\n';
            if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
        } else {
            text += source[i];
        }
    }
    if (text.ends_with('\n')) text.pop_back();
    return text;
}

class Lexer {
  public:
    Lexer(std::string_view source, const std::string& name) : text_(with_plain_line_ends(source)), name_(name) {}

    std::vector<JinjaToken> run() {
        while (at_ < text_.size()) {
            const size_t tag = next_tag(at_);
            take_data(tag);
            if (tag < text_.size()) take_tag(text_[tag + 1]);
        }
        add(Kind::End, "");
        return std::move(tokens_);
    }

  private:
    [[noreturn]] void refuse(const std::string& what) const { refuse_template(name_, line_, what); }

    void add(Kind kind, std::string text) { tokens_.push_back({kind, std::move(text), line_}); }

    void advance(size_t to) {
        line_ += static_cast<int>(std::count(text_.begin() + static_cast<std::ptrdiff_t>(at_),
                                             text_.begin() + static_cast<std::ptrdiff_t>(to), '\n'));
        at_ = to;
    }

    size_t next_tag(size_t from) const {
        for (size_t p = text_.find('{', from); p != std::string::npos; p = text_.find('{', p + 1)) {
            if (p + 1 < text_.size() && (text_[p + 1] == '{' || text_[p + 1] == '%' || text_[p + 1] == '#')) return p;
        }
        return text_.size();
    }

    /// The text before a tag at `tag`, without the white space that the tag takes.
    void take_data(size_t tag) {
        std::string_view data = std::string_view(text_).substr(at_, tag - at_);
        if (tag < text_.size()) {
            const char sign = tag + 2 < text_.size() ? text_[tag + 2] : '\0';
            if (sign == '-') {
                while (!data.empty() && is_blank(data.back())) data.remove_suffix(1);
            } else if (sign != '+' && text_[tag + 1] != '{') {
                const size_t line_end = data.rfind('\n');
                const size_t begin = line_end == std::string_view::npos ? 0 : line_end + 1;
                const bool begins_line = begin > 0 || line_begins_;
                if (begins_line && std::all_of(data.begin() + static_cast<std::ptrdiff_t>(begin), data.end(), is_blank))
                    data = data.substr(0, begin);
            }
        }
        if (!data.empty()) add(Kind::Data, std::string(data));
        advance(tag);
    }

    /// A tag that begins at at_, with '{' and `kind`.
    void take_tag(char kind) {
        const bool has_sign = at_ + 2 < text_.size() && (text_[at_ + 2] == '-' || text_[at_ + 2] == '+');
        if (kind == '#') return take_comment();
        if (kind == '%' && take_raw()) return;
        add(kind == '%' ? Kind::BlockBegin : Kind::VariableBegin, "");
        advance(at_ + (has_sign ? 3 : 2));
        const char close = kind == '%' ? '%' : '}';
        brackets_.clear();
        while (!ends_tag(close)) take_word();
        add(kind == '%' ? Kind::BlockEnd : Kind::VariableEnd, "");
        leave_tag(close == '%');
    }

    /// Whether the tag ends here, after white space, with an optional sign.
    bool ends_tag(char close) {
        while (at_ < text_.size() && is_blank(text_[at_])) advance(at_ + 1);
        if (at_ >= text_.size()) refuse(close == '%' ? "a tag {% is not closed" : "a tag {{ is not closed");
        if (!brackets_.empty()) return false;
        const bool has_sign = text_[at_] == '-' || (text_[at_] == '+' && close == '%');
        return text_.compare(at_ + (has_sign ? 1 : 0), 2, std::string{close, '}'}) == 0;
    }

    /// Goes behind the end of a tag, at at_, and the white space that it takes.
    void leave_tag(bool trims_line_end) {
        const char sign = text_[at_];
        size_t end = at_ + (sign == '-' || sign == '+' ? 3 : 2);
        if (sign == '-') {
            while (end < text_.size() && is_blank(text_[end])) ++end;
        } else if (trims_line_end && sign != '+' && end < text_.size() && text_[end] == '\n') {
            ++end;
        }
        line_begins_ = text_[end - 1] == '\n';
        advance(end);
    }

    void take_comment() {
        const size_t end = text_.find("#}", at_ + 2);
        if (end == std::string::npos) refuse("a comment {# is not closed");
        const bool has_sign = end > at_ + 2 && (text_[end - 1] == '-' || text_[end - 1] == '+');
        advance(end - (has_sign ? 1 : 0));
        leave_tag(true);
    }

    /// Whether a {% word %} stands at `from`; its end, without what it takes behind it, in `end`.
    bool is_plain_block(size_t from, std::string_view word, size_t* end) const {
        size_t p = from + 2;
        if (p < text_.size() && (text_[p] == '-' || text_[p] == '+')) ++p;
        while (p < text_.size() && is_blank(text_[p])) ++p;
        if (text_.compare(p, word.size(), word) != 0) return false;
        p += word.size();
        while (p < text_.size() && is_blank(text_[p])) ++p;
        *end = p;
        if (p < text_.size() && (text_[p] == '-' || text_[p] == '+')) ++p;
        return text_.compare(p, 2, "%}") == 0;
    }

    /// {% raw %}, if that is what stands here, with all up to its end as text.
    bool take_raw() {
        size_t end = 0;
        if (!is_plain_block(at_, "raw", &end)) return false;
        const int line = line_;
        advance(end);
        leave_tag(true);
        for (size_t tag = text_.find("{%", at_); tag != std::string::npos; tag = text_.find("{%", tag + 1)) {
            if (!is_plain_block(tag, "endraw", &end)) continue;
            take_data(tag);
            advance(end);
            leave_tag(true);
            return true;
        }
        refuse_template(name_, line, "{% raw %} is not closed by {% endraw %}");
    }

    void take_word() {
        const char c = text_[at_];
        if (starts_name(c)) {
            size_t end = at_;
            while (end < text_.size() && (starts_name(text_[end]) || is_digit(text_[end]))) ++end;
            add(Kind::Name, text_.substr(at_, end - at_));
            advance(end);
        } else if (is_digit(c)) {
            take_number();
        } else if (c == '"' || c == '\'') {
            take_string(c);
        } else {
            take_operator();
        }
    }

    void take_number() {
        size_t end = at_;
        const auto digits = [&] {
            while (end < text_.size() && (is_digit(text_[end]) || (text_[end] == '_' && end > at_))) ++end;
        };
        digits();
        bool is_float = false;
        if (end + 1 < text_.size() && text_[end] == '.' && is_digit(text_[end + 1])) {
            is_float = true;
            ++end;
            digits();
        }
        if (end < text_.size() && (text_[end] == 'e' || text_[end] == 'E')) {
            size_t exponent = end + 1;
            if (exponent < text_.size() && (text_[exponent] == '-' || text_[exponent] == '+')) ++exponent;
            if (exponent < text_.size() && is_digit(text_[exponent])) {
                is_float = true;
                end = exponent;
                digits();
            }
        }
        std::string number = text_.substr(at_, end - at_);
        std::erase(number, '_');
        add(is_float ? Kind::Float : Kind::Integer, number);
        advance(end);
    }

    void take_string(char quote) {
        const int line = line_;
        std::string text;
        size_t p = at_ + 1;
        while (p < text_.size() && text_[p] != quote) {
            if (text_[p] == '\\' && p + 1 < text_.size()) {
                p = take_escape(p + 1, &text);
            } else {
                text += text_[p++];
            }
        }
        if (p >= text_.size()) refuse_template(name_, line, "a text in quotes is not closed");
        add(Kind::String, std::move(text));
        advance(p + 1);
    }

    /// Python's escapes, the character behind the backslash at p; where they end.
    size_t take_escape(size_t p, std::string* out) const {
        const char c = text_[p];
        constexpr std::string_view kNames = "abfnrtv\\'\"", kMeanings = "\a\b\f\n\r\t\v\\'\"";
        if (const size_t known = kNames.find(c); known != std::string_view::npos) {
            *out += kMeanings[known];
            return p + 1;
        }
        if (c == '\n') return p + 1;
        const size_t most = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
        char32_t value = 0;
        size_t digits = 0;
        if (most > 0) {
            while (digits < most && p + 1 + digits < text_.size() && hex_digit(text_[p + 1 + digits]) >= 0) {
                value = value * 16 + static_cast<char32_t>(hex_digit(text_[p + 1 + digits++]));
            }
            if (digits < most) refuse(fmt::format("the escape \\{} in a text needs {} digits", c, most));
            p += 1 + digits;
        } else if (c >= '0' && c <= '7') {
            while (digits < 3 && p < text_.size() && text_[p] >= '0' && text_[p] <= '7') {
                value = value * 8 + static_cast<char32_t>(text_[p++] - '0');
                ++digits;
            }
        } else {
            *out += '\\';
            return p;
        }
        if (value > 0x10FFFF || (value >= 0xD800 && value < 0xE000)) refuse("an escape in a text is no character");
        append_utf8(value, out);
        return p;
    }

    void take_operator() {
        constexpr std::array<std::string_view, 6> kPairs = {"==", "!=", "<=", ">=", "//", "**"};
        const std::string_view rest = std::string_view(text_).substr(at_);
        const auto pair = std::find_if(kPairs.begin(), kPairs.end(), [&](auto two) { return rest.starts_with(two); });
        const std::string word(pair != kPairs.end() ? *pair : rest.substr(0, 1));
        constexpr std::string_view kSingle = "+-*/%~<>=()[]{},:|.;";
        if (word.size() == 1 && kSingle.find(word[0]) == std::string_view::npos) {
            const size_t bytes = std::min(utf8_bytes(word[0]), rest.size());
            refuse(fmt::format("'{}' stands where none is known", rest.substr(0, bytes)));
        }
        if (word == "(" || word == "[" || word == "{") brackets_ += word == "(" ? ')' : word == "[" ? ']' : '}';
        if (word == ")" || word == "]" || word == "}") {
            if (brackets_.empty() || brackets_.back() != word[0]) refuse(fmt::format("'{}' closes nothing", word));
            brackets_.pop_back();
        }
        add(Kind::Operator, word);
        advance(at_ + word.size());
    }

    std::string text_;
    const std::string& name_;
    std::vector<JinjaToken> tokens_;
    size_t at_ = 0;
    int line_ = 1;
    bool line_begins_ = true;  ///< What was taken last ended a line.
    std::string brackets_;     ///< What closes those that are open.
};

}  // namespace

void refuse_template(const std::string& name, int line, const std::string& what) {
    constexpr size_t kLongest = 300;  // A template may quote all of a conversation.
    std::string words = what.substr(0, kLongest);
    words.resize(valid_utf8_prefix(words));
    std::replace_if(
        words.begin(), words.end(), [](char c) { return c == '\n' || c == '\r'; }, ' ');
    fail("chat template {} line {}: {}{}", name, line, words, what.size() > kLongest ? " ..." : "");
}

std::vector<JinjaToken> lex_jinja(std::string_view source, const std::string& name) {
    return Lexer(source, name).run();
}

}  // namespace llmc
