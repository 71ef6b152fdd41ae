#include "llmc/io/chat/row_source.h"

#include "llmc/base/check.h"
#include "llmc/base/error.h"
#include "llmc/io/encode_corpus.h"

#include <algorithm>

namespace llmc {

RowSource::RowSource(DataFile file, const Tokenizer& tokenizer, const DataReading& reading, const std::string& option)
    : path_(file.file.path()),
      tokenizer_(tokenizer.name()),
      vocab_size_(tokenizer.vocab_size()),
      end_of_text_(tokenizer.end_of_text()) {
    RowReader reader(tokenizer, reading, option, threads_or_all(0));
    const auto take = [&](const EncodedRow& row, int64_t line, int64_t) {
        starts_.push_back(size());
        lines_.push_back(line);
        tokens_.insert(tokens_.end(), row.tokens.begin(), row.tokens.end());
        marks_.insert(marks_.end(), row.marks.begin(), row.marks.end());
    };
    const RowCounts counts = reader.read(file, take);
    reader.report(path_, counts);
    what_ = file.describe() + ", " + reader.describe_template();
}

void RowSource::read(int64_t position, std::span<int32_t> out) const {
    CHECK(position >= 0 && position + static_cast<int64_t>(out.size()) <= size(), position, out.size(), size());
    std::copy_n(tokens_.begin() + position, out.size(), out.begin());
}

void RowSource::read_marks(int64_t position, std::span<uint8_t> out) const {
    CHECK(position >= 0 && position + static_cast<int64_t>(out.size()) <= size(), position, out.size(), size());
    std::copy_n(marks_.begin() + position, out.size(), out.begin());
}

std::string RowSource::where(int64_t position) const {
    const auto behind = std::upper_bound(starts_.begin(), starts_.end(), position);
    CHECK(behind != starts_.begin(), position);
    const auto row = static_cast<size_t>(behind - starts_.begin()) - 1;
    return fmt::format("'{}' line {}, token {} of the row", path_, lines_[row], position - starts_[row]);
}

std::string RowSource::describe() const {
    const std::string how = tokenizer_ == "bytes" ? "as bytes" : "with the tokenizer '" + tokenizer_ + "'";
    return fmt::format("{}, read {}", what_, how);
}

}  // namespace llmc
