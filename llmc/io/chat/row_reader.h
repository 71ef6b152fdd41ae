// Files of instruction rows, encoded on several threads with the result of one.
#pragma once

#include "llmc/io/chat/row_encoder.h"
#include "llmc/io/data_file.h"
#include "llmc/io/special_names.h"
#include "llmc/io/tokenizer.h"

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

namespace llmc {

/// What became of rows.
struct RowCounts {
    int64_t rows = 0;          ///< That were kept.
    int64_t dropped = 0;       ///< Without a scored token, or with answers that are all blank.
    int64_t bad = 0;           ///< Passed over with --skip-bad-lines.
    int64_t tokens = 0;        ///< Of the rows that were kept,
    int64_t scored = 0;        ///< and how many of them are targets that count.
    int64_t open_answers = 0;  ///< Scored answers with no token behind them that ends the turn.
};

class RowReader {
  public:
    /// A row that was kept, the number of the line it begins in, and bytes of the file up to its end.
    using Take = std::function<void(const EncodedRow& row, int64_t line, int64_t end_bytes)>;

    /// `tokenizer` must outlive this. An Error naming the option if it cannot encode, or the template cannot be read.
    RowReader(const Tokenizer& tokenizer, const DataReading& reading, std::string option, int threads);

    /// Hands over the rows of a file (DataKind::Rows) in their order. What is wrong with one is an Error that names
    /// file, line and key, or with --skip-bad-lines passed over; a file in which nothing is scored is an Error.
    /// Rows are whole, however long: where they are too long for a context they are cut by what knows it, the packing
    /// of sequences for training.
    RowCounts read(const DataFile& file, const Take& take);
    /// Says what became of the rows of a file, in a line, and warns of what a user may not have meant.
    void report(const std::string& path, const RowCounts& counts) const;

    /// The template's name, for the banner: "chat template 'chatml'"; "no chat template".
    std::string describe_template() const;
    const ChatFormat& format() const { return format_; }

  private:
    const Tokenizer& tokenizer_;
    DataReading reading_;
    std::string option_;
    int threads_;
    ChatFormat format_;
    TokenLengths lengths_;
    SpecialNames names_;
};

}  // namespace llmc
