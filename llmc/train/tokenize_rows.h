// `train_gpt tokenize` of instruction rows: token files with a file of marks beside each (marks_file.h).
#pragma once

#include "llmc/io/data_file.h"
#include "llmc/io/tokenizer.h"
#include "llmc/train/options.h"

#include <functional>
#include <string>
#include <vector>

namespace llmc {

/// Whether the files are instruction rows. An Error if some are, and others are not.
bool are_rows(const std::vector<DataFile>& files);

/// How many tokens went where, of how many bytes.
struct TokenizedRows {
    int64_t train_tokens = 0, val_tokens = 0;
    int64_t scored = 0;
    int64_t bytes = 0;
    std::vector<std::string> paths;  ///< Of the token files, those for validation first.
};

/// Writes --out's shards; without an Error all of them, else none. They have their names once finish(close) has called
/// close(). Rows are whole, in the files and between training and validation.
TokenizedRows tokenize_rows(const Options& options, const std::vector<DataFile>& files, const Tokenizer& tokenizer,
                            const std::function<void(const std::function<void()>& close)>& finish);

}  // namespace llmc
