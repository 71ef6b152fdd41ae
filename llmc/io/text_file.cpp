#include "llmc/io/text_file.h"

#include "llmc/base/check.h"
#include "llmc/base/error.h"
#include "llmc/base/mapped_reading.h"
#include "llmc/io/tokenizer.h"

#include <algorithm>
#include <cstddef>
#include <utility>

namespace llmc {

TextFile::TextFile(DataFile file) : what_(file.describe()), file_(std::move(file.file)) {}

void TextFile::read(int64_t position, std::span<int32_t> out) const {
    const auto count = static_cast<int64_t>(out.size());
    CHECK(position >= 0 && position + count <= size(), position, count, size());
    if (count == 0) return;
    if (position == 0) {
        out[0] = ByteTokenizer::kEndOfText;
        out = out.subspan(1);
        position = 1;
    }
    read_mapped(file_, position - 1, static_cast<int64_t>(out.size()), [&](const std::byte* from) {
        std::transform(from, from + out.size(), out.begin(), std::to_integer<int32_t>);
    });
}

std::string TextFile::where(int64_t position) const {
    if (position == 0) return fmt::format("'{}' at its start", file_.path());
    return fmt::format("'{}' at byte {}", file_.path(), position - 1);
}

int32_t TextFile::vocab_size() const { return ByteTokenizer::kVocabSize; }
int32_t TextFile::end_of_text() const { return ByteTokenizer::kEndOfText; }
std::string TextFile::describe() const { return what_ + ", read as bytes"; }

}  // namespace llmc
