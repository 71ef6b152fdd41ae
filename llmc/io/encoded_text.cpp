#include "llmc/io/encoded_text.h"

#include "llmc/base/check.h"
#include "llmc/base/error.h"
#include "llmc/io/encode_corpus.h"

#include <algorithm>
#include <utility>

namespace llmc {

EncodedText::EncodedText(DataFile file, const Tokenizer& tokenizer, const DataReading& reading,
                         const std::string& option, SpecialNames* names)
    : path_(file.file.path()),
      what_(file.describe() + (file.kind == DataKind::JsonLines ? ", field '" + reading.jsonl_field + "'" : "")),
      tokenizer_(tokenizer.name()),
      describes_end_of_text_(tokenizer.describe_end_of_text()),
      vocab_size_(tokenizer.vocab_size()),
      end_of_text_(tokenizer.end_of_text()) {
    TextCorpus corpus(std::move(file), reading, option);
    const auto take = [&](const CorpusChunk&, std::span<const int32_t> tokens) {
        if (vocab_size_ <= 65536) {
            small_.insert(small_.end(), tokens.begin(), tokens.end());
        } else {
            large_.insert(large_.end(), tokens.begin(), tokens.end());
        }
    };
    const auto special = reading.special_tokens ? SpecialTokens::AsIds : SpecialTokens::AsText;
    encode_corpus(corpus, tokenizer, special, threads_or_all(0), take, reading.special_tokens ? nullptr : names);
}

void EncodedText::read(int64_t position, std::span<int32_t> out) const {
    const auto count = static_cast<int64_t>(out.size());
    CHECK(position >= 0 && position + count <= size(), position, count, size());
    if (large_.empty()) {
        std::copy_n(small_.begin() + position, count, out.begin());
    } else {
        std::copy_n(large_.begin() + position, count, out.begin());
    }
}

std::string EncodedText::where(int64_t position) const { return fmt::format("'{}' at token {}", path_, position); }

std::string EncodedText::describe() const {
    const std::string how = tokenizer_ == "bytes" ? "as bytes" : "with the tokenizer '" + tokenizer_ + "'";
    const std::string separated = describes_end_of_text_.empty() ? "" : "; " + describes_end_of_text_;
    return fmt::format("{}, read {}{}", what_, how, separated);
}

}  // namespace llmc
