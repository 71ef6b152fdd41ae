// Tables and sentences for a terminal of so many columns: what does not fit is left out by rank, or goes into another
// block or line.
#pragma once

#include <string>
#include <vector>

namespace llmc {

struct TextColumn {
    std::string header;  ///< One line, or two with '\n' between them.
    bool left = false;   ///< Aligned left; numbers are not.
    int rank = 0;        ///< Where the table is too wide, columns of the highest rank go first; those of 0 stay.
    bool prose = false;  ///< Of words, which may be broken; it takes what the others leave. Only the last column.
    std::vector<std::string> cells = {};
};

class TextTable {
  public:
    explicit TextTable(std::vector<TextColumn> columns) : columns_(std::move(columns)) {}

    /// A cell for every column.
    void add_row(const std::vector<std::string>& cells);

    /// Lines of at most `width` characters, as far as the columns of rank 0 allow.
    std::string text(int width) const;

    /// All columns, in as many blocks one below the other as it takes; each begins with the first column.
    std::string blocks(int width) const;

  private:
    using Columns = std::vector<const TextColumn*>;
    static std::string render(const Columns& columns, int width);
    static int width_of(const TextColumn& column);
    static int width_of(const Columns& columns);

    std::vector<TextColumn> columns_;
};

/// Sentences in lines of at most `width` characters, broken at spaces; those after the first begin with `indent`
/// spaces.
std::string wrapped(const std::string& text, int width, int indent = 2);

/// A shell command in lines of at most `width` characters, as far as its words allow, to be pasted: all but the last
/// end in " \". It begins with `indent` spaces, further lines with twice as many.
std::string wrapped_command(const std::string& command, int width, int indent = 2);

}  // namespace llmc
