#include "llmc/draw/text_table.h"

#include "llmc/base/check.h"

#include <algorithm>
#include <sstream>

namespace llmc {
namespace {

constexpr int kGap = 2;
constexpr int kLeastProse = 20;

std::vector<std::string> lines_of(const std::string& text, char end = '\n') {
    std::vector<std::string> lines;
    std::istringstream stream(text);
    for (std::string line; std::getline(stream, line, end);) lines.push_back(line);
    if (lines.empty()) lines.emplace_back();
    return lines;
}

/// Letters as a terminal counts them: bytes that begin a character of UTF-8.
int length_of(const std::string& text) {
    return static_cast<int>(
        std::count_if(text.begin(), text.end(), [](unsigned char c) { return (c & 0xC0) != 0x80; }));
}

std::string aligned(const std::string& text, int width, bool left) {
    const std::string spaces(static_cast<size_t>(std::max(0, width - length_of(text))), ' ');
    return left ? text + spaces : spaces + text;
}

void end_line(std::string* text) {
    text->erase(text->find_last_not_of(' ') + 1);
    *text += '\n';
}

}  // namespace

std::string wrapped(const std::string& text, int width, int indent) {
    std::string result;
    for (const std::string& line : lines_of(text)) {
        std::string current;
        for (const std::string& word : lines_of(line, ' ')) {
            const bool begins = current.find_first_not_of(' ') == std::string::npos;
            if (!begins && length_of(current) + 1 + length_of(word) > width) {
                result += current + "\n";
                current = std::string(static_cast<size_t>(indent), ' ') + word;
            } else {
                current += (begins ? "" : " ") + word;
            }
        }
        result += current + "\n";
    }
    return result;
}

std::string wrapped_command(const std::string& command, int width, int indent) {
    std::vector<std::string> words;
    bool is_quoted = false;  // A space inside quotes is part of a word.
    for (const std::string& piece : lines_of(command, ' ')) {
        if (is_quoted) {
            words.back() += " " + piece;
        } else {
            words.push_back(piece);
        }
        if (std::count(piece.begin(), piece.end(), '\'') % 2 == 1) is_quoted = !is_quoted;
    }
    constexpr int kBreak = 2;  // " \".
    std::string text, line(static_cast<size_t>(indent), ' ');
    bool begins = true;
    for (size_t i = 0; i < words.size(); ++i) {
        const int behind = i + 1 < words.size() ? kBreak : 0;
        if (!begins && length_of(line) + 1 + length_of(words[i]) + behind > width) {
            text += line + " \\\n";
            line = std::string(static_cast<size_t>(2 * indent), ' ') + words[i];
        } else {
            line += (begins ? "" : " ") + words[i];
        }
        begins = false;
    }
    return text + line + "\n";
}

void TextTable::add_row(const std::vector<std::string>& cells) {
    CHECK(cells.size() == columns_.size(), cells.size(), columns_.size());
    for (size_t i = 0; i < cells.size(); ++i) columns_[i].cells.push_back(cells[i]);
}

int TextTable::width_of(const TextColumn& column) {
    int width = 0;
    for (const std::string& line : lines_of(column.header)) width = std::max(width, length_of(line));
    if (column.prose) return std::max(width, kLeastProse);
    for (const std::string& cell : column.cells) width = std::max(width, length_of(cell));
    return width;
}

int TextTable::width_of(const Columns& columns) {
    int width = -kGap;
    for (const TextColumn* column : columns) width += kGap + width_of(*column);
    return width;
}

std::string TextTable::render(const Columns& columns, int width) {
    std::vector<int> widths;
    for (const TextColumn* column : columns) widths.push_back(width_of(*column));
    const int spare = width - width_of(columns);
    if (columns.back()->prose) widths.back() += std::max(0, spare);
    size_t head = 1;
    for (const TextColumn* column : columns) head = std::max(head, lines_of(column->header).size());

    std::string text;
    for (size_t line = 0; line < head; ++line) {
        for (size_t i = 0; i < columns.size(); ++i) {
            const std::vector<std::string> header = lines_of(columns[i]->header);
            const size_t above = head - header.size();
            text += std::string(i > 0 ? kGap : 0, ' ') +
                    aligned(line < above ? "" : header[line - above], widths[i], columns[i]->left);
        }
        end_line(&text);
    }
    for (size_t row = 0; row < columns.front()->cells.size(); ++row) {
        std::string line;
        for (size_t i = 0; i < columns.size(); ++i) {
            const std::string& cell = columns[i]->cells[row];
            line += std::string(i > 0 ? kGap : 0, ' ');
            if (!columns[i]->prose) {
                line += aligned(cell, widths[i], columns[i]->left);
                continue;
            }
            const auto indent = static_cast<size_t>(length_of(line));
            const std::vector<std::string> pieces = lines_of(wrapped(cell, widths[i], 0));
            for (size_t piece = 0; piece < pieces.size(); ++piece) {
                if (piece > 0) end_line(&line), line += std::string(indent, ' ');
                line += pieces[piece];
            }
        }
        end_line(&line);
        text += line;
    }
    return text;
}

std::string TextTable::text(int width) const {
    Columns shown;
    for (const TextColumn& column : columns_) shown.push_back(&column);
    while (width_of(shown) > width) {
        const auto last = std::max_element(shown.begin(), shown.end(),
                                           [](const auto* a, const auto* b) { return a->rank < b->rank; });
        if ((*last)->rank == 0) break;
        shown.erase(last);
    }
    return render(shown, width);
}

std::string TextTable::blocks(int width) const {
    std::string text;
    for (size_t i = 1; i < columns_.size();) {
        Columns block = {&columns_.front(), &columns_[i++]};
        for (; i < columns_.size(); ++i) {
            block.push_back(&columns_[i]);
            if (width_of(block) <= width) continue;
            block.pop_back();
            break;
        }
        text += (text.empty() ? "" : "\n") + render(block, width);
    }
    return text;
}

}  // namespace llmc
