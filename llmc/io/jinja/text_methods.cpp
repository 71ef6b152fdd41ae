#include "llmc/io/jinja/text_methods.h"

#include "llmc/io/pipeline/unicode.h"

#include <unicode/locid.h>
#include <unicode/unistr.h>

#include <algorithm>

namespace llmc {
namespace {

/// Python's isspace().
bool is_python_space(char32_t c) { return is_white_space(c) || (c >= 0x1c && c <= 0x1f); }

bool is_in(char32_t c, const std::string& characters) {
    for (size_t i = 0; i < characters.size(); i += utf8_bytes(characters[i])) {
        if (character_at(characters, i) == c) return true;
    }
    return false;
}

icu::UnicodeString wide(std::string_view text) {
    return icu::UnicodeString::fromUTF8(icu::StringPiece(text.data(), static_cast<int32_t>(text.size())));
}

std::string narrow(const icu::UnicodeString& text) {
    std::string out;
    text.toUTF8String(out);
    return out;
}

std::string upper(std::string_view text) { return narrow(wide(text).toUpper(icu::Locale::getRoot())); }
std::string lower(std::string_view text) { return narrow(wide(text).toLower(icu::Locale::getRoot())); }

std::string capital(std::string_view word) {
    if (word.empty()) return "";
    const size_t first = utf8_bytes(word[0]);
    return upper(word.substr(0, first)) + lower(word.substr(first));
}

std::vector<JinjaText> split_at_spaces(const JinjaText& text, int64_t most) {
    std::vector<JinjaText> parts;
    const std::string& bytes = text.bytes;
    const auto skip = [&](size_t i, bool spaces) {
        while (i < bytes.size() && is_python_space(character_at(bytes, i)) == spaces) i += utf8_bytes(bytes[i]);
        return i;
    };
    for (size_t begin = skip(0, true); begin < bytes.size();) {
        const bool is_last = most >= 0 && static_cast<int64_t>(parts.size()) == most;
        const size_t end = is_last ? bytes.size() : skip(begin, false);
        parts.push_back(is_last ? stripped(text.part(begin, end), nullptr, false, true) : text.part(begin, end));
        begin = skip(end, true);
    }
    return parts;
}

}  // namespace

size_t character_count(std::string_view text) {
    return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

size_t character_offset(std::string_view text, size_t index) {
    size_t i = 0;
    while (index > 0 && i < text.size()) {
        i += utf8_bytes(text[i]);
        --index;
    }
    return std::min(i, text.size());
}

JinjaText stripped(const JinjaText& text, const std::string* characters, bool left, bool right) {
    const std::string_view bytes = text.bytes;
    const auto goes = [&](size_t i) {
        const char32_t c = character_at(bytes, i);
        return characters == nullptr ? is_python_space(c) : is_in(c, *characters);
    };
    size_t begin = 0, end = bytes.size();
    while (left && begin < end && goes(begin)) begin += utf8_bytes(bytes[begin]);
    while (right && end > begin) {
        const size_t last = character_before(bytes, end);
        if (!goes(last)) break;
        end = last;
    }
    return text.part(begin, end);
}

std::vector<JinjaText> split_text(const JinjaText& text, const std::string* separator, int64_t most, bool from_right) {
    if (separator == nullptr) return split_at_spaces(text, most);
    std::vector<size_t> places;
    const std::string& bytes = text.bytes;
    if (!from_right) {
        for (size_t p = bytes.find(*separator); p != std::string::npos;
             p = bytes.find(*separator, p + separator->size())) {
            if (most >= 0 && static_cast<int64_t>(places.size()) >= most) break;
            places.push_back(p);
        }
    } else {
        for (size_t end = bytes.size(); most < 0 || static_cast<int64_t>(places.size()) < most;) {
            if (end < separator->size()) break;
            const size_t p = bytes.rfind(*separator, end - separator->size());
            if (p == std::string::npos) break;
            places.push_back(p);
            end = p;
        }
        std::reverse(places.begin(), places.end());
    }
    std::vector<JinjaText> parts;
    size_t begin = 0;
    for (const size_t place : places) {
        parts.push_back(text.part(begin, place));
        begin = place + separator->size();
    }
    parts.push_back(text.part(begin, bytes.size()));
    return parts;
}

JinjaText upper_case(const JinjaText& text) { return text.changed(upper(text.bytes)); }

JinjaText lower_case(const JinjaText& text) { return text.changed(lower(text.bytes)); }

JinjaText title_case(const JinjaText& text, bool python_words) {
    std::string out;
    const std::string_view bytes = text.bytes;
    const auto separates = [&](size_t i) {
        const char32_t c = character_at(bytes, i);
        if (python_words) return !is_letter(c);
        return is_python_space(c) || c == '-' || c == '(' || c == '{' || c == '[' || c == '<';
    };
    for (size_t i = 0; i < bytes.size();) {
        size_t end = i;
        while (end < bytes.size() && !separates(end)) end += utf8_bytes(bytes[end]);
        out += capital(bytes.substr(i, end - i));
        while (end < bytes.size() && separates(end)) {
            const size_t size = utf8_bytes(bytes[end]);
            out += bytes.substr(end, size);
            end += size;
        }
        i = end;
    }
    return text.changed(std::move(out));
}

JinjaText capitalized(const JinjaText& text) { return text.changed(capital(text.bytes)); }

JinjaText replaced(const JinjaText& text, const std::string& from, const std::string& to, int64_t most,
                   JinjaWork& work) {
    std::string out;
    const std::string& bytes = text.bytes;
    int64_t count = 0;
    size_t i = 0;
    while (most < 0 || count < most) {
        const size_t place = from.empty() ? i : bytes.find(from, i);
        if (place == std::string::npos || place > bytes.size()) break;
        work.spend(to.size() + 1);
        out += bytes.substr(i, place - i) + to;
        ++count;
        i = place + from.size();
        if (!from.empty()) continue;
        if (i >= bytes.size()) {
            i = bytes.size();
            break;
        }
        const size_t size = utf8_bytes(bytes[i]);
        out += bytes.substr(i, size);
        i += size;
    }
    out += bytes.substr(std::min(i, bytes.size()));
    return count == 0 ? text : text.changed(std::move(out));
}

}  // namespace llmc
