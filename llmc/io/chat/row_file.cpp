#include "llmc/io/chat/row_file.h"

#include "llmc/base/shallow_json.h"
#include "llmc/io/chat/row.h"

#include <nlohmann/json.hpp>

#include <algorithm>

namespace llmc {
namespace {

bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }

}  // namespace

RowFile::RowFile(std::string_view text) : text_(text) {
    if (text_.starts_with("\xef\xbb\xbf")) at_ = 3;
    const size_t begin = text_.find_first_not_of(" \t\r\n", at_);
    is_array_ = begin != std::string_view::npos && text_[begin] == '[';
    if (is_array_) advance(begin + 1);
}

void RowFile::advance(size_t to) {
    line_ += std::count(text_.begin() + static_cast<std::ptrdiff_t>(at_),
                        text_.begin() + static_cast<std::ptrdiff_t>(to), '\n');
    at_ = to;
}

void RowFile::skip_blanks() {
    size_t to = at_;
    while (to < text_.size() && is_blank(text_[to])) ++to;
    advance(to);
}

bool RowFile::next(Item* item, std::string* fault) { return is_array_ ? next_value(item, fault) : next_line(item); }

bool RowFile::next_line(Item* item) {
    while (at_ < text_.size()) {
        const size_t newline = std::min(text_.find('\n', at_), text_.size());
        const size_t end = std::min(newline + 1, text_.size());
        *item = {text_.substr(at_, newline - at_), line_, static_cast<int64_t>(end)};
        advance(end);
        if (std::any_of(item->json.begin(), item->json.end(), [](char c) { return !is_blank(c); })) return true;
    }
    return false;
}

/// Behind the value that begins at at_: its own last bracket, or the first comma or bracket that is not within it.
size_t RowFile::end_of_value() const {
    int64_t depth = 0;
    for (size_t i = at_; i < text_.size(); ++i) {
        const char c = text_[i];
        if (c == '"') {
            for (++i; i < text_.size() && text_[i] != '"'; ++i) {
                if (text_[i] == '\\') ++i;
            }
        } else if (c == '{' || c == '[') {
            ++depth;
        } else if (c == '}' || c == ']') {
            if (depth == 0) return i;
            if (--depth == 0) return i + 1;
        } else if (c == ',' && depth == 0) {
            return i;
        }
    }
    return text_.size();
}

bool RowFile::next_value(Item* item, std::string* fault) {
    skip_blanks();
    const auto stop = [&](const char* what) {
        *item = {"", line_, static_cast<int64_t>(at_)};
        *fault = what;
        at_ = text_.size();
        is_array_ = false;
        return false;
    };
    if (at_ == text_.size()) return stop("is where the array ends without a ']': the file is cut");
    if (!is_first_ && text_[at_] == ',') {
        advance(at_ + 1);
        skip_blanks();
        if (at_ == text_.size()) return stop("is where the array ends without a ']': the file is cut");
    } else if (text_[at_] == ']') {
        advance(at_ + 1);
        skip_blanks();
        if (at_ < text_.size()) return stop("goes on behind the end of the array");
        is_array_ = false;
        return false;
    } else if (!is_first_) {
        return stop("has no ',' behind a row of the array");
    }
    is_first_ = false;
    const size_t end = end_of_value();
    if (end == text_.size()) return stop("begins a row that does not end: the file is cut, or the row damaged");
    if (end == at_) return stop("has no row where one is wanted");
    *item = {text_.substr(at_, end - at_), line_, static_cast<int64_t>(end)};
    advance(end);
    return true;
}

bool looks_like_rows(std::string_view text, bool plain_too) {
    constexpr int kLookedAt = 20;
    constexpr size_t kLongest = size_t{1} << 22;
    RowFile file(text);
    RowFile::Item item;
    std::string fault;
    for (int i = 0; i < kLookedAt && file.next(&item, &fault); ++i) {
        if (item.json.size() > kLongest) return false;
        const nlohmann::json json = nlohmann::json::parse(shallow_json(item.json), nullptr, /*allow_exceptions=*/false);
        if (!json.is_discarded()) return looks_like_row(json, plain_too);
    }
    return false;
}

}  // namespace llmc
