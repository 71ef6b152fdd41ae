// A file of rows: JSON Lines, or a JSON array of any layout, taken apart without reading it whole.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace llmc {

class RowFile {
  public:
    /// `text` must outlive this.
    explicit RowFile(std::string_view text);

    struct Item {
        std::string_view json;  ///< One value, not parsed yet.
        int64_t line = 0;       ///< In which it begins, from 1.
        int64_t end_bytes = 0;  ///< Bytes of the file up to its end.
    };
    /// The next; false at the end. What is wrong with an array besides its values goes into `fault`, with the line in
    /// `item`; nothing follows then.
    bool next(Item* item, std::string* fault);

  private:
    bool next_line(Item* item);
    bool next_value(Item* item, std::string* fault);
    void skip_blanks();
    size_t end_of_value() const;
    void advance(size_t to);

    std::string_view text_;
    size_t at_ = 0;
    int64_t line_ = 1;
    bool is_array_ = false;
    bool is_first_ = true;
};

/// Whether the file is rows, by the first of its values that can be read: of which looks_like_row() is true.
bool looks_like_rows(std::string_view text, bool plain_too);

}  // namespace llmc
